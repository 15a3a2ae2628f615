/** Tencent's Hunyuan. */
import type {LayoutOf} from './layout';
import {existing, projections, routerKernel, scoreCorrection, sharedExperts, sharedProjections} from './parts';

/** HunYuanMoEV1Moe: the shared expert has the experts' width. Keys may be lists, with a value for each layer. */
export const hunyuanV1Moe: LayoutOf = (config, block) => {
  const uniform = config.withoutLists('num_experts', 'moe_topk', 'num_experts_per_tok');
  const sizes = uniform.sizes(uniform.either('num_experts', 'num_local_experts'), 'intermediate_size');
  return {
    ...sizes,
    sharedIntermediateSize: sizes.intermediateSize,
    topk: uniform.topk(sizes, uniform.either('moe_topk', 'num_experts_per_tok')),
    weights: {
      router_kernel: routerKernel(sizes, block, 'mlp.gate.wg.weight'),
      ...projections(block, sizes),
      ...sharedProjections(`${block.at}mlp.shared_mlp`, sizes.hiddenSize, sizes.intermediateSize),
    },
    routing: {scoring: 'softmax', renormalize: true, activation: config.activation()},
  };
};

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
