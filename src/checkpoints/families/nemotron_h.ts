/** NVIDIA's Nemotron-H. */
import {deepseekRouting} from './deepseek_v3';
import type {LayoutOf} from './layout';
import {named, routerKernel, scoreCorrection, weight} from './parts';

/** NemotronHMoE: experts without gates, and a shared expert of its own width. */
export const nemotronH: LayoutOf = (config, block) => {
  config.only('mlp_bias', [false]);
  config.only('n_shared_experts', [1]);
  config.absent('moe_latent_size', 'experts in a latent space');
  const {sizes, topk, routing, configKeys} = deepseekRouting(config, {});
  const {numExperts: E, hiddenSize: H, intermediateSize: I} = sizes;
  const sharedIntermediateSize = config.size('moe_shared_expert_intermediate_size');
  const path = `${block.at}mixer`;
  const isStacked = block.hasTensor(`${path}.experts.up_proj`);
  const experts = (projection: string, shape: number[]) =>
    isStacked
      ? named([E, ...shape], `${path}.experts.${projection}`)
      : {count: E, shape, nameOf: (expert: number) => `${path}.experts.${expert}.${projection}.weight`};
  const shared = (projection: string, shape: number[]) =>
    weight(shape, named(shape, `${path}.shared_experts.${projection}.weight`));
  return {
    ...sizes,
    sharedIntermediateSize,
    topk,
    weights: {
      router_kernel: routerKernel(sizes, block, 'mixer.gate.weight'),
      w1: weight([E, I, H], experts('up_proj', [I, H])),
      w2: weight([E, H, I], experts('down_proj', [H, I])),
      shared_w1: shared('up_proj', [sharedIntermediateSize, H]),
      shared_w2: shared('down_proj', [H, sharedIntermediateSize]),
      score_correction_bias: scoreCorrection(sizes, block, 'mixer.gate.e_score_correction_bias'),
    },
    configKeys,
    routing: {...routing, activation: config.activation('mlp_hidden_act', 'relu2'), gated: false},
  };
};
