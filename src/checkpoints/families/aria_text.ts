/** Rhymes' Aria. */
import type {LayoutOf} from './layout';
import {inOutExperts, routerKernel, sharedExperts} from './parts';

/** AriaTextMoELayer: a row of the experts for each input. The experts have silu whatever config says. */
export const ariaText: LayoutOf = (config, block) => {
  config.only('mlp_bias', [false]);
  config.only('hidden_act', ['silu']);
  const sizes = config.sizes('moe_num_experts', 'intermediate_size');
  const path = `${block.at}mlp.experts`;
  const {weights, sharedIntermediateSize} = sharedExperts(config, block, sizes, 'moe_num_shared_experts', 2);
  return {
    ...sizes,
    sharedIntermediateSize,
    topk: config.topk(sizes, 'moe_topk'),
    weights: {
      router_kernel: routerKernel(sizes, block, 'mlp.router.weight'),
      ...inOutExperts(`${path}.fc1.weight`, `${path}.fc2.weight`, sizes),
      ...weights,
    },
    routing: {scoring: 'softmaxAfterTopk', renormalize: false, activation: 'silu'},
  };
};
