import {customGrad, fill, greaterEqual, type Rank, scalar, type Tensor2D, where, zeros} from '@tensorflow/tfjs-core';
import {rankInExpert} from '../ops/rank_in_expert';
import type {MoeDropPolicy} from './mixture_of_experts_options';

/** How many tokens an expert takes of `numTokens`, masked ones among them: their number is known on the device only. */
export function expertCapacity(numTokens: number, topk: number, numExperts: number, capacityFactor: number): number {
  const share = (capacityFactor * (numTokens * topk)) / numExperts;
  // 1.1 * 100 / 10 is a little more than 11 in doubles.
  return Math.ceil(share * (1 - 4 * Number.EPSILON));
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
    const rank = rankInExpert(ids, dropPolicy === 'probability' ? weights : undefined, numExperts);
    const isPast = greaterEqual(rank, scalar(capacity, 'int32'));
    return {
      value: where(isPast, fill<Rank.R2>(ids.shape, -1, 'int32'), ids),
      gradFunc: () => [zeros(ids.shape), zeros(weights.shape)],
    };
  });
  return drop(topkIds, topkWeights) as Tensor2D;
}
