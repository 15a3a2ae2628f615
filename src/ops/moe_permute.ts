import {
  clone,
  op,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
  type TensorLike,
  type Variable,
} from '@tensorflow/tfjs-core';
import {MoePermute} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {permuteSizes} from '../contract/output_sizes';
import {
  assert,
  assertFitsInt32,
  assertInt32,
  assertNumExperts,
  assertOut,
  assertPositiveInteger,
  checkOptions,
} from '../arguments/checks';
import {
  convertExpertMap,
  convertHiddenStates,
  convertScale,
  convertTopkIds,
  type MoeIndices,
} from '../arguments/routing';

export type MoePermuteOptions = {
  /**
   * float32 or int32 scales of the rows. Scales [T, ...] are gathered with the rows, and rows of no assignment get the
   * last token's scale. A scale of rank 0, rank 1 or shape [1, ...] is for the whole tensor and is returned as a clone.
   * Default: none.
   */
  a1qScale?: Tensor | TensorLike | null;
  /** L, 1..E. Default E. Without a map it must be E or left out. */
  numLocalExperts?: number | null;
  /**
   * int32 [E]: the local index of each global expert id. An expert whose entry is outside 0..L-1 is not local, and its
   * assignments have no row. Experts with equal entries are merged. Default: all experts are local.
   */
  expertMap?: MoeIndices | null;
  /** B: pad each expert's rows to a multiple of B; an expert without tokens gets no rows. Default: no padding. */
  alignBlockSize?: number | null;
  /** The value of `mIndices` in rows past the last expert's rows. Default -1. */
  fillInvalidExpert?: number | null;
  /**
   * A variable of the result's shape and dtype. It is assigned `permutedHiddenStates` once the op has succeeded, and
   * shares the result's data, so it saves no memory. Gradients flow through the returned tensor; the variable itself is
   * a leaf where other code reads it. It may also be an input. Default: none.
   */
  out?: Variable | null;
};

export type MoePermuteResult = {
  /** [R, H]. Rows of no assignment are 0. */
  permutedHiddenStates: Tensor2D;
  /** int32 [L+1]: the first row of each local expert; the last value is the number of rows in use. */
  expertFirstTokenOffset: Tensor1D;
  /** int32 [N]: the row of each assignment; at least the last offset for an assignment without a row. */
  invPermutedIdx: Tensor1D;
  /**
   * int32 [R]: the local expert of each row, padding included. Constant without alignBlockSize; `alignBlockSize: 1`
   * gives the experts of the rows without padding.
   */
  mIndices: Tensor1D;
  /** int32 [R]: the assignment that was copied to the row; N for a row of no assignment. */
  permutedIdx: Tensor1D;
  /** [R, ...], or the clone of a scale of the whole tensor; absent if no scale was given. */
  a1qScale?: Tensor;
};

function moePermute_(
  hiddenStates: Tensor | TensorLike,
  topkIds: MoeIndices,
  numExperts: number,
  options?: MoePermuteOptions | null,
): MoePermuteResult {
  const opName = 'moePermute';
  const given = checkOptions(
    options,
    ['a1qScale', 'numLocalExperts', 'expertMap', 'alignBlockSize', 'fillInvalidExpert', 'out'],
    opName,
  );
  const $hiddenStates = convertHiddenStates(hiddenStates, opName);
  const [numTokens, hiddenSize] = $hiddenStates.shape;
  const $topkIds = convertTopkIds(topkIds, opName, numTokens);
  assertNumExperts(numExperts, 'numExperts', opName);
  const $expertMap = convertExpertMap(given.expertMap, numExperts, opName);
  const numLocalExperts = given.numLocalExperts ?? numExperts;
  assertPositiveInteger(numLocalExperts, 'numLocalExperts', opName);
  assert(numLocalExperts === numExperts || ($expertMap != null && numLocalExperts < numExperts), opName, () =>
    $expertMap == null
      ? `numLocalExperts must be numExperts (${numExperts}) when there is no expertMap, but is ${numLocalExperts}.`
      : `numLocalExperts must be at most numExperts (${numExperts}), but is ${numLocalExperts}.`,
  );
  if (given.alignBlockSize != null) {
    assertPositiveInteger(given.alignBlockSize, 'alignBlockSize', opName);
  }
  const alignBlockSize = given.alignBlockSize ?? 0;
  const fillInvalidExpert = given.fillInvalidExpert ?? -1;
  assertInt32(fillInvalidExpert, 'fillInvalidExpert', opName);
  const $scale = convertScale(given.a1qScale, numTokens, opName);
  const {numRows} = permuteSizes($topkIds.shape, {numExperts, alignBlockSize});
  assertFitsInt32(numRows, 'the number of permuted rows', opName);
  assertOut(given.out, [numRows, hiddenSize], $hiddenStates.dtype, opName);

  const {a1qScale, ...result}: MoePermuteResult = runMoeKernel(
    MoePermute,
    {
      hiddenStates: $hiddenStates,
      topkIds: $topkIds,
      expertMap: $expertMap,
      a1qScale: $scale?.perToken ? $scale.scale : undefined,
    },
    {numExperts, numLocalExperts, alignBlockSize, fillInvalidExpert, padding: 'zero'},
  );
  given.out?.assign(result.permutedHiddenStates);
  return $scale == null ? result : {...result, a1qScale: $scale.perToken ? a1qScale : clone($scale.scale)};
}

/**
 * Copies token rows so that all rows of one expert are contiguous, in ascending assignment order.
 *
 * ```js
 * // T = 3 tokens, H = 2; K = 2 experts each, of E = 4; assignment i = t*K + k, N = T*K = 6
 * const hiddenStates = tf.tensor2d([[1, 1], [2, 2], [3, 3]]);
 * const topkIds = tf.tensor2d([[2, 0], [0, 1], [2, 1]], [3, 2], 'int32');
 * const permuted = tf.moePermute(hiddenStates, topkIds, 4);
 * await permuted.permutedHiddenStates.array(); // => [[1, 1], [2, 2], [2, 2], [3, 3], [1, 1], [3, 3]]
 * await permuted.expertFirstTokenOffset.array(); // => [0, 2, 4, 6, 6]
 * await permuted.invPermutedIdx.array(); // => [4, 0, 1, 2, 5, 3]
 * await permuted.permutedIdx.array(); // => [1, 2, 3, 5, 0, 4]
 * ```
 *
 * @param hiddenStates  float32 or int32 [T, H]: a row for each token, any H >= 1. Rows keep their bits. On webgl they
 *     must be float32, and subnormals may become 0.
 * @param topkIds  int32 [T, K]: the experts of each token; repeated ids are separate assignments. An assignment whose
 *     id is outside 0..E-1, such as -1 for a padding token, has no row, and no offset counts it.
 * @param numExperts  E, the number of all experts (global), at most 2^20.
 * @param options  {@link MoePermuteOptions}.
 * @returns {@link MoePermuteResult}, with R = N. With alignBlockSize, R = min(N + E*(B-1), N*B) rounded up to a
 *     multiple of B.
 *
 * Gradient: to hiddenStates and to a gathered a1qScale, if they are float32. The dy of rows of no assignment is
 * ignored. Sizes depend on shapes only; nothing is read back.
 *
 * @throws if a rank, dtype, shape, number or option name does not fit, before any work. Ids never throw. On GPUs also
 *     if a tensor is larger than the device binds. On webgl also if T*K, R, E or fillInvalidExpert is past 2^24, or
 *     past 2,048 on devices of half-float textures.
 *
 * Source: vLLM `moe_permute`; rows that vLLM leaves unwritten are 0 here.
 */
export const moePermute = /* @__PURE__ */ op({moePermute_});
