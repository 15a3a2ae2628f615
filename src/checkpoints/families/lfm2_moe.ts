/** Liquid AI's LFM2. */
import type {LayoutOf} from './layout';
import {numberedProjections, routerKernel, scoreCorrection} from './parts';

/**
 * Lfm2MoeSparseMoeBlock. transformers adds 1e-6 to the sum that weights are divided by; it changes weights by more than
 * a part in 10^5 only where the chosen sigmoids sum to less than 0.1.
 */
export const lfm2Moe: LayoutOf = (config, block) => {
  const sizes = config.sizes(config.either('num_experts', 'num_local_experts'), 'moe_intermediate_size');
  const hasBias = config.boolean('use_expert_bias', true);
  return {
    ...sizes,
    sharedIntermediateSize: 0,
    topk: config.topk(sizes),
    weights: {
      router_kernel: routerKernel(sizes, block, 'feed_forward.gate.weight'),
      ...numberedProjections(block, sizes, 'feed_forward'),
      ...(hasBias ? {score_correction_bias: scoreCorrection(sizes, block, 'feed_forward.expert_bias')} : {}),
    },
    routing: {
      scoring: 'sigmoid',
      renormalize: config.boolean('norm_topk_prob', true),
      routedScalingFactor: config.number('routed_scaling_factor', 1),
      activation: 'silu',
    },
  };
};
