/** Tencent's Hunyuan. */
import type {LayoutOf} from './layout';
import {projections, routerKernel, sharedProjections} from './parts';

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
