/** OpenAI's gpt-oss. */
import {SWIGLU_ALPHA, SWIGLU_LIMIT} from '../../arguments/experts';
import type {LayoutOf} from './layout';
import {named, routerKernel, weight} from './parts';

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
