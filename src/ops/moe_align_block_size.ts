import {op, type Tensor1D} from '@tensorflow/tfjs-core';
import {MoeAlignBlockSize} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {alignSizes} from '../contract/output_sizes';
import {
  assertFitsInt32,
  assertNumExperts,
  assertPositiveInteger,
  checkBoolean,
  checkOptions,
} from '../arguments/checks';
import {convertExpertMap, convertTopkIds, type MoeIndices} from '../arguments/routing';

export type MoeAlignBlockSizeOptions = {
  /**
   * int32 [E]: the local index of each global expert id. Without `ignoreInvalidExperts` every expert keeps its blocks,
   * and the map only translates their labels, whatever its entries are. Default: none.
   */
  expertMap?: MoeIndices | null;
  /** Round S up to a multiple of B. Default false. */
  padSortedIds?: boolean | null;
  /**
   * Apply the map before sorting, drop assignments that the map sends outside 0..E-1, and label unused blocks -1.
   * Default false: unused blocks are labelled as expert 0.
   */
  ignoreInvalidExperts?: boolean | null;
};

export type MoeAlignBlockSizeResult = {
  /** int32 [S]: assignment ids, expert by expert, ascending within an expert; N in places without an assignment. */
  sortedTokenIds: Tensor1D;
  /** int32 [ceil(S/B)]: the expert of each block. */
  expertIds: Tensor1D;
  /** int32 [1]: how many leading entries of `sortedTokenIds` belong to blocks of an expert. */
  numTokensPostPad: Tensor1D;
};

function moeAlignBlockSize_(
  topkIds: MoeIndices,
  blockSize: number,
  numExperts: number,
  options?: MoeAlignBlockSizeOptions | null,
): MoeAlignBlockSizeResult {
  const opName = 'moeAlignBlockSize';
  const given = checkOptions(options, ['expertMap', 'padSortedIds', 'ignoreInvalidExperts'], opName);
  const $topkIds = convertTopkIds(topkIds, opName);
  assertPositiveInteger(blockSize, 'blockSize', opName);
  assertNumExperts(numExperts, 'numExperts', opName);
  const $expertMap = convertExpertMap(given.expertMap, numExperts, opName);
  const padSortedIds = checkBoolean(given.padSortedIds, 'padSortedIds', opName);
  const ignoreInvalidExperts = checkBoolean(given.ignoreInvalidExperts, 'ignoreInvalidExperts', opName);
  const attrs = {blockSize, numExperts, padSortedIds, ignoreInvalidExperts};
  assertFitsInt32(alignSizes($topkIds.shape, attrs).numSortedIds, 'the length of sortedTokenIds', opName);

  return runMoeKernel(MoeAlignBlockSize, {topkIds: $topkIds, expertMap: $expertMap}, attrs);
}

/**
 * Sorts assignments by expert and pads each expert's share to whole blocks, so that a grouped matmul can give
 * every block of B rows to one expert.
 *
 * ```js
 * // T = 3 tokens, K = 2 experts each, of E = 4; assignment i = t*K + k; N = 6 marks padding
 * const topkIds = tf.tensor2d([[2, 0], [0, 1], [2, 1]], [3, 2], 'int32');
 * const aligned = tf.moeAlignBlockSize(topkIds, 4, 4);
 * await aligned.sortedTokenIds.array(); // => [1, 2, 6, 6, 3, 5, 6, 6, 0, 4, 6, 6, 6, 6, 6, 6, 6, 6]
 * await aligned.expertIds.array(); // => [0, 1, 2, 0, 0]
 * await aligned.numTokensPostPad.array(); // => [12]
 * ```
 *
 * @param topkIds  int32 [T, K]: the experts of each token. An id outside 0..E-1 gets no slot.
 * @param blockSize  B, rows a block, at least 1; any integer.
 * @param numExperts  E, from 1 to 2^20.
 * @param options  {@link MoeAlignBlockSizeOptions}.
 * @returns {@link MoeAlignBlockSizeResult}, with S = min(N + E*(B-1), N*B).
 *
 * No gradient: every output is an index. Sizes depend on shapes only; nothing is read back.
 *
 * @throws if topkIds is not int32 [T, K], a number is not a positive integer, the map's length is not E, or an option
 *     is unknown. On GPUs also if a tensor is larger than the device binds. On webgl also if an index could pass 2^24,
 *     or 2,048 on devices of half-float textures.
 *
 * Source: vLLM `moe_align_block_size`. The ids of an expert ascend here on every device.
 */
export const moeAlignBlockSize = /* @__PURE__ */ op({moeAlignBlockSize_});
