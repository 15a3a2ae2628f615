import {
  onesLike,
  op,
  reshape,
  type Tensor,
  tensor1d,
  type Tensor2D,
  type TensorLike,
  type Variable,
} from '@tensorflow/tfjs-core';
import {MoeUnpermute} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {assert, assertOut, checkBoolean, convertToTensor, mergeIntoOptions} from '../arguments/checks';
import {convertInvPermutedIdx, convertTopkWeights, type MoeIndices} from '../arguments/routing';

export type MoeUnpermuteAndReduceOptions = {
  /** int32 [N] or [T, K], in place of the argument `invPermutedIdx`. */
  invPermutedIdx?: MoeIndices | null;
  /** The rows are already multiplied by their weights: sum them as they are. Default false. */
  applyRouterWeightOnInput?: boolean | null;
  /**
   * A variable float32 [T, H]. It is assigned the result once the op has succeeded, and shares the result's data.
   * Default: none.
   */
  out?: Variable | null;
};

function moeUnpermuteAndReduce_(
  permutedHiddenStates: Tensor | TensorLike,
  topkWeights: Tensor | TensorLike,
  invPermutedIdx?: MoeIndices | MoeUnpermuteAndReduceOptions | null,
  options?: MoeUnpermuteAndReduceOptions | null,
): Tensor2D {
  const opName = 'moeUnpermuteAndReduce';
  const optionNames = ['invPermutedIdx', 'applyRouterWeightOnInput', 'out'] as const;
  const {invPermutedIdx: indices, ...given} = mergeIntoOptions<MoeUnpermuteAndReduceOptions, 'invPermutedIdx'>(
    invPermutedIdx,
    'invPermutedIdx',
    options,
    optionNames,
    opName,
  );
  const $rows = convertToTensor(permutedHiddenStates, 'permutedHiddenStates', opName, ['float32']);
  const $weights = convertTopkWeights(topkWeights, opName);
  const [numTokens, topk] = $weights.shape;
  const numAssignments = $weights.size;
  const isAssignmentRows =
    ($rows.rank === 2 && $rows.shape[0] === numAssignments) ||
    ($rows.rank === 3 && $rows.shape[0] === numTokens && $rows.shape[1] === topk);
  assert(indices == null ? isAssignmentRows : $rows.rank === 2, opName, () =>
    indices == null
      ? `permutedHiddenStates must be [${numAssignments}, H] or [${numTokens}, ${topk}, H] without ` +
        `invPermutedIdx, but is [${$rows.shape}].`
      : `permutedHiddenStates must be rank 2 [S, H] with invPermutedIdx, but got rank ${$rows.rank} ` +
        `[${$rows.shape}]. Reshape it to [-1, H] first.`,
  );
  const hiddenSize = $rows.shape[$rows.rank - 1];
  assert(hiddenSize >= 1, opName, () => 'permutedHiddenStates must have at least 1 column (H), but has 0.');
  const $inverse =
    indices == null
      ? tensor1d(Int32Array.from({length: numAssignments}, (_, i) => i))
      : convertInvPermutedIdx(indices, $weights, opName);
  const applied = checkBoolean(given.applyRouterWeightOnInput, 'applyRouterWeightOnInput', opName);
  assertOut(given.out, [numTokens, hiddenSize], 'float32', opName);

  const numRows = indices == null ? numAssignments : $rows.shape[0];
  const {out} = runMoeKernel(
    MoeUnpermute,
    {
      permutedHiddenStates: reshape($rows, [numRows, hiddenSize]),
      topkWeights: applied ? onesLike($weights) : $weights,
      invPermutedIdx: reshape($inverse, $weights.shape),
      expertFirstTokenOffset: tensor1d([numRows], 'int32'),
    },
    {},
  );
  given.out?.assign(out);
  return out;
}

/**
 * Brings the rows of moePermuteBlockAligned back to their tokens and merges each token's K rows by its weights.
 *
 * ```js
 * const hiddenStates = tf.tensor2d([[1], [2], [3]]);
 * const topkIds = tf.tensor2d([[1, 0], [0, 0], [1, 0]], [3, 2], 'int32');
 * const topkWeights = tf.tensor2d([[0.5, 0.5], [0.25, 0.5], [1, 0]]);
 * const permuted = tf.moePermuteBlockAligned(hiddenStates, topkIds, 2, 3);
 * const merged = tf.moeUnpermuteAndReduce(
 *     permuted.permutedHiddenStates, topkWeights, permuted.invPermutedIdx);
 * await merged.array(); // => [[1], [1.5], [3]]
 * ```
 *
 * @param permutedHiddenStates  float32 [S, H]. Without `invPermutedIdx` [T*K, H] or [T, K, H]: a row for each
 *     assignment, in the order of assignments. It is never written to.
 * @param topkWeights  float32 [T, K].
 * @param invPermutedIdx  int32 [N] or [T, K]: the row of each assignment. An index outside 0..S-1 is skipped.
 * @param options  {@link MoeUnpermuteAndReduceOptions}. Pass invPermutedIdx before the options or among them.
 * @returns float32 [T, H]: the weighted sum in slot order in float32, with the error bound of moeUnpermute.
 *
 * Gradient: to permutedHiddenStates and topkWeights; zeros to topkWeights with applyRouterWeightOnInput.
 *
 * @throws if a rank, dtype, shape or option name does not fit, before any work. On GPUs also if a tensor is larger than
 *     the device binds. On webgl also if an index could pass 2^24, or 2,048 on devices of half-float textures.
 *
 * Source: vLLM `_moe_unpermute_and_reduce`.
 */
export const moeUnpermuteAndReduce = /* @__PURE__ */ op({moeUnpermuteAndReduce_});
