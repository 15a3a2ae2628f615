import {op, type Tensor, type Tensor2D, type TensorLike} from '@tensorflow/tfjs-core';
import {assert, checkOptions} from './checks';
import type {MoeExpertWeights} from './expert_arguments';
import {convertExperts, type FusedExpertsOptions, fusedExpertsOptionNames} from './fused_experts';
import {convertHiddenStates, convertRouterLogits} from './moe_arguments';
import {chooseExperts, type MoeTopkOptions, moeTopkOptionNames} from './moe_topk';
import {runExperts} from './run_experts';

export type FusedMoeOptions = MoeTopkOptions & FusedExpertsOptions;

function fusedMoe_(
  hiddenStates: Tensor | TensorLike,
  w1: MoeExpertWeights,
  w2: MoeExpertWeights,
  routerLogits: Tensor | TensorLike,
  topk: number,
  options?: FusedMoeOptions | null,
): Tensor2D {
  const opName = 'fusedMoe';
  const given = checkOptions(options, [...moeTopkOptionNames, ...fusedExpertsOptionNames], opName);
  const $x = convertHiddenStates(hiddenStates, opName, ['float32']);
  const experts = convertExperts($x, w1, w2, given, opName);
  const $logits = convertRouterLogits(routerLogits, opName);
  assert(
    $logits.shape[0] === $x.shape[0],
    opName,
    () => `routerLogits must have as many rows as hiddenStates (T = ${$x.shape[0]}), but has ${$logits.shape[0]}.`,
  );
  assert(
    $logits.shape[1] === experts.numExperts,
    opName,
    () =>
      `routerLogits must have a column for each expert (E = ${experts.numExperts}, by ` +
      `${experts.expertMap == null ? 'w1' : 'expertMap'}), but has ${$logits.shape[1]}.`,
  );
  const {topkWeights, topkIds} = chooseExperts($logits, topk, given, opName);
  return runExperts($x, topkWeights, topkIds, experts, opName);
}

/**
 * A whole mixture-of-experts block: chooses each token's experts by its router logits, runs them, and merges their
 * outputs. moeTopk and fusedExperts in one, with no readback: 7 launches on webgpu, 5 for few tokens.
 *
 * ```js
 * // T = 2 tokens of H = 2, E = 2 experts of I = 1, K = 1
 * const x = tf.tensor2d([[1, 2], [3, 4]]);
 * const w1 = tf.tensor3d([[[1, 0]], [[0, 1]]]); // [E, I, H]
 * const w2 = tf.tensor3d([[[1], [1]], [[10], [10]]]); // [E, H, I]
 * const options = {activation: 'relu', gated: false, scoring: 'softmaxAfterTopk'};
 * await tf.fusedMoe(x, w1, w2, [[0, 5], [5, 0]], 1, options).array(); // => [[20, 20], [3, 3]]
 * ```
 *
 * @param hiddenStates  float32 [T, H].
 * @param w1  float32 [L, 2I, H], as in fusedExperts.
 * @param w2  float32 [L, H, I].
 * @param routerLogits  float32 [T, E]; E is the length of expertMap, or L without one.
 * @param topk  K, experts per token, 1 <= K <= E.
 * @param options  Those of moeTopk and those of fusedExperts.
 * @returns float32 [T, H].
 *
 * Gradient: to hiddenStates, w1, w2, the biases, the shared experts and routerLogits, of any order, the choice held
 * fixed.
 *
 * @throws if a rank, dtype, shape or option does not fit, before any work. On GPUs also where a tensor is larger than
 *     the device binds, and on webgl where an index could pass 2^24, or 2,048 on devices of half-float textures.
 *
 * Source: vLLM `fused_moe`.
 */
export const fusedMoe = /* @__PURE__ */ op({fusedMoe_});
