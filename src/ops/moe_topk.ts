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

export type {MoeTopkScoring} from '../contract/kernel_names';

export type MoeTopkResult<R extends Rank = Rank> = {
  /** float32 [T, K], or of the rank of the logits. */
  topkWeights: Tensor<R>;
  /**
   * int32 [T, K]: K different experts, the largest logit first, ties to the lower id. The ids are the same on every
   * backend. With a bias, score + bias decides in place of the logit; its last bits differ between devices.
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

/** moeTopk in the name of the op that was called. */
export function chooseExperts(
  $logits: Tensor2D,
  topk: number,
  given: Partial<MoeTopkOptions>,
  opName: string,
): MoeTopkResult<Rank.R2> {
  const [numTokens, numExperts] = $logits.shape;
  const attrs = checkRouting(numExperts, topk, given, opName);
  assertFitsInt32(numTokens * topk, 'the number of assignments (T*K)', opName);
  const $bias = convertBias(given.scoreCorrectionBias, numExperts, attrs.scoring, opName);

  return runMoeKernel(MoeTopK, {routerLogits: $logits, scoreCorrectionBias: $bias}, attrs);
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
      scoring !== 'softmaxAfterTopk',
      opName,
      () =>
        `scoreCorrectionBias must not be given with scoring 'softmaxAfterTopk', which has no scores before the choice ` +
        `that a bias could correct.`,
    );
  }
  return $bias;
}

/**
 * Chooses the K best experts of each token by its router logits, and gives their weights: scores, top-k and
 * renormalization in one kernel, one launch on webgpu.
 *
 * ```js
 * const routerLogits = tf.tensor2d([[0, 2, 1, 2], [3, 3, 1, 0]]); // T = 2, E = 4
 * const {topkWeights, topkIds} = tf.moeTopk(routerLogits, 2);
 * await topkIds.array(); // => [[1, 3], [0, 1]]
 * await topkWeights.array(); // => [[0.5, 0.5], [0.5, 0.5]]
 * const grouped = tf.moeTopk(routerLogits, 1, {scoring: 'sigmoid', numExpertGroups: 2, topkGroups: 1});
 * await grouped.topkIds.array(); // => [[1], [0]]
 * ```
 *
 * @param routerLogits  float32 [T, E]; or [..., E] of any rank, such as [B, T, E].
 * @param topk  K, 1..E.
 * @param options  {@link MoeTopkOptions}.
 * @returns {@link MoeTopkResult}: topkWeights float32 [T, K] and topkIds int32 [T, K], or of the rank of routerLogits.
 *     A NaN logit ranks below -Infinity. An expert of -Infinity has weight 0; a row of nothing else has the ids 0..K-1.
 *     A NaN or Infinity logit gives what the scoring gives: NaN under a softmax.
 *
 * Gradient: of topkWeights to routerLogits, of any order, the choice held fixed; 0 for a logit of -Infinity. Where a
 * softmax or a sum of scores makes NaN of weights, NaN to all logits that they are made of. Zeros to
 * scoreCorrectionBias.
 *
 * Not expressed: the sparsemixer of Phi-3.5-MoE, whose weights are softmaxes over experts near each pick, and anything
 * random. Llama-4's way is `scoring: 'sigmoid'` with its weight on the expert's input.
 *
 * @throws if a rank, dtype, shape, number or option name does not fit, before any work. On GPUs also where a tensor is
 *     larger than the device binds, and on webgl where E is past 2^24, or past 2,048 on devices of half-float
 *     textures; subnormal logits may count as 0 there.
 *
 * Source: vLLM `fused_topk`, `grouped_topk` and `topk_softmax`, TransformerEngine's fused router.
 */
export const moeTopk = /* @__PURE__ */ op({moeTopk_});
