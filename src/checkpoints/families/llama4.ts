/** Meta's Llama 4. */
import type {LayoutOf} from './layout';
import {inOutExperts, routerKernel, sharedProjections} from './parts';

/** Llama4TextMoe: the sigmoids of the chosen logits multiply the experts' inputs. The shared expert has their width. */
export const llama4Text: LayoutOf = (config, block) => {
  const sizes = config.sizes('num_local_experts', 'intermediate_size');
  const {hiddenSize, intermediateSize} = sizes;
  const path = `${block.at}feed_forward`;
  return {
    ...sizes,
    sharedIntermediateSize: intermediateSize,
    topk: config.topk(sizes),
    weights: {
      router_kernel: routerKernel(sizes, block, 'feed_forward.router.weight'),
      ...inOutExperts(`${path}.experts.gate_up_proj`, `${path}.experts.down_proj`, sizes),
      ...sharedProjections(`${path}.shared_expert`, hiddenSize, intermediateSize),
    },
    routing: {
      scoring: 'sigmoid',
      renormalize: false,
      applyRouterWeightOnInput: true,
      activation: config.activation(),
    },
  };
};
