import {
  cast,
  customGrad,
  equal,
  expandDims,
  fill,
  gather,
  greater,
  greaterEqual,
  less,
  logicalAnd,
  logicalOr,
  maximum,
  oneHot,
  range,
  type Rank,
  reshape,
  scalar,
  slice,
  squeeze,
  sub,
  sum,
  type Tensor,
  type Tensor2D,
  transpose,
  where,
  zeros,
  zerosLike,
} from '@tensorflow/tfjs-core';
import {moePermute} from '../ops/moe_permute';
import {moeTopk} from '../ops/moe_topk';
import type {MoeDropPolicy} from './mixture_of_experts_options';

/** How many tokens an expert takes of `numTokens`, masked ones among them: their number is known on the device only. */
export function expertCapacity(numTokens: number, topk: number, numExperts: number, capacityFactor: number): number {
  return Math.ceil((capacityFactor * numTokens * topk) / numExperts);
}

/**
 * topkIds with -1 in place of the assignments that are past their expert's capacity. Those with the largest weights
 * stay, or with 'position' those of the first tokens; of equal weights, those of the first tokens.
 */
export function dropOverCapacity(
  topkIds: Tensor2D,
  topkWeights: Tensor2D,
  numExperts: number,
  capacity: number,
  dropPolicy: MoeDropPolicy,
): Tensor2D {
  if (capacity >= topkIds.shape[0]) {
    // A token chooses an expert once at most.
    return topkIds;
  }
  // Which stay is held fixed for gradients, as the choice itself is; comparisons have none.
  const drop = customGrad((...args) => {
    const [ids, weights] = args as Tensor2D[];
    const isDropped =
      dropPolicy === 'position' ? isLate(ids, numExperts, capacity) : isLight(ids, weights, numExperts, capacity);
    return {
      value: where(isDropped, fill<Rank.R2>(ids.shape, -1, 'int32'), ids),
      gradFunc: () => [zeros(ids.shape), zeros(weights.shape)],
    };
  });
  return drop(topkIds, topkWeights) as Tensor2D;
}

/** bool [T, K]: whether an assignment comes after as many of its expert as that has room for. */
function isLate(ids: Tensor2D, numExperts: number, capacity: number): Tensor {
  const {invPermutedIdx, expertFirstTokenOffset} = moePermute(zeros([ids.shape[0], 1]), ids, numExperts);
  const rank = sub(reshape(invPermutedIdx, ids.shape), ofExperts(expertFirstTokenOffset, ids));
  return greaterEqual(rank, scalar(capacity, 'int32'));
}

/** bool [T, K]: whether an assignment weighs less than the last that its expert has room for, or as much but later. */
function isLight(ids: Tensor2D, weights: Tensor2D, numExperts: number, capacity: number): Tensor {
  const weightsOfExperts = transpose(weightTable(ids, weights, numExperts));
  // moeTopk orders by weight and then by token, with no readback.
  const lastTokens = slice(moeTopk(weightsOfExperts, capacity).topkIds, [0, capacity - 1], [numExperts, 1]);
  const lastToken = reshape(lastTokens, [numExperts]);
  const isLast = cast(oneHot(lastToken, ids.shape[0]), 'bool');
  const lastWeight = sum(where(isLast, weightsOfExperts, zerosLike(weightsOfExperts)), 1);
  const token = expandDims(range(0, ids.shape[0], 1, 'int32'), 1);
  const isLater = greater(token, ofExperts(lastToken, ids));
  const limit = ofExperts(lastWeight, ids);
  return logicalOr(less(weights, limit), logicalAnd(equal(weights, limit), isLater));
}

/** [T, K]: of a value for each expert, that of the expert of each assignment; any one where there is none. */
const ofExperts = (values: Tensor, ids: Tensor2D): Tensor =>
  reshape(gather(values, maximum(reshape(ids, [-1]), scalar(0, 'int32'))), ids.shape);

/** float32 [T, E]: the weight of each assignment in the column of its expert, -Infinity elsewhere. */
function weightTable(ids: Tensor2D, weights: Tensor2D, numExperts: number): Tensor2D {
  const [numTokens, topk] = ids.shape;
  let table: Tensor2D = fill<Rank.R2>([numTokens, numExperts], -Infinity);
  for (let k = 0; k < topk; k++) {
    const slot = (of: Tensor2D) => slice(of, [0, k], [numTokens, 1]);
    const isOfExpert = cast(oneHot(squeeze(slot(ids), [1]), numExperts), 'bool');
    table = where(isOfExpert, slot(weights), table);
  }
  return table;
}
