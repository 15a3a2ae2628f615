/** The router of Phi-3.5-MoE, made of moeTopk's softmax and of core ops that keep the choice fixed. */
import {
  abs,
  equal,
  greater,
  less,
  logicalAnd,
  logicalOr,
  maximum,
  mul,
  range,
  type Rank,
  reshape,
  scalar,
  sub,
  sum,
  type Tensor2D,
  where,
  zerosLike,
} from '@tensorflow/tfjs-core';
import {assertFitsInt32} from '../arguments/checks';
import {MoeTopK} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {fixed} from '../smooth_ops';

type SparsemixerAttrs = {topk: number; sparsemixerJitter: number; routedScalingFactor: number};

/**
 * The K largest logits, each with its share of a softmax of its own: over the experts that were not chosen before it
 * and are near it. Expert e is near the pick p if p - logits[e] <= 2 * jitter * max(|logits[e]|, p).
 */
export function sparsemixer(
  routerLogits: Tensor2D,
  {topk, sparsemixerJitter, routedScalingFactor}: SparsemixerAttrs,
  opName: string,
): {topkWeights: Tensor2D; topkIds: Tensor2D} {
  const [numTokens, numExperts] = routerLogits.shape;
  assertFitsInt32(numTokens * topk * numExperts, `the number of logits of all slots (T*K*E) of 'sparsemixer'`, opName);
  const softmax = {scoring: 'softmax', renormalize: false, numExpertGroups: 1, topkGroups: 1} as const;
  const chosen = runMoeKernel(MoeTopK, {routerLogits}, {...softmax, topk, routedScalingFactor});
  if (numTokens === 0) {
    return chosen;
  }
  const {topkIds} = chosen;
  const logits = reshape(routerLogits, [numTokens, 1, numExperts]);
  const isLeftOut = fixed(() => {
    const ids = reshape(topkIds, [numTokens, topk, 1]);
    const experts = reshape(range(0, numExperts, 1, 'int32'), [1, 1, numExperts]);
    const pick = sum(where(equal(ids, experts), logits, zerosLike(logits)), 2, true);
    const isBefore = logicalOr(greater(logits, pick), logicalAnd(equal(logits, pick), less(experts, ids)));
    const width = mul(maximum(abs(logits), pick), 2 * sparsemixerJitter);
    return logicalOr(isBefore, greater(sub(pick, logits), width));
  });
  const slots = where(isLeftOut, scalar(-Infinity), logits);
  const {topkWeights} = runMoeKernel(
    MoeTopK,
    {routerLogits: reshape<Rank.R2>(slots, [numTokens * topk, numExperts])},
    {...softmax, topk: 1, routedScalingFactor},
  );
  return {topkWeights: reshape<Rank.R2>(topkWeights, [numTokens, topk]), topkIds};
}
