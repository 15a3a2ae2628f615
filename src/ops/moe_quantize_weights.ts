import {op, type Tensor, type TensorLike} from '@tensorflow/tfjs-core';
import {MoeQuantizeWeights} from '../contract/kernel_names';
import {
  encodingOf,
  type QuantizedFormat,
  quantizedFormats,
  type QuantizedWeights,
  type ScaleFormat,
} from '../contract/quantized_weights';
import {runMoeKernel} from '../contract/run_kernel';
import {assert, assertRank, checkBoolean, checkOneOf, checkOptions, convertToTensor} from '../arguments/checks';
import {assertWholeWords, checkGroupSize, formatNames, scaleFormatNames} from '../arguments/quantized_weights';

export type {QuantizedFormat, QuantizedWeights, ScaleFormat} from '../contract/quantized_weights';

export type MoeQuantizeWeightsOptions = {
  /** How a code stands for a number. Default `'int4'`. */
  format?: QuantizedFormat | null;
  /** How many inputs share a scale: a multiple of 16, or C. Default 32. Not for the 16-bit formats. */
  groupSize?: number | null;
  /**
   * Whether integers have a zero point in the middle, and not the least weight of a group as its offset. Default true.
   */
  symmetric?: boolean | null;
  /**
   * How scales and offsets are stored. Default `'float32'`, and `'e8m0'` for `'fp4'`. Integers cannot have `'e8m0'`.
   */
  scaleFormat?: ScaleFormat | null;
};

const optionNames = ['format', 'groupSize', 'symmetric', 'scaleFormat'] as const;
const DEFAULT_GROUP_SIZE = 32;

function moeQuantizeWeights_(
  weights: Tensor | TensorLike,
  options?: MoeQuantizeWeightsOptions | null,
): QuantizedWeights {
  const opName = 'moeQuantizeWeights';
  const given = checkOptions(options, optionNames, opName);
  const format = checkOneOf(given.format ?? 'int4', formatNames, 'format', opName);
  const $weights = convertToTensor(weights, 'weights', opName, ['float32']);
  assertRank($weights, 'weights', opName, '[L, D, C]');
  assert(
    $weights.size > 0,
    opName,
    () => `weights must have at least 1 expert, row and column, but is [${$weights.shape}].`,
  );
  const shape = $weights.shape.slice();
  assertWholeWords(shape, format, 'weights', opName);

  const {hasScales, zeroPoint: middle} = quantizedFormats[format];
  const symmetric = checkBoolean(given.symmetric ?? true, 'symmetric', opName);
  assert(symmetric || middle != null, opName, () => `symmetric must be true for ${format}, which has no offsets.`);
  if (!hasScales) {
    const name = (['groupSize', 'scaleFormat'] as const).find((option) => given[option] != null);
    assert(name == null, opName, () => `${name} must not be given for ${format}, which has no scales.`);
    const encoding = encodingOf({format, groupSize: 0, scaleFormat: 'float32', zeroPoint: 0, hasOffsets: false});
    return {format, shape, ...runMoeKernel(MoeQuantizeWeights, {weights: $weights}, {encoding})};
  }

  const scaleFormat = checkOneOf(
    given.scaleFormat ?? (format === 'fp4' ? 'e8m0' : 'float32'),
    scaleFormatNames,
    'scaleFormat',
    opName,
  );
  assert(
    middle == null || scaleFormat !== 'e8m0',
    opName,
    () => `scaleFormat must not be 'e8m0' for ${format}, whose scales and offsets have a sign.`,
  );
  const groupSize = checkGroupSize(given.groupSize ?? DEFAULT_GROUP_SIZE, shape[2], 'groupSize', opName);
  const zeroPoint = symmetric ? (middle ?? 0) : 0;
  const encoding = encodingOf({format, groupSize, scaleFormat, zeroPoint, hasOffsets: !symmetric});
  const tensors = runMoeKernel(MoeQuantizeWeights, {weights: $weights}, {encoding});
  const quantized: QuantizedWeights = {format, shape, groupSize, scaleFormat, ...tensors};
  return symmetric && middle != null ? {...quantized, zeroPoint} : quantized;
}

/**
 * Quantizes the weights of experts: integers or small floats that share a scale by groups of inputs.
 *
 * ```js
 * const weights = tf.tensor3d([-8, 7, 0.4, 3, 2, 1, 0, -1], [1, 1, 8]); // L = 1 expert, D = 1 output, C = 8 inputs
 * const quantized = tf.moeQuantizeWeights(weights, {format: 'int4', groupSize: 8});
 * await quantized.codes.array(); // => [[[0x789ab8f0]]]
 * await tf.moeDequantizeWeights(quantized).array(); // => [[[-8, 7, 0, 3, 2, 1, 0, -1]]]
 * tf.dispose(quantized);
 * ```
 *
 * The scale of a group is (the weight of the largest size) / -8 for `'int4'`, and (the largest size) / 127, 6 or 448
 * for `'int8'`, `'fp4'` and `'float8'`. An `'e8m0'` scale is 2 to the exponent of the largest size, less 2 for `'fp4'`
 * and 8 for `'float8'`, as in the MX formats. With `symmetric: false` the least weight of a group is code 0 and the
 * largest is the last code.
 *
 * A weight becomes the nearest code by the scale before it is stored, and the last code past the range. A half rounds
 * up for `'int4'`, away from 0 for `'int8'`, and to even for floats. Scales and offsets are stored as the nearest
 * numbers of their format.
 *
 * @param weights  float32 [L, D, C], as in moeGroupedMatMul with weightFormat 'outIn'. C is a multiple of 32 / the bits
 *     of a code.
 * @param options  {@link MoeQuantizeWeightsOptions}.
 * @returns {@link QuantizedWeights}, the same bits on every backend. With scales of `'float16'` they are those of ggml:
 *     `'int4'` with groups of 32 is Q4_0, or Q4_1 with `symmetric: false`, and `'int8'` is Q8_0. A group of zeros has
 *     the scale 0. A group with NaN or an infinity has the scale NaN. Weights and scales below 2^-126 are 0.
 *
 * Gradient: none. An error says so.
 *
 * On webgl the op waits for the weights and works on the host.
 *
 * @throws if a rank, dtype, shape or option does not fit, before any work. On webgpu also if a tensor is larger than
 *     the device binds.
 *
 * Source: ggml's `quantize_row_q4_0_ref` and its like; the OCP Microscaling Formats.
 */
export const moeQuantizeWeights = /* @__PURE__ */ op({moeQuantizeWeights_});
