import {op, type Rank, type Tensor, type TensorLike} from '@tensorflow/tfjs-core';
import {assert, checkBoolean, checkOptions} from '../arguments/checks';
import type {MoeExpertWeights} from '../arguments/experts';
import {convertExperts, describeRouted} from '../arguments/experts';
import {fusedExpertsOptionNames} from '../arguments/experts';
import {type FusedExpertsOptions} from '../arguments/experts';
import {alongTokens, assertSameTokens, convertTokenRows} from '../arguments/routing';
import {chooseExperts} from './moe_topk';
import {moeTopkOptionNames} from '../arguments/routing';
import {type MoeTopkOptions} from '../arguments/routing';
import {runExperts} from './run_experts';

export type FusedMoeOptions<ReturnRouting extends boolean = false> = MoeTopkOptions &
  FusedExpertsOptions & {
    /**
     * Return {@link FusedMoeResult}, which has the chosen weights and ids too, for losses and expert loads. Default
     * false.
     */
    returnRouting?: ReturnRouting | null;
  };

/** The results of fusedMoe with `returnRouting: true`. */
export type FusedMoeResult<R extends Rank = Rank> = {
  /** float32 [T, H], the result of fusedMoe without `returnRouting`. */
  output: Tensor<R>;
  /** float32 [T, K], as moeTopk returns them; their gradient goes to routerLogits. */
  topkWeights: Tensor<R>;
  /** int32 [T, K]. */
  topkIds: Tensor<R>;
};

/** {@link FusedMoeResult} with `returnRouting: true`, else its output alone. */
export type FusedMoeReturn<R extends Rank, ReturnRouting extends boolean> = ReturnRouting extends true
  ? FusedMoeResult<R>
  : Tensor<R>;

function fusedMoe_<R extends Rank, ReturnRouting extends boolean = false>(
  hiddenStates: Tensor<R> | TensorLike,
  w1: MoeExpertWeights,
  w2: MoeExpertWeights,
  routerLogits: Tensor | TensorLike,
  topk: number,
  options?: FusedMoeOptions<ReturnRouting> | null,
): FusedMoeReturn<R, ReturnRouting> {
  const opName = 'fusedMoe';
  const optionNames = [...moeTopkOptionNames, ...fusedExpertsOptionNames, 'returnRouting'] as const;
  const given = checkOptions<FusedMoeOptions<boolean>>(options, optionNames, opName);
  const returnRouting = checkBoolean(given.returnRouting, 'returnRouting', opName);
  const $x = convertTokenRows(hiddenStates, 'hiddenStates', 'H', 'float32', opName);
  const experts = convertExperts($x.shape, w1, w2, given, opName);
  const $logits = convertTokenRows(routerLogits, 'routerLogits', 'E', 'float32', opName);
  assertSameTokens($logits, 'routerLogits', $x, 'hiddenStates', opName);
  const numColumns = $logits.rows.shape[1];
  assert(
    numColumns === experts.numExperts + experts.numZeroExperts,
    opName,
    () => `routerLogits must have ${describeRouted(experts)}, but has ${numColumns}.`,
  );
  const {topkWeights, topkIds} = chooseExperts($logits.rows, topk, given, opName);
  const output = alongTokens<R>(runExperts($x.rows, topkWeights, topkIds, experts, opName), $x);
  const result: FusedMoeReturn<R, boolean> = returnRouting
    ? {output, topkWeights: alongTokens(topkWeights, $x), topkIds: alongTokens(topkIds, $x)}
    : output;
  return result as FusedMoeReturn<R, ReturnRouting>;
}

/**
 * A whole mixture-of-experts block: chooses each token's experts by its router logits, runs them, and merges their
 * outputs. The op is moeTopk and fusedExperts in one, with no readback: 7 launches on webgpu, 5 for few tokens, 3 for
 * one or two tokens.
 *
 * ```js
 * // T = 2 tokens of H = 2, E = 2 experts of I = 1, K = 1
 * const x = tf.tensor2d([[1, 2], [3, 4]]);
 * const w1 = tf.tensor3d([[[1, 0]], [[0, 1]]]); // [E, I, H]
 * const w2 = tf.tensor3d([[[1], [1]], [[10], [10]]]); // [E, H, I]
 * const logits = tf.tensor2d([[0, 5], [5, 0]]); // [T, E]
 * const merged = tf.fusedMoe(x, w1, w2, logits, 1, {activation: 'relu', gated: false, scoring: 'softmaxAfterTopk'});
 * await merged.array(); // => [[20, 20], [3, 3]]
 *
 * const quantized = tf.moeQuantizeWeights(w1, {format: 'bfloat16'}); // exact for these numbers
 * const same = tf.fusedMoe(x, quantized, w2, logits, 1, {activation: 'relu', gated: false, renormalize: true});
 * await same.array(); // => [[20, 20], [3, 3]]
 *
 * const withZeroExpert = tf.tensor2d([[0, 5, 9], [5, 0, 1]]); // [T, E+1]: token 0 chooses the zero expert
 * const kept = tf.fusedMoe(x, w1, w2, withZeroExpert, 1, {numZeroExperts: 1, renormalize: true, gated: false});
 * (await kept.array())[0]; // => [1, 2]
 * ```
 *
 * @param hiddenStates  float32 [T, H]; or [..., H] of any rank, such as [B, T, H], with routerLogits [..., E].
 * @param w1  float32 [L, 2I, H], or {@link QuantizedWeights}, as in fusedExperts.
 * @param w2  float32 [L, H, I], or quantized, in a format of its own.
 * @param routerLogits  float32 [T, E]; E is the length of expertMap, or L without one. [T, E+Z] with Z zero experts,
 *     which are chosen like all others, so scoreCorrectionBias is [E+Z] then.
 * @param topk  K, experts per token, 1 <= K <= E, or E+Z.
 * @param options  {@link FusedMoeOptions}: all of {@link MoeTopkOptions} and {@link FusedExpertsOptions}, and
 *     returnRouting.
 * @returns float32 [T, H], or the shape of hiddenStates; with `returnRouting: true` {@link FusedMoeResult}.
 *
 * Gradient: to hiddenStates, w1, w2, the biases, the shared experts and routerLogits, of any order. The choice of
 * experts is held fixed. Quantized weights are frozen: a gradient to their scales or offsets is an error.
 *
 * @throws if a rank, dtype, shape or option does not fit, before any work. On GPUs also if a tensor is larger than the
 *     device binds. On webgl also if an index could pass 2^24, or 2,048 on devices of half-float textures.
 *
 * Source: vLLM `fused_moe`.
 */
export const fusedMoe = /* @__PURE__ */ op({fusedMoe_});
