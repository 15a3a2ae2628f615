import {op, type Tensor3D} from '@tensorflow/tfjs-core';
import {MoeDequantizeWeights} from '../contract/kernel_names';
import type {QuantizedWeights} from '../contract/quantized_weights';
import {runMoeKernel} from '../contract/run_kernel';
import {assert, checkOptions, describeValue, isPlainObject} from '../arguments/checks';
import {convertQuantizedWeights} from '../arguments/quantized_weights';

export type MoeDequantizeWeightsOptions = {
  /** Only these experts: [first, count]. Default: all. */
  experts?: [first: number, count: number] | null;
};

function moeDequantizeWeights_(weights: QuantizedWeights, options?: MoeDequantizeWeightsOptions | null): Tensor3D {
  const opName = 'moeDequantizeWeights';
  const given = checkOptions(options, ['experts'], opName);
  assert(isPlainObject(weights), opName, () => `weights must be quantized, but is ${describeValue(weights)}.`);
  const {encoding, parts, numExperts: numAll} = convertQuantizedWeights(weights, 'weights', 'outIn', opName);
  const experts: unknown = given.experts ?? [0, numAll];
  const [firstExpert, numExperts] = Array.isArray(experts) ? (experts as number[]) : [-1, 0];
  assert(
    Array.isArray(experts) &&
      experts.length === 2 &&
      Number.isInteger(firstExpert) &&
      Number.isInteger(numExperts) &&
      firstExpert >= 0 &&
      numExperts >= 1 &&
      firstExpert + numExperts <= numAll,
    opName,
    () => `experts must be [first, count], at least 1 of ${numAll} experts, but is ${describeValue(experts)}.`,
  );
  return runMoeKernel(MoeDequantizeWeights, parts[0], {encoding, firstExpert, numExperts}).weights;
}

/**
 * The float32 weights that quantized weights stand for.
 *
 * ```js
 * // L = 1 expert, D = 1 output, C = 8 inputs; the lowest bits of a word are the first code, and 8 stands for 0
 * const codes = tf.tensor3d([0x76543210], [1, 1, 1], 'int32');
 * const scales = tf.tensor3d([0.5], [1, 1, 1]);
 * const weights = tf.moeDequantizeWeights({format: 'int4', shape: [1, 1, 8], codes, groupSize: 8, scales});
 * await weights.array(); // => [[[-4, -3.5, -3, -2.5, -2, -1.5, -1, -0.5]]]
 * ```
 *
 * @param weights  {@link QuantizedWeights}.
 * @param options  {@link MoeDequantizeWeightsOptions}.
 * @returns float32 [L, D, C], or as many experts as are asked for: the nearest float32 of each value. With offsets and
 *     scales of `'float32'`, GPUs may round the product before the sum. GPUs may take scales and weights below 2^-126
 *     for 0.
 *
 * Gradient: none to codes, scales and offsets. An error says so.
 *
 * @throws if a field or option does not fit, before any work. On webgpu also if a tensor is larger than the device
 *     binds.
 */
export const moeDequantizeWeights = /* @__PURE__ */ op({moeDequantizeWeights_});
