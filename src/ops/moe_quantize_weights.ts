import {op, type Tensor, type TensorLike} from '@tensorflow/tfjs-core';
import {assert, assertRank, convertToTensor} from '../arguments/checks';
import {checkQuantization, type MoeQuantizeWeightsOptions, quantizationEncoding} from '../arguments/quantization';
import {assertWholeWords} from '../arguments/quantized_weights';
import {MoeQuantizeWeights} from '../contract/kernel_names';
import {type QuantizedWeights, quantizedWeightsOf} from '../contract/quantized_weights';
import {runMoeKernel} from '../contract/run_kernel';

export type {MoeQuantizeWeightsOptions} from '../arguments/quantization';
export type {QuantizedFormat, QuantizedWeights, ScaleFormat} from '../contract/quantized_weights';

function moeQuantizeWeights_(
  weights: Tensor | TensorLike,
  options?: MoeQuantizeWeightsOptions | null,
): QuantizedWeights {
  const opName = 'moeQuantizeWeights';
  const quantization = checkQuantization(options, opName);
  const $weights = convertToTensor(weights, 'weights', opName, ['float32']);
  assertRank($weights, 'weights', opName, '[L, D, C]');
  assert(
    $weights.size > 0,
    opName,
    () => `weights must have at least 1 expert, row and column, but is [${$weights.shape}].`,
  );
  const shape = $weights.shape.slice();
  assertWholeWords(shape, quantization.format, 'weights', opName);
  const encoding = quantizationEncoding(quantization, shape[2], opName);
  const tensors = runMoeKernel(MoeQuantizeWeights, {weights: $weights}, {encoding});
  const quantized = quantizedWeightsOf(shape, encoding, tensors);
  // As it was given, so that w1 and w2 have the same.
  return quantization.groupSize == null ? quantized : {...quantized, groupSize: quantization.groupSize};
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
