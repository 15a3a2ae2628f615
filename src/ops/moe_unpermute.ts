import {op, reshape, type Tensor, tensor1d, type Tensor2D, type TensorLike, type Variable} from '@tensorflow/tfjs-core';
import {MoeUnpermute} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {
  assert,
  assertOut,
  assertRank,
  convertToOptionalTensor,
  convertToTensor,
  mergeIntoOptions,
} from '../arguments/checks';
import {convertInvPermutedIdx, convertTopkWeights, type MoeIndices} from '../arguments/routing';

export type MoeUnpermuteOptions = {
  /** int32 [L+1], from the same moePermute, in place of the argument `expertFirstTokenOffset`. */
  expertFirstTokenOffset?: MoeIndices | null;
  /**
   * A variable float32 [T, H]. It is assigned the result once the op has succeeded, and shares the result's data.
   * Default: none.
   */
  out?: Variable | null;
};

function moeUnpermute_(
  permutedHiddenStates: Tensor | TensorLike,
  topkWeights: Tensor | TensorLike,
  invPermutedIdx: MoeIndices,
  expertFirstTokenOffset?: MoeIndices | MoeUnpermuteOptions | null,
  options?: MoeUnpermuteOptions | null,
): Tensor2D {
  const opName = 'moeUnpermute';
  const optionNames = ['expertFirstTokenOffset', 'out'] as const;
  const given = mergeIntoOptions<MoeUnpermuteOptions, 'expertFirstTokenOffset'>(
    expertFirstTokenOffset,
    'expertFirstTokenOffset',
    options,
    optionNames,
    opName,
  );
  const $rows = convertToTensor(permutedHiddenStates, 'permutedHiddenStates', opName, ['float32']);
  assertRank($rows, 'permutedHiddenStates', opName, '[R, H]', 'Reshape it to [-1, H] first.');
  const [numRows, hiddenSize] = $rows.shape;
  assert(hiddenSize >= 1, opName, () => 'permutedHiddenStates must have at least 1 column (H), but has 0.');
  const $weights = convertTopkWeights(topkWeights, opName);
  const $inverse = convertInvPermutedIdx(invPermutedIdx, $weights, opName);
  const $offset = convertToOptionalTensor(given.expertFirstTokenOffset, 'expertFirstTokenOffset', opName, ['int32']);
  if ($offset != null) {
    assertRank($offset, 'expertFirstTokenOffset', opName, '[L+1]');
    assert($offset.size >= 1, opName, () => 'expertFirstTokenOffset must have at least 1 value, but is empty.');
  }
  assertOut(given.out, [$weights.shape[0], hiddenSize], 'float32', opName);

  const {out} = runMoeKernel(
    MoeUnpermute,
    {
      permutedHiddenStates: $rows,
      topkWeights: $weights,
      invPermutedIdx: reshape($inverse, $weights.shape),
      expertFirstTokenOffset: $offset ?? tensor1d([numRows], 'int32'),
    },
    {},
  );
  given.out?.assign(out);
  return out;
}

/**
 * Brings the rows of moePermute back to their tokens and merges each token's K rows by its weights.
 *
 * ```js
 * const hiddenStates = tf.tensor2d([[1, 10], [2, 20], [3, 30]]);
 * const topkIds = tf.tensor2d([[2, 0], [0, 1], [2, 1]], [3, 2], 'int32');
 * const topkWeights = tf.tensor2d([[0.75, 0.25], [0.5, 0.5], [0.25, 0.5]]);
 * const permuted = tf.moePermute(hiddenStates, topkIds, 4);
 * const expertOutputs = tf.mul(permuted.permutedHiddenStates, 2); // the experts, here all the same
 * const merged = tf.moeUnpermute(
 *     expertOutputs, topkWeights, permuted.invPermutedIdx, permuted.expertFirstTokenOffset);
 * await merged.array(); // => [[2, 20], [4, 40], [4.5, 45]]
 * ```
 *
 * @param permutedHiddenStates  float32 [R, H]: a row for each assignment, in the order of moePermute; any R.
 * @param topkWeights  float32 [T, K].
 * @param invPermutedIdx  int32 [N] or [T, K]: the row of each assignment, from the same moePermute.
 * @param expertFirstTokenOffset  int32 [L+1], from the same moePermute; only its last value V counts. A slot is skipped
 *     if its index is below 0, at least R or at least V. Neither the row nor the weight of a skipped slot is read, so
 *     NaN in a row of no assignment cannot reach the result. Without the offset every slot whose index is within R is
 *     read, also slots of experts that are not local.
 * @param options  {@link MoeUnpermuteOptions}. Pass expertFirstTokenOffset before the options or among them.
 * @returns float32 [T, H]: the sum over k of topkWeights[t,k] * row, in slot order in float32; 0 if all slots are
 *     skipped. The error is at most min(K + 1, 64) * 2^-24 of the sum of the terms' sizes.
 *
 * Gradient: to permutedHiddenStates and topkWeights, of any order. Its error is at most 64 * 2^-24 of the sum of the
 * terms' sizes, however many slots read a row.
 *
 * @throws if a rank, dtype, shape or option name does not fit, before any work. On GPUs also if a tensor is larger than
 *     the device binds. On webgl also if an index could pass 2^24, or 2,048 on devices of half-float textures.
 *
 * Source: vLLM `moe_unpermute`.
 */
export const moeUnpermute = /* @__PURE__ */ op({moeUnpermute_});
