/** Sigmoid routers without groups. */
import type {LayoutOf} from './layout';
import {
  existing,
  gateAndProjections,
  numberedProjections,
  routerKernel,
  scoreCorrection,
  sharedProjections,
  sharedExperts,
  zeros,
} from './parts';

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
