/** Poolside's Laguna. */
import type {LayoutOf} from './layout';
import {existing, gateAndProjections, scoreCorrection, sharedProjections} from './parts';

/** LagunaSparseMoeBlock. Names are those published, and those of transformers' own modules. */
export const laguna: LayoutOf = (config, block) => {
  config.only('moe_router_logit_softcapping', [0]);
  config.only('moe_apply_router_weight_on_input', [false]);
  const sizes = config.sizes(config.either('num_experts', 'num_local_experts'), 'moe_intermediate_size');
  const sharedIntermediateSize = config.size('shared_expert_intermediate_size');
  const gate = existing(block, ['mlp.shared_expert.gate_proj.weight', 'mlp.shared_experts.gate_proj.weight']);
  const shared = gate.slice(0, -'.gate_proj.weight'.length);
  const biasNames = ['mlp.experts.e_score_correction_bias', 'mlp.gate.e_score_correction_bias'];
  return {
    ...sizes,
    sharedIntermediateSize,
    topk: config.topk(sizes),
    weights: {
      ...gateAndProjections(block, sizes),
      ...sharedProjections(shared, sizes.hiddenSize, sharedIntermediateSize),
      score_correction_bias: scoreCorrection(sizes, block, ...biasNames),
    },
    configKeys: {routedScalingFactor: 'moe_routed_scaling_factor'},
    routing: {
      scoring: 'sigmoid',
      renormalize: true,
      routedScalingFactor: config.number('moe_routed_scaling_factor', 1),
      activation: config.activation(),
    },
  };
};
