/** Meituan's LongCat-Flash. */
import {MAX_EXPERTS} from '../config_reader';
import type {LayoutOf} from './layout';
import {projections, routerKernel, scoreCorrection} from './parts';

/** LongcatFlashMoE: softmax over experts and zero experts, which give their input back. No renormalization. */
export const longcatFlash: LayoutOf = (config, block) => {
  config.only('zero_expert_type', ['identity']);
  config.only('router_bias', [false]);
  config.only('norm_topk_prob', [false]);
  const sizes = config.sizes('n_routed_experts', config.either('expert_ffn_hidden_size', 'moe_intermediate_size'));
  const numZeroExperts = config.count('zero_expert_num', MAX_EXPERTS, 256);
  const routed = {...sizes, numExperts: sizes.numExperts + numZeroExperts};
  return {
    ...sizes,
    sharedIntermediateSize: 0,
    topk: config.topk(routed, config.either('moe_topk', 'num_experts_per_tok')),
    weights: {
      router_kernel: routerKernel(routed, block, 'mlp.router.classifier.weight'),
      ...projections(block, sizes),
      score_correction_bias: scoreCorrection(routed, block, 'mlp.router.e_score_correction_bias'),
    },
    routing: {
      scoring: 'softmax',
      renormalize: false,
      routedScalingFactor: config.number('routed_scaling_factor', 6),
      ...(numZeroExperts > 0 ? {numZeroExperts} : {}),
      activation: config.activation(),
    },
  };
};
