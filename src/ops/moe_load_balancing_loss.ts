import {
  add,
  cast,
  div,
  divNoNan,
  fill,
  greaterEqual,
  less,
  logicalAnd,
  maximum,
  mul,
  op,
  type Rank,
  reshape,
  type Scalar,
  step,
  sum,
  type Tensor,
  tensor2d,
  type Tensor2D,
  type TensorLike,
  util,
  where,
  zeros,
} from '@tensorflow/tfjs-core';
import type {MoeTopkScoring} from '../contract/kernel_names';
import {fixed} from '../smooth_ops';
import {assert, assertRank, checkOneOf, checkOptions, convertToOptionalTensor} from '../arguments/checks';
import {assertSameTokens, checkScoring, convertTokenRows, type MoeIndices, type TokenRows} from '../arguments/routing';
import {expertCounts as countsOfExperts} from './expert_counts';
import {convertTokenMask, meansOver, routedTokens, sumsOver} from './router_losses';

/**
 * The tokens over which the loss balances assignments against probabilities: all of them, or each sequence by itself.
 */
export type MoeLoadBalancingScope = 'batch' | 'sequence';

export type MoeLoadBalancingLossOptions = {
  /**
   * int32, float32 or bool, an entry for each token. A token whose entry is 0 or false does not count, whatever its
   * logits and ids are. Default: all tokens count.
   */
  mask?: Tensor | TensorLike | null;
  /**
   * The probabilities: softmax for `'softmax'` (default), `'softmaxAfterTopk'` and `'sparsemixer'`, else score / sum of
   * scores.
   */
  scoring?: MoeTopkScoring | null;
  /**
   * `'batch'` (default): one loss for all tokens. `'sequence'`: the mean of the losses of the sequences of [B, S, E].
   */
  per?: MoeLoadBalancingScope | null;
  /**
   * float32 or int32 [E]: each expert's number of assignments in the global batch, in place of the counts of topkIds.
   */
  expertCounts?: Tensor | TensorLike | null;
};

/** Sums of int32 tensors are exact up to this number on GPUs. */
const MAX_EXPERTS_OF_SEQUENCES = 2 ** 24;

function moeLoadBalancingLoss_(
  routerLogits: Tensor | TensorLike,
  topkIds: MoeIndices,
  options?: MoeLoadBalancingLossOptions | null,
): Scalar {
  const opName = 'moeLoadBalancingLoss';
  const given = checkOptions(options, ['mask', 'scoring', 'per', 'expertCounts'], opName);
  const $logits = convertTokenRows(routerLogits, 'routerLogits', 'E', 'float32', opName);
  const numExperts = $logits.rows.shape[1];
  const $ids = convertIds(topkIds, $logits, opName);
  const $mask = convertTokenMask(given.mask, $logits, opName);
  const scoring = checkScoring(given.scoring, opName);
  const numSequences = checkScope(given.per, $logits, opName);
  const $expertCounts = convertExpertCounts(given.expertCounts, given.per, numExperts, opName);

  const {probabilities, counts} = routedTokens($logits, $mask, scoring === 'sparsemixer' ? 'softmax' : scoring);
  const meanProbability = meansOver(counts, probabilities, numSequences);
  const shares = fixed(() => {
    if ($expertCounts != null) {
      const floats = reshape(cast($expertCounts, 'float32'), [1, numExperts]);
      return divNoNan(floats, sum(floats));
    }
    return $logits.rows.size === 0 ? zeros([1, numExperts]) : sharesOf($ids, counts, numExperts, numSequences);
  });
  const ofSequences = mul(numExperts, sumsOver(reshape(mul(shares, meanProbability), [-1, 1]), numSequences));
  if (numSequences === 1) {
    return reshape(ofSequences, []);
  }
  return reshape(
    meansOver(
      fixed(() => step(sumsOver(counts, numSequences))),
      ofSequences,
      1,
    ),
    [],
  );
}

function convertIds(x: MoeIndices, logits: TokenRows, opName: string): Tensor2D {
  assert(
    typeof (x as unknown) !== 'number',
    opName,
    () =>
      `topkIds must be int32 [${[...logits.shape.slice(0, -1), 'K']}], but is a number. Pass the topkIds of moeTopk, not its topk.`,
  );
  const $ids = convertTokenRows(x, 'topkIds', 'K', 'int32', opName);
  assertSameTokens($ids, 'topkIds', logits, 'routerLogits', opName);
  return $ids.rows;
}

/** The number of sequences that are balanced, each by itself: 1 for the whole batch. */
function checkScope(per: MoeLoadBalancingScope | null | undefined, {shape}: TokenRows, opName: string): number {
  checkOneOf(per ?? 'batch', ['batch', 'sequence'], 'per', opName);
  if (per !== 'sequence') {
    return 1;
  }
  assert(
    shape.length === 3,
    opName,
    () =>
      `routerLogits must be rank 3 [B, S, E] with per 'sequence', but got rank ${shape.length} [${shape}]. ` +
      'Reshape it to a batch of sequences first.',
  );
  const [numSequences, , numExperts] = shape;
  assert(
    numSequences * numExperts <= MAX_EXPERTS_OF_SEQUENCES,
    opName,
    () =>
      `the number of sequences times the number of experts (B*E) must be at most ${MAX_EXPERTS_OF_SEQUENCES} with ` +
      `per 'sequence', but is ${numSequences * numExperts}.`,
  );
  return util.sizeFromShape(shape) === 0 ? 1 : numSequences;
}

/** expertCounts: float32 or int32 [E], or not given. */
function convertExpertCounts(
  x: Tensor | TensorLike | null | undefined,
  per: MoeLoadBalancingScope | null | undefined,
  numExperts: number,
  opName: string,
): Tensor | undefined {
  const $x = convertToOptionalTensor(x, 'expertCounts', opName, ['float32', 'int32']);
  if ($x != null) {
    assertRank($x, 'expertCounts', opName, '[E]');
    assert(
      $x.shape[0] === numExperts,
      opName,
      () => `expertCounts must have an entry for each expert (E = ${numExperts}), but has ${$x.shape[0]}.`,
    );
    assert(
      per !== 'sequence',
      opName,
      () => "expertCounts must not be given with per 'sequence', because each sequence has counts of its own.",
    );
  }
  return $x;
}

/**
 * float32 [B, E]: each expert's share of the assignments of each sequence; the shares of a sequence add up to 1. All
 * B*E experts are counted at once. An id becomes -1, which no count includes, if it names no expert or its token does
 * not count.
 */
function sharesOf(rows: Tensor2D, counts: Tensor, numExperts: number, numSequences: number): Tensor {
  const [numTokens] = rows.shape;
  const isExpert = logicalAnd(greaterEqual(rows, 0), less(rows, numExperts));
  const firstExperts = Int32Array.from(
    {length: numTokens},
    (_, token) => Math.floor((token * numSequences) / numTokens) * numExperts,
  );
  const topkIds = where(
    logicalAnd(isExpert, cast(counts, 'bool')),
    numSequences === 1 ? rows : add(rows, tensor2d(firstExperts, [numTokens, 1], 'int32')),
    fill<Rank.R2>(rows.shape, -1, 'int32'),
  );
  const counted = cast(countsOfExperts(topkIds as Tensor2D, numSequences * numExperts), 'float32');
  const ofSequences = reshape(counted, [numSequences, numExperts]);
  return div(ofSequences, maximum(sum(ofSequences, 1, true), 1));
}

/**
 * The loss that spreads tokens over experts: E * sum over e of share[e] * meanProbability[e]. It is 1 if all experts
 * have the same share and the same mean probability, as in Switch Transformers and Megatron-LM. (It is K in Hugging
 * Face transformers.)
 *
 * ```js
 * const routerLogits = tf.tensor2d([[1, 1], [1, 1]]);
 * await tf.moeLoadBalancingLoss(routerLogits, [[0], [1]]).array(); // => 1
 * await tf.moeLoadBalancingLoss(routerLogits, [[0], [0]], {mask: [true, false]}).array(); // => 1
 * await tf.moeLoadBalancingLoss(routerLogits, [[0], [0]], {expertCounts: [30, 10]}).array(); // => 1
 * const sequences = tf.tensor3d([[[0, 0], [0, 0]], [[1, 1], [1, 1]]]); // 2 sequences of 2 tokens
 * await tf.moeLoadBalancingLoss(sequences, [[[0], [0]], [[1], [0]]], {per: 'sequence'}).array(); // => 1
 * ```
 *
 * @param routerLogits  float32 [..., E], of at least rank 2: a row for each token.
 * @param topkIds  int32 [..., K]: the `topkIds` of moeTopk. An id outside 0..E-1, such as -1 for a dropped assignment,
 *     is in no share.
 * @param options.mask  int32, float32 or bool [...]: a token whose entry is 0 or false does not count, whatever its
 *     logits and ids are. Default: all tokens count.
 * @param options.scoring  The probabilities: softmax for `'softmax'` (default) and `'softmaxAfterTopk'`, else score /
 *     sum of scores.
 * @param options.per  `'batch'` (default): one loss for all tokens. `'sequence'`: the mean of the losses of B
 *     sequences, each computed from its own tokens, as DeepSeek-V3 and Megatron-LM (`seq_aux_loss`) balance;
 *     routerLogits are [B, S, E], topkIds [B, S, K] and the mask [B, S]. A sequence without a token that counts is not
 *     in this mean.
 * @param options.expertCounts  float32 or int32 [E]: each expert's number of assignments in the global batch, which
 *     contains this batch (other devices, accumulated steps). The shares come from these counts in place of topkIds. If
 *     all counts are 0, the loss is 0. Not with `'sequence'`.
 * @returns a float32 scalar. share[e] is the part of the counted assignments that expert e has. meanProbability[e] is
 *     the sum of its probabilities over the tokens that count, divided by their number; it is 0 if no token counts. A
 *     token whose logits are all -Infinity has no probabilities: neither the token nor its ids count, as if it were
 *     masked. NaN in a token that counts makes the loss and the gradient of this token NaN. Infinity does so too,
 *     except with `'sigmoid'`.
 *
 * Gradient: to routerLogits, through the probabilities, of any order; 0 for a token that does not count. Shares are
 * held fixed: topkIds, the mask and expertCounts get no gradient.
 *
 * @throws if a rank, dtype, shape or option does not fit, or B*E is past 2^24 with `'sequence'`, before any work. On
 *     GPUs also if routerLogits is larger than the device binds. On webgl also if the number of tokens, of assignments
 *     or of experts is past 2^24, or past 2,048 on devices of half-float textures.
 *
 * Source: Megatron-LM `switch_load_balancing_loss_func`, `_apply_seq_aux_loss` and `_apply_global_aux_loss`; the
 * sequence-wise balance loss of DeepSeek-V3.
 */
export const moeLoadBalancingLoss = /* @__PURE__ */ op({moeLoadBalancingLoss_});
