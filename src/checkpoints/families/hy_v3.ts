/** Tencent's HY 3. */
import type {LayoutOf} from './layout';
import {existing, projections, routerKernel, scoreCorrection, sharedExperts} from './parts';

/** HYV3MoE: published names, and those of transformers' own modules. */
export const hyV3: LayoutOf = (config, block) => {
  config.only('mlp_bias', [false]);
  const sizes = config.sizes(config.either('num_experts', 'num_local_experts'), 'moe_intermediate_size');
  const gate = existing(block, ['mlp.shared_mlp.gate_proj.weight', 'mlp.shared_experts.gate_proj.weight']);
  const path = gate.slice(block.at.length, -'.gate_proj.weight'.length);
  const {weights, sharedIntermediateSize} = sharedExperts(config, block, sizes, 'num_shared_experts', 1, path);
  return {
    ...sizes,
    sharedIntermediateSize,
    topk: config.topk(sizes),
    weights: {
      router_kernel: routerKernel(sizes, block, 'mlp.router.gate.weight', 'mlp.gate.weight'),
      ...projections(block, sizes),
      ...weights,
      score_correction_bias: scoreCorrection(sizes, block, 'mlp.expert_bias', 'mlp.e_score_correction_bias'),
    },
    configKeys: {routedScalingFactor: 'router_scaling_factor'},
    routing: {
      scoring: 'sigmoid',
      renormalize: true,
      routedScalingFactor: config.number('router_scaling_factor', 2.826),
      activation: config.activation(),
    },
  };
};
