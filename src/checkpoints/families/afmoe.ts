/** Arcee's AFM. */
import {deepseekLayout} from './deepseek_v3';
import type {LayoutOf} from './layout';
import {projections, routerKernel, scoreCorrection} from './parts';

/** AfmoeSparseMoeBlock: no groups. Its own code renormalizes if route_norm says so, transformers always. */
export const afmoe: LayoutOf = (config, block) => {
  config.only('score_func', ['sigmoid']);
  config.only('n_group', [1]);
  return deepseekLayout(
    config,
    block,
    {numShared: 2},
    {
      keys: {
        numExperts: 'num_experts',
        numShared: 'num_shared_experts',
        renormalize: 'route_norm',
        scale: 'route_scale',
      },
      weights: (_, sizes) => ({
        router_kernel: routerKernel(sizes, block, 'mlp.router.gate.weight'),
        ...projections(block, sizes),
        score_correction_bias: scoreCorrection(sizes, block, 'mlp.expert_bias'),
      }),
    },
  );
};
