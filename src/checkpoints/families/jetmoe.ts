/** JetMoE. */
import type {LayoutOf} from './layout';
import {routerKernel, stackedTensors, weight, zeros} from './parts';

/**
 * JetMoeMoE: one bias is added to the output of every token. The weights of a token sum to 1, so that this is the same
 * as the bias in the output of every expert.
 */
export const jetMoe: LayoutOf = (config, block) => {
  const sizes = config.sizes('num_local_experts', 'intermediate_size');
  const {numExperts: E, hiddenSize: H, intermediateSize: I} = sizes;
  const path = `${block.at}mlp`;
  const stacked = stackedTensors(`${path}.input_linear.weight`, `${path}.output_linear.weight`, sizes);
  return {
    ...sizes,
    sharedIntermediateSize: 0,
    topk: config.topk(sizes),
    weights: {
      router_kernel: routerKernel(sizes, block, 'mlp.router.layer.weight'),
      w1: weight([E, 2 * I, H], stacked.w1),
      w1_bias: zeros(E, 2 * I),
      w2: weight([E, H, I], stacked.w2),
      w2_bias: weight([E, H], {count: E, shape: [H], nameOf: () => `${path}.bias`}),
    },
    routing: {
      scoring: 'softmaxAfterTopk',
      renormalize: false,
      activation: config.activation('activation_function'),
    },
  };
};
