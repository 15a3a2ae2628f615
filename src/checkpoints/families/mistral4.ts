/** Mistral 4. */
import {deepseekLayout} from './deepseek_v3';
import type {LayoutOf} from './layout';
import {gateAndProjections, zeros} from './parts';

/**
 * Mistral4MoE: softmax scores, and no bias. The value of a group is still the sum of its two best scores, as with a
 * bias, so that with several groups the bias is 0.
 */
export const mistral4: LayoutOf = (config, block) => {
  const layout = deepseekLayout(config, block, {}, {weights: gateAndProjections});
  const {numExperts, routing, weights} = layout;
  const hasGroups = routing.numExpertGroups! > 1;
  return {
    ...layout,
    routing: {...routing, scoring: 'softmax'},
    weights: {...weights, ...(hasGroups ? {score_correction_bias: zeros(numExperts)} : {})},
  };
};
