import {op, type Tensor, type Tensor1D, type Tensor2D, type TensorLike} from '@tensorflow/tfjs-core';
import {MoeGroupedMatMul, type MoeWeightFormat} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {assert, assertRank, checkOptions, convertToTensor} from '../arguments/checks';
import {
  activationOptionNames,
  type ActivationOptions,
  checkActivation,
  checkWeightFormat,
  convertExpertBias,
  convertExpertWeights,
  type MoeExpertWeights,
} from '../arguments/experts';
import {groupedMatMulInputs} from '../contract/expert_weights';
import type {MoeIndices} from '../arguments/routing';

export type {MoeExpertWeights} from '../arguments/experts';

export type MoeGroupedMatMulOptions = ActivationOptions & {
  /** `'outIn'`, the default, or `'inOut'` for weights [L, C, D]. Neither is copied. */
  weightFormat?: MoeWeightFormat | null;
  /** float32 [L, D], added before the activation. Default: none. */
  bias?: Tensor | TensorLike | null;
};

function moeGroupedMatMul_(
  x: Tensor | TensorLike,
  weights: MoeExpertWeights,
  expertFirstTokenOffset: MoeIndices,
  options?: MoeGroupedMatMulOptions | null,
): Tensor2D {
  const opName = 'moeGroupedMatMul';
  const given = checkOptions(options, ['weightFormat', 'bias', ...activationOptionNames], opName);
  const weightFormat = checkWeightFormat(given.weightFormat, opName);
  const activation = checkActivation(given, opName);
  const $x = convertToTensor(x, 'x', opName, ['float32']) as Tensor2D;
  assertRank($x, 'x', opName, '[R, C]', 'Reshape it to [-1, C] first.');
  const $weights = convertExpertWeights(
    weights,
    {argName: 'weights', out: 'D', in: 'C', numIn: $x.shape[1], rows: `x [${$x.shape}]`},
    weightFormat,
    opName,
  );
  const {numExperts, numOut} = $weights;
  assert(
    !activation.gated || numOut % 2 === 0,
    opName,
    () => `weights must have an even D when gated (a gate and an up for each output), but D = ${numOut}.`,
  );
  const $offset = convertToTensor(expertFirstTokenOffset, 'expertFirstTokenOffset', opName, ['int32']) as Tensor1D;
  assertRank($offset, 'expertFirstTokenOffset', opName, '[L+1]');
  assert(
    $offset.size === numExperts + 1,
    opName,
    () =>
      `expertFirstTokenOffset must have L + 1 = ${numExperts + 1} values for weights of L = ${numExperts} experts, ` +
      `but has ${$offset.size}.`,
  );
  const $bias = convertExpertBias(given.bias, 'bias', '[L, D]', $weights, opName);

  return runMoeKernel(MoeGroupedMatMul, groupedMatMulInputs($x, $offset, $weights.parts, $bias), {
    weightFormat,
    encoding: $weights.encoding,
    numParts: $weights.parts.length,
    ...activation,
  }).out;
}

/**
 * The matmul of a mixture of experts: multiplies the rows of each expert by its own weights, all experts in one launch,
 * with bias, activation and gating in the same pass.
 *
 * ```js
 * // R = 3 rows of C = 2 columns: row 0 is expert 0's, rows 1 and 2 are expert 1's; D = 2
 * const x = tf.tensor2d([[1, 2], [3, 4], [5, 6]]);
 * const weights = tf.tensor3d([[[1, 0], [0, 1]], [[1, 1], [1, -1]]]); // [L, D, C]
 * await tf.moeGroupedMatMul(x, weights, [0, 1, 3]).array(); // => [[1, 2], [7, -1], [11, -1]]
 * await tf.moeGroupedMatMul(x, weights, [0, 1, 3], {activation: 'relu', gated: true}).array(); // => [[2], [-7], [-11]]
 *
 * const quantized = tf.moeQuantizeWeights(weights, {format: 'bfloat16'}); // exact for these numbers
 * await tf.moeGroupedMatMul(x, quantized, [0, 1, 3]).array(); // => [[1, 2], [7, -1], [11, -1]]
 * ```
 *
 * @param x  float32 [R, C]: the rows of moePermute.
 * @param weights  float32 [L, D, C], a row for each output, as checkpoints of vLLM, PyTorch and Hugging Face have them.
 *     An array of tensors is read as their concatenation along axis 0, for weights that are larger than a device binds
 *     in one tensor. Or {@link QuantizedWeights} of this shape, with weightFormat 'outIn', or an array of them.
 * @param expertFirstTokenOffset  int32 [L+1], from the same moePermute: rows offset[e] to offset[e+1] - 1 belong to
 *     expert e. Rows of no expert are 0 in the result and are not read. Offsets must ascend in 0..R; other offsets give
 *     unspecified values.
 * @param options  {@link MoeGroupedMatMulOptions}.
 * @returns float32 [R, D], or [R, D/2] if gated. On every backend NaN and infinities go where core ops of tfjs would
 *     take them: NaN gives NaN, also through a clamp, and 0 times Infinity gives NaN.
 *
 * Quantized weights are decoded as they are read, and no float32 copy of them is made. Arithmetic is float32, and the
 * result is that of the float32 weights that moeDequantizeWeights returns, with the same error. A scale may multiply a
 * sum in place of each weight, so x times the largest code must be finite too.
 *
 * Gradient: to x, weights and bias, of any order. Quantized weights are frozen: a gradient to their scales or offsets
 * is an error. The product before the activation is not kept, but computed again. The gradient of a clamp of
 * 'swigluOai' is 1 up to its limit and 0 past it. The dy of rows of no expert is ignored. Sums over the rows of an
 * expert have an error of at most 64 * 2^-24 of the sum of the terms' sizes, however many rows there are.
 *
 * @throws if a rank, dtype, shape or option does not fit, before any work. On GPUs also if a tensor is larger than the
 *     device binds. On webgl also if R is past 2^24, or past 2,048 on devices of half-float textures.
 *
 * Source: DeepGEMM's and vLLM's grouped GEMM; jax.lax.ragged_dot.
 */
export const moeGroupedMatMul = /* @__PURE__ */ op({moeGroupedMatMul_});
