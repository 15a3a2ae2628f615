/** Cohere's Command models of experts. */
import type {LayoutOf} from './layout';
import {gateAndProjections, sharedExperts, zeros} from './parts';

/**
 * Cohere2MoeSparseMoeBlock: softmax or sigmoid of the chosen logits. `'average'` is half of the sum of experts and
 * shared experts: weights of 1/2, and a shared gate of zeros, whose sigmoid is 1/2.
 */
export const cohere2Moe: LayoutOf = (config, block) => {
  const sizes = config.sizes(config.either('num_experts', 'num_local_experts'), 'intermediate_size');
  const selection = config.only('expert_selection_fn', ['softmax', 'sigmoid']);
  const combination = config.only('shared_expert_combination_strategy', ['average', 'sum']);
  const {weights, sharedIntermediateSize} = sharedExperts(config, block, sizes, 'num_shared_experts', 0);
  const isAverage = sharedIntermediateSize > 0 && combination === 'average';
  return {
    ...sizes,
    sharedIntermediateSize,
    topk: config.topk(sizes),
    weights: {
      ...gateAndProjections(block, sizes),
      ...weights,
      ...(isAverage ? {shared_gate: zeros(sizes.hiddenSize, 1)} : {}),
    },
    routing: {
      scoring: selection === 'softmax' ? 'softmaxAfterTopk' : 'sigmoid',
      renormalize: selection === 'sigmoid' && config.boolean('norm_topk_prob', true),
      ...(isAverage ? {routedScalingFactor: 0.5} : {}),
      activation: config.activation(),
    },
  };
};
