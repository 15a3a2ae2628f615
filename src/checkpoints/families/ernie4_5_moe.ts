/** Baidu's ERNIE 4.5. */
import type {LayoutOf} from './layout';
import {existing, gateAndProjections, named, sharedExperts, weight} from './parts';

/**
 * Ernie4_5_MoeSparseMoeBlock: a softmax router with a bias for the choice. moe_norm_min is the least sum that weights
 * are divided by. Only a value as small as the usual 1e-12 leaves the weights as they are here.
 */
export const ernie4x5Moe: LayoutOf = (config, block) => {
  config.only('use_bias', [false]);
  config.only('moe_norm_min', [1e-12]);
  const sizes = config.sizes(config.either('moe_num_experts', 'num_experts'), 'moe_intermediate_size');
  const {weights, sharedIntermediateSize} = sharedExperts(config, block, sizes, 'moe_num_shared_experts', 2);
  const biasNames = ['mlp.moe_statics.e_score_correction_bias', 'mlp.gate.moe_statics.e_score_correction_bias'];
  const bias = named([1, sizes.numExperts], existing(block, biasNames));
  return {
    ...sizes,
    sharedIntermediateSize,
    topk: config.topk(sizes, config.either('moe_k', 'num_experts_per_tok')),
    weights: {
      ...gateAndProjections(block, sizes),
      ...weights,
      score_correction_bias: weight([sizes.numExperts], bias),
    },
    routing: {scoring: 'softmax', renormalize: true, activation: config.activation()},
  };
};
