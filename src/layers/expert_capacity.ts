import {
  customGrad,
  fill,
  greaterEqual,
  less,
  logicalAnd,
  type Rank,
  scalar,
  type Tensor2D,
  where,
  zeros,
} from '@tensorflow/tfjs-core';
import {rankInExpert} from '../ops/rank_in_expert';
import type {MixtureOfExpertsOptions} from './mixture_of_experts_options';

/**
 * How many of `numTokens` tokens an expert takes. Masked tokens are included, because only the device knows their
 * number.
 */
export function expertCapacity(numTokens: number, topk: number, numExperts: number, capacityFactor: number): number {
  const share = (capacityFactor * (numTokens * topk)) / numExperts;
  // 1.1 * 100 / 10 is a little more than 11 in float64.
  return Math.ceil(share * (1 - 4 * Number.EPSILON));
}

/**
 * topkIds with -1 in place of each assignment past its expert's capacity. An expert keeps the assignments with the
 * largest weights, and of equal weights those of the first tokens. With 'position' it keeps those of the first tokens.
 * A zero expert, which has an id past numExperts, keeps all.
 */
export function dropOverCapacity(
  topkIds: Tensor2D,
  topkWeights: Tensor2D,
  capacity: number,
  {
    numExperts,
    numZeroExperts,
    dropPolicy,
  }: Pick<MixtureOfExpertsOptions, 'numExperts' | 'numZeroExperts' | 'dropPolicy'>,
): Tensor2D {
  if (capacity >= topkIds.shape[0]) {
    // A token chooses an expert at most once, so no expert has more assignments than there are tokens.
    return topkIds;
  }
  // Gradients hold the kept assignments fixed, like the choice itself: comparisons have no gradient.
  const drop = customGrad((...args) => {
    const [ids, weights] = args as Tensor2D[];
    const order = dropPolicy === 'probability' ? weights : undefined;
    const rank = rankInExpert(ids, order, numExperts + numZeroExperts);
    const isPast = greaterEqual(rank, scalar(capacity, 'int32'));
    const isDropped = numZeroExperts === 0 ? isPast : logicalAnd(isPast, less(ids, scalar(numExperts, 'int32')));
    return {
      value: where(isDropped, fill<Rank.R2>(ids.shape, -1, 'int32'), ids),
      gradFunc: () => [zeros(ids.shape), zeros(weights.shape)],
    };
  });
  return drop(topkIds, topkWeights) as Tensor2D;
}
