/** AI21's Jamba. */
import type {LayoutOf} from './layout';
import {projections, routerKernel} from './parts';

/** JambaSparseMoeBlock: no renormalization. */
export const jamba: LayoutOf = (config, block) => {
  const sizes = config.sizes(config.either('num_experts', 'num_local_experts'), 'intermediate_size');
  return {
    ...sizes,
    sharedIntermediateSize: 0,
    topk: config.topk(sizes),
    weights: {
      router_kernel: routerKernel(sizes, block, 'feed_forward.router.weight'),
      ...projections(block, sizes, 'feed_forward'),
    },
    routing: {scoring: 'softmax', renormalize: false, activation: config.activation()},
  };
};
