/** Moonshot's Kimi Linear. */
import {deepseekLayout} from './deepseek_v3';
import type {LayoutOf} from './layout';
import {numberedProjections, routerKernel, scoreCorrection} from './parts';

/** KimiLinearMoE: w1, w3 and w2 in block_sparse_moe. transformers' own modules are in mlp. */
export const kimiLinear: LayoutOf = (config, block) => {
  config.only('moe_router_activation_func', ['sigmoid']);
  const isRenamed = block.hasTensor(`${block.at}mlp.gate.weight`);
  const path = isRenamed ? 'mlp' : 'block_sparse_moe';
  return deepseekLayout(
    config,
    block,
    {scale: 2.446},
    {
      keys: {
        numExperts: 'num_experts',
        topk: config.either('num_experts_per_token', 'num_experts_per_tok'),
        numShared: config.either('num_shared_experts', 'n_shared_experts'),
        renormalize: config.either('moe_renormalize', 'norm_topk_prob'),
        groups: config.either('num_expert_group', 'n_group'),
      },
      weights: (_, sizes) => ({
        router_kernel: routerKernel(sizes, block, `${path}.gate.weight`),
        ...numberedProjections(block, sizes, path),
        score_correction_bias: scoreCorrection(sizes, block, `${path}.gate.e_score_correction_bias`),
      }),
      sharedPath: `${path}.shared_experts`,
    },
  );
};
