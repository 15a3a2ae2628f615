/** Families whose weights are the softmax of the chosen logits. */
import {MAX_SIZE, type ConfigReader} from '../config_reader';
import {SWIGLU_ALPHA, SWIGLU_LIMIT} from '../../arguments/experts';
import type {CheckpointBlock, CheckpointLayout, LayoutOf} from './layout';
import {
  expertWeights,
  inOutExperts,
  named,
  routerKernel,
  sharedExpert,
  sharedExperts,
  stackedTensors,
  weight,
  zeros,
} from './parts';

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

/** GptOssExperts and GptOssTopKRouter: a row for each input, with gates and ups in turn. */
export const gptOss: LayoutOf = (config, block) => {
  const sizes = config.sizes('num_local_experts', 'intermediate_size');
  const {numExperts: E, hiddenSize: H, intermediateSize: I} = sizes;
  const one = (name: string, shape: number[]) => named(shape, `${block.at}mlp.${name}`);
  const gateUp = {columns: 2 * I, gatesFirst: true};
  return {
    ...sizes,
    sharedIntermediateSize: 0,
    topk: config.topk(sizes),
    weights: {
      router_kernel: routerKernel(sizes, block, 'mlp.router.weight'),
      router_bias: weight([E], one('router.bias', [E])),
      w1: weight([E, 2 * I, H], one('experts.gate_up_proj', [E, H, 2 * I]), {...gateUp, rows: H}),
      w1_bias: weight([E, 2 * I], one('experts.gate_up_proj_bias', [E, 2 * I]), {...gateUp, rows: 1}),
      w2: weight([E, H, I], one('experts.down_proj', [E, I, H]), {rows: I, columns: H}),
      w2_bias: weight([E, H], one('experts.down_proj_bias', [E, H])),
    },
    routing: {
      scoring: 'softmaxAfterTopk',
      renormalize: false,
      activation: 'swigluOai',
      gateUp: 'concatenated',
      swigluAlpha: config.number('swiglu_alpha', SWIGLU_ALPHA),
      swigluLimit: config.number('swiglu_limit', SWIGLU_LIMIT),
    },
  };
};
