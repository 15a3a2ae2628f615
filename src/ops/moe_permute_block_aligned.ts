import {clone, op, type Tensor, type Tensor1D, type Tensor2D, type TensorLike} from '@tensorflow/tfjs-core';
import {MoePermute} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {permuteSizes} from '../contract/output_sizes';
import {assertFitsInt32, assertNumExperts, assertPositiveInteger, checkOptions} from '../arguments/checks';
import {
  convertExpertMap,
  convertHiddenStates,
  convertScale,
  convertTopkIds,
  type MoeIndices,
} from '../arguments/routing';

export type MoePermuteBlockAlignedOptions = {
  /** As in moePermute. Default: none. */
  a1qScale?: Tensor | TensorLike | null;
  /**
   * int32 [E]: translates the labels in `expertIds`. Assignments to experts that are not local keep their rows.
   * Default: none.
   */
  expertMap?: MoeIndices | null;
};

export type MoePermuteBlockAlignedResult = {
  /** [S, H]. Padding rows are copies of the last token. */
  permutedHiddenStates: Tensor2D;
  /** int32 [S]: the assignment of each row, N-1 for padding. */
  sortedTokenIds: Tensor1D;
  /** int32 [S]: the expert of each row; rows past the last block have the label of expert 0. */
  expertIds: Tensor1D;
  /** int32 [N]: the row of each assignment; S for an assignment whose id names no expert. */
  invPermutedIdx: Tensor1D;
  /** [S, ...], or the clone of a scale of the whole tensor; absent if no scale was given. */
  a1qScale?: Tensor;
};

function moePermuteBlockAligned_(
  hiddenStates: Tensor | TensorLike,
  topkIds: MoeIndices,
  numExperts: number,
  blockSize: number,
  options?: MoePermuteBlockAlignedOptions | null,
): MoePermuteBlockAlignedResult {
  const opName = 'moePermuteBlockAligned';
  const given = checkOptions(options, ['a1qScale', 'expertMap'], opName);
  const $hiddenStates = convertHiddenStates(hiddenStates, opName);
  const numTokens = $hiddenStates.shape[0];
  const $topkIds = convertTopkIds(topkIds, opName, numTokens);
  assertNumExperts(numExperts, 'numExperts', opName);
  assertPositiveInteger(blockSize, 'blockSize', opName);
  const $expertMap = convertExpertMap(given.expertMap, numExperts, opName);
  const $scale = convertScale(given.a1qScale, numTokens, opName);
  const {numRows} = permuteSizes($topkIds.shape, {numExperts, alignBlockSize: blockSize});
  assertFitsInt32(numRows, 'the number of permuted rows', opName);

  const {permutedHiddenStates, invPermutedIdx, mIndices, permutedIdx, a1qScale} = runMoeKernel(
    MoePermute,
    {
      hiddenStates: $hiddenStates,
      topkIds: $topkIds,
      expertMap: $expertMap,
      a1qScale: $scale?.perToken ? $scale.scale : undefined,
    },
    {
      numExperts,
      numLocalExperts: numExperts,
      alignBlockSize: blockSize,
      fillInvalidExpert: 0,
      padding: 'lastToken',
    },
  );
  const result: MoePermuteBlockAlignedResult = {
    permutedHiddenStates,
    sortedTokenIds: permutedIdx,
    expertIds: mIndices,
    invPermutedIdx,
  };
  if ($scale != null) {
    result.a1qScale = $scale.perToken ? a1qScale : clone($scale.scale);
  }
  return result;
}

/**
 * Copies token rows into blocks of B rows of one expert, padding included. This is vLLM's reference path: every row of
 * the result is a copy of some token's row.
 *
 * ```js
 * const hiddenStates = tf.tensor2d([[1], [2], [3]]);
 * const topkIds = tf.tensor2d([[1, 0], [0, 0], [1, 0]], [3, 2], 'int32');
 * const permuted = tf.moePermuteBlockAligned(hiddenStates, topkIds, 2, 3);
 * await permuted.sortedTokenIds.array(); // => [1, 2, 3, 5, 5, 5, 0, 4, 5, 5, 5, 5]
 * await permuted.permutedHiddenStates.array(); // => [[1],[2],[2],[3],[3],[3],[1],[3],[3],[3],[3],[3]]
 * await permuted.expertIds.array(); // => [0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0]
 * await permuted.invPermutedIdx.array(); // => [6, 0, 1, 2, 7, 3]
 * ```
 *
 * @param hiddenStates  float32 or int32 [T, H]; float32 on webgl.
 * @param topkIds  int32 [T, K]. An assignment whose id is outside 0..E-1 gets no row.
 * @param numExperts  E, at most 2^20.
 * @param blockSize  B, rows a block.
 * @param options  {@link MoePermuteBlockAlignedOptions}.
 * @returns {@link MoePermuteBlockAlignedResult}, with S = min(N + E*(B-1), N*B) rounded up to a multiple of B.
 *
 * Gradient: to hiddenStates and a gathered a1qScale, through rows of assignments only.
 *
 * @throws if a rank, dtype, shape, number or option name does not fit, before any work. On GPUs also if a tensor is
 *     larger than the device binds. On webgl also if an index could pass 2^24, or 2,048 on devices of half-float
 *     textures.
 *
 * Source: vLLM `_moe_permute`.
 */
export const moePermuteBlockAligned = /* @__PURE__ */ op({moePermuteBlockAligned_});
