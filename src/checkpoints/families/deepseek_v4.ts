/** DeepSeek-V4. */
import type {LayoutOf} from './layout';
import {numberedProjections, routerKernel, scoreCorrection, sharedExpert} from './parts';

/**
 * DeepseekV4SparseMoeBlock: the square root of softplus as scores, always renormalized, and gates and ups that are
 * clamped before silu. Its first layers choose by a table of token ids, which these ops do not: they have no gate.bias.
 */
export const deepseekV4: LayoutOf = (config, block) => {
  config.only('scoring_func', ['sqrtsoftplus']);
  config.only('norm_topk_prob', [true]);
  config.only('n_shared_experts', [1]);
  config.only('mlp_bias', [false]);
  const sizes = config.sizes('n_routed_experts', 'moe_intermediate_size');
  const shared = `${block.at}ffn.shared_experts`;
  return {
    ...sizes,
    sharedIntermediateSize: sizes.intermediateSize,
    topk: config.topk(sizes),
    weights: {
      router_kernel: routerKernel(sizes, block, 'ffn.gate.weight'),
      ...numberedProjections(block, sizes, 'ffn'),
      ...sharedExpert(
        [`${shared}.w1.weight`, `${shared}.w3.weight`],
        `${shared}.w2.weight`,
        sizes.hiddenSize,
        sizes.intermediateSize,
      ),
      score_correction_bias: scoreCorrection(sizes, block, 'ffn.gate.bias'),
    },
    routing: {
      scoring: 'sqrtSoftplus',
      renormalize: true,
      routedScalingFactor: config.number('routed_scaling_factor', 1.5),
      activation: config.activation(),
      swigluLimit: config.number('swiglu_limit', 10),
    },
  };
};
