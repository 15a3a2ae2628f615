/** DeepSeek-V2. */
import type {LayoutOf} from './layout';
import {gateAndProjections, sharedExperts} from './parts';

/**
 * DeepseekV2Moe. transformers never renormalizes; DeepSeek's own code renormalizes on request, and then does not scale.
 */
export const deepseekV2: LayoutOf = (config, block) => {
  config.only('norm_topk_prob', [false]);
  config.only('scoring_func', ['softmax']);
  config.only('mlp_bias', [false]);
  const method = config.only('topk_method', ['greedy', 'group_limited_greedy']);
  const groups =
    method === 'greedy' ? {} : {numExpertGroups: config.size('n_group'), topkGroups: config.size('topk_group')};
  const sizes = config.sizes('n_routed_experts', 'moe_intermediate_size');
  const {weights, sharedIntermediateSize} = sharedExperts(config, block, sizes, 'n_shared_experts', 2);
  return {
    ...sizes,
    sharedIntermediateSize,
    topk: config.topk(sizes),
    weights: {...gateAndProjections(block, sizes), ...weights},
    routing: {
      scoring: 'softmax',
      renormalize: false,
      ...groups,
      routedScalingFactor: config.number('routed_scaling_factor', 1),
      activation: config.activation(),
    },
  };
};
