import {op, type Rank, type Tensor, type TensorLike, util} from '@tensorflow/tfjs-core';
import {assert, checkOptions} from '../arguments/checks';
import {
  convertExperts,
  type FusedExpertsOptions,
  fusedExpertsOptionNames,
  type MoeExpertWeights,
} from '../arguments/experts';
import {alongTokens, assertSameTokens, convertTokenRows, type MoeIndices} from '../arguments/routing';
import {runExperts} from './run_experts';

function fusedExperts_<R extends Rank>(
  hiddenStates: Tensor<R> | TensorLike,
  w1: MoeExpertWeights,
  w2: MoeExpertWeights,
  topkWeights: Tensor | TensorLike,
  topkIds: MoeIndices,
  options?: FusedExpertsOptions | null,
): Tensor<R> {
  const opName = 'fusedExperts';
  const given = checkOptions(options, fusedExpertsOptionNames, opName);
  const $x = convertTokenRows(hiddenStates, 'hiddenStates', 'H', 'float32', opName);
  const $ids = convertTokenRows(topkIds, 'topkIds', 'K', 'int32', opName);
  assertSameTokens($ids, 'topkIds', $x, 'hiddenStates', opName);
  const $weights = convertTokenRows(topkWeights, 'topkWeights', 'K', 'float32', opName);
  assert(
    util.arraysEqual($weights.shape, $ids.shape),
    opName,
    () => `topkWeights must have the shape of topkIds [${$ids.shape}], but is [${$weights.shape}].`,
  );
  const experts = convertExperts($x.shape, w1, w2, given, opName);
  return alongTokens(runExperts($x.rows, $weights.rows, $ids.rows, experts, opName), $x);
}

/**
 * Runs each token through the experts that it was routed to, and merges their outputs by the token's weights. The op is
 * permute, two grouped matmuls and unpermute, with no readback: 6 launches on webgpu, 4 for few tokens, 2 for one or
 * two tokens.
 *
 * ```js
 * // T = 2 tokens of H = 2, L = 2 experts of I = 1, K = 1
 * const x = tf.tensor2d([[1, 2], [3, 4]]);
 * const w1 = tf.tensor3d([[[1, 0]], [[0, 1]]]); // [L, I, H]
 * const w2 = tf.tensor3d([[[1], [1]], [[10], [10]]]); // [L, H, I]
 * const merged = tf.fusedExperts(x, w1, w2, [[1], [0.5]], [[1], [0]], {activation: 'relu', gated: false});
 * await merged.array(); // => [[20, 20], [1.5, 1.5]]
 *
 * const quantized = tf.moeQuantizeWeights(w1, {format: 'bfloat16'}); // exact for these numbers
 * const same = tf.fusedExperts(x, quantized, w2, [[1], [0.5]], [[1], [0]], {activation: 'relu', gated: false});
 * await same.array(); // => [[20, 20], [1.5, 1.5]]
 * ```
 *
 * @param hiddenStates  float32 [T, H]; or [..., H] of any rank, such as [B, T, H], with weights and ids [..., K].
 * @param w1  float32 [L, 2I, H]: gates and ups of each of L experts; [L, I, H] with `gated: false`. An array of tensors
 *     is read as their concatenation along axis 0, for weights that are larger than a device binds in one tensor. Or
 *     {@link QuantizedWeights} of this shape, with weightFormat 'outIn', or an array of them.
 * @param w2  float32 [L, H, I], or quantized, in a format of its own.
 * @param topkWeights  float32 [T, K].
 * @param topkIds  int32 [T, K]. A slot adds nothing if its expert is not local or its id names no expert.
 * @param options  {@link FusedExpertsOptions}.
 * @returns float32 [T, H], or the shape of hiddenStates: the sum over slots of w * (w2 . act(w1 . x + w1Bias) +
 *     w2Bias). The outputs of shared experts are added last.
 *
 * Memory: rows [T*K, H] and [T*K, I] between launches, at most 128 MiB each; more tokens are run in chunks. A gradient
 * keeps hiddenStates, indices and the rows [T*K, 2I] before the activation of all chunks, each chunk within the same
 * limit. With applyRouterWeightOnInput it keeps two [T*K, H] and one [T*K, I] instead. Quantized weights are decoded as
 * they are read, as in moeGroupedMatMul, and no float32 copy of them is made.
 *
 * Gradient: to hiddenStates, w1, w2, the biases, the shared experts and topkWeights, of any order. Quantized weights
 * are frozen: a gradient to their scales or offsets is an error.
 *
 * @throws if a rank, dtype, shape or option does not fit, before any work. On GPUs also if a tensor is larger than the
 *     device binds. On webgl also if an index could pass 2^24, or 2,048 on devices of half-float textures.
 *
 * Source: vLLM `fused_experts`.
 */
export const fusedExperts = /* @__PURE__ */ op({fusedExperts_});
