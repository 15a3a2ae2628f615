import {op, type Rank, type Tensor, type Tensor2D, type TensorLike} from '@tensorflow/tfjs-core';
import {MoeTopK, type MoeTopkScoring} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {assert, assertFitsInt32, assertRank, checkOptions, convertToOptionalTensor} from '../arguments/checks';
import {
  alongTokens,
  checkRouting,
  convertTokenRows,
  type MoeTopkOptions,
  moeTopkOptionNames,
} from '../arguments/routing';
import {sparsemixer} from './sparsemixer';

export type {MoeTopkScoring} from '../contract/kernel_names';

export type MoeTopkResult<R extends Rank = Rank> = {
  /** float32 [T, K], or [..., K] for logits of another rank. */
  topkWeights: Tensor<R>;
  /**
   * int32 [T, K]: K different experts in descending order of their logits; of equal logits the lower id comes first.
   * The ids are the same on every backend. With a bias, score + bias decides in place of the logit, and the last bits
   * of the scores differ between devices.
   */
  topkIds: Tensor<R>;
};

function moeTopk_<R extends Rank>(
  routerLogits: Tensor<R> | TensorLike,
  topk: number,
  options?: MoeTopkOptions | null,
): MoeTopkResult<R> {
  const opName = 'moeTopk';
  const given = checkOptions(options, moeTopkOptionNames, opName);
  const $logits = convertTokenRows(routerLogits, 'routerLogits', 'E', 'float32', opName);
  const {topkWeights, topkIds} = chooseExperts($logits.rows, topk, given, opName);
  return {topkWeights: alongTokens(topkWeights, $logits), topkIds: alongTokens(topkIds, $logits)};
}

/** moeTopk with errors in the name of `opName`, the op that was called. */
export function chooseExperts(
  $logits: Tensor2D,
  topk: number,
  given: Partial<MoeTopkOptions>,
  opName: string,
): MoeTopkResult<Rank.R2> {
  const [numTokens, numExperts] = $logits.shape;
  const {scoring, sparsemixerJitter, ...attrs} = checkRouting(numExperts, topk, given, opName);
  assertFitsInt32(numTokens * topk, 'the number of assignments (T*K)', opName);
  const $bias = convertBias(given.scoreCorrectionBias, numExperts, scoring, opName);

  if (scoring === 'sparsemixer') {
    return sparsemixer($logits, {...attrs, sparsemixerJitter}, opName);
  }
  return runMoeKernel(MoeTopK, {routerLogits: $logits, scoreCorrectionBias: $bias}, {...attrs, scoring});
}

function convertBias(
  bias: Tensor | TensorLike | null | undefined,
  numExperts: number,
  scoring: MoeTopkScoring,
  opName: string,
): Tensor | undefined {
  const $bias = convertToOptionalTensor(bias, 'scoreCorrectionBias', opName, ['float32']);
  if ($bias != null) {
    assertRank($bias, 'scoreCorrectionBias', opName, '[E]');
    assert(
      $bias.shape[0] === numExperts,
      opName,
      () => `scoreCorrectionBias must have an entry for each expert (E = ${numExperts}), but has ${$bias.shape[0]}.`,
    );
    assert(
      scoring !== 'softmaxAfterTopk' && scoring !== 'sparsemixer',
      opName,
      () =>
        `scoreCorrectionBias must not be given with scoring '${scoring}', which has no scores before the ` +
        `choice of experts.`,
    );
  }
  return $bias;
}

/**
 * Chooses the K best experts of each token by its router logits and computes their weights. Scores, top-k and
 * renormalization are one kernel, which is one launch on webgpu.
 *
 * ```js
 * const routerLogits = tf.tensor2d([[0, 2, 1, 2], [3, 3, 1, 0]]); // T = 2, E = 4
 * const {topkWeights, topkIds} = tf.moeTopk(routerLogits, 2);
 * await topkIds.array(); // => [[1, 3], [0, 1]]
 * await topkWeights.array(); // => [[0.5, 0.5], [0.5, 0.5]]
 * const grouped = tf.moeTopk(routerLogits, 1, {scoring: 'sigmoid', numExpertGroups: 2, topkGroups: 1});
 * await grouped.topkIds.array(); // => [[1], [0]]
 * const phi = tf.moeTopk(routerLogits, 2, {scoring: 'sparsemixer'}); // equal logits share the first softmax
 * await phi.topkWeights.array(); // => [[0.5, 1], [0.5, 1]]
 * ```
 *
 * @param routerLogits  float32 [T, E]; or [..., E] of any rank, such as [B, T, E].
 * @param topk  K, 1..E.
 * @param options  {@link MoeTopkOptions}.
 * @returns {@link MoeTopkResult}: topkWeights float32 [T, K] and topkIds int32 [T, K], or [..., K] for logits [..., E].
 *     A NaN logit ranks below -Infinity. An expert whose logit is -Infinity has weight 0; a row of such logits alone
 *     has the ids 0..K-1. NaN and Infinity go through the scoring: a softmax gives NaN.
 *
 * Gradient: of topkWeights to routerLogits, of any order; the choice of experts is held fixed. It is 0 for a logit of
 * -Infinity. If a softmax or a sum of scores makes weights NaN, it is NaN for all logits from which these weights are
 * computed. scoreCorrectionBias gets zeros.
 *
 * Not supported: random choices. In training, transformers draws the experts of Phi-3.5-MoE at random and estimates
 * the gradient of the draw. Here `'sparsemixer'` chooses as in inference, and its gradient is that of its softmaxes. It
 * takes several launches and T*K*E numbers. For Llama-4, use `scoring: 'sigmoid'` and apply the weight to the expert's
 * input (applyRouterWeightOnInput).
 *
 * @throws if a rank, dtype, shape, number or option name does not fit, before any work. On GPUs also if a tensor is
 *     larger than the device binds. On webgl also if E is past 2^24, or past 2,048 on devices of half-float textures.
 *     Subnormal logits may count as 0 on webgl.
 *
 * Source: vLLM `fused_topk`, `grouped_topk` and `topk_softmax`, TransformerEngine's fused router.
 */
export const moeTopk = /* @__PURE__ */ op({moeTopk_});
