/** LG's EXAONE. */
import {deepseekLayout} from './deepseek_v3';
import type {LayoutOf} from './layout';
import {gateAndProjections, scoreCorrection} from './parts';

/** ExaoneMoeSparseMoEBlock. */
export const exaoneMoe: LayoutOf = (config, block) => {
  config.only('scoring_func', ['sigmoid']);
  const names = ['mlp.e_score_correction_bias', 'mlp.gate.e_score_correction_bias'];
  return deepseekLayout(
    config,
    block,
    {scale: 2.5},
    {
      keys: {numExperts: 'num_experts', numShared: 'num_shared_experts'},
      weights: (_, sizes) => ({
        ...gateAndProjections(block, sizes),
        score_correction_bias: scoreCorrection(sizes, block, ...names),
      }),
    },
  );
};
