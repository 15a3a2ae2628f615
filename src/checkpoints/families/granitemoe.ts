/** IBM's Granite. */
import {MAX_SIZE, type ConfigReader} from '../config_reader';
import type {CheckpointBlock, CheckpointLayout, LayoutOf} from './layout';
import {expertWeights, routerKernel, sharedExpert, stackedTensors} from './parts';

/** GraniteMoeMoE: input_linear has gates, then ups. */
export const graniteMoe: LayoutOf = (config, block) => {
  const sizes = config.sizes('num_local_experts', 'intermediate_size');
  const path = `${block.at}block_sparse_moe`;
  const routerNames = ['block_sparse_moe.router.layer.weight', 'block_sparse_moe.router.weight'];
  return {
    ...sizes,
    sharedIntermediateSize: 0,
    topk: config.topk(sizes),
    weights: {
      router_kernel: routerKernel(sizes, block, ...routerNames),
      ...expertWeights(
        sizes,
        block,
        stackedTensors(`${path}.input_linear.weight`, `${path}.output_linear.weight`, sizes),
        stackedTensors(`${path}.experts.gate_up_proj`, `${path}.experts.down_proj`, sizes),
      ),
    },
    routing: {scoring: 'softmaxAfterTopk', renormalize: false, activation: config.activation()},
  };
};

/** The shared MLP stands beside the block of Granite's experts, and its output is added. */
function withSharedMlp(config: ConfigReader, block: CheckpointBlock, byDefault: number): CheckpointLayout {
  const {at} = block;
  const layout = graniteMoe(config, block);
  const sharedIntermediateSize = config.count('shared_intermediate_size', MAX_SIZE, byDefault);
  const [w1, w2] = [`${at}shared_mlp.input_linear.weight`, `${at}shared_mlp.output_linear.weight`];
  const shared = sharedIntermediateSize === 0 ? {} : sharedExpert([w1], w2, layout.hiddenSize, sharedIntermediateSize);
  return {...layout, sharedIntermediateSize, weights: {...layout.weights, ...shared}};
}

/** GraniteMoeShared and GraniteMoeSWA. */
export const graniteMoeShared: LayoutOf = (config, block) => withSharedMlp(config, block, 0);

/** GraniteMoeHybrid, whose attention and Mamba layers have the same block. */
export const graniteMoeHybrid: LayoutOf = (config, block) => withSharedMlp(config, block, 1024);
