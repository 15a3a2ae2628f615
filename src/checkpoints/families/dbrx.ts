/** Databricks' DBRX. */
import type {LayoutOf} from './layout';
import {named, routerKernel, weight} from './parts';

/**
 * DbrxFFN: w1 has the gates of all experts, v1 the ups, and w2 the downs with a row for each input. The weights are
 * divided by their norm of order moe_normalize_expert_weights: 1, their sum, or null, nothing.
 */
export const dbrx: LayoutOf = (config, block) => {
  const ffn = config.nested('ffn_config');
  const sizes = {
    numExperts: ffn.numExperts('moe_num_experts'),
    hiddenSize: config.size(config.either('d_model', 'hidden_size')),
    intermediateSize: ffn.size('ffn_hidden_size'),
  };
  const {numExperts: E, hiddenSize: H, intermediateSize: I} = sizes;
  const experts = (...names: string[]) =>
    named([E * I, H], ...names.map((name) => `${block.at}ffn.experts.mlp.${name}`));
  const isRenormalized = !ffn.isNull('moe_normalize_expert_weights');
  if (isRenormalized) {
    ffn.only('moe_normalize_expert_weights', [1]);
  }
  return {
    ...sizes,
    sharedIntermediateSize: 0,
    topk: ffn.topk(sizes, 'moe_top_k'),
    weights: {
      router_kernel: routerKernel(sizes, block, 'ffn.router.layer.weight'),
      w1: {...weight([E, 2 * I, H], experts('w1', 'v1')), rowsInTurn: I},
      w2: weight([E, H, I], experts('w2'), {rows: I, columns: H}),
    },
    routing: {
      scoring: 'softmax',
      renormalize: isRenormalized,
      activation: ffn.has('ffn_act_fn') ? ffn.nested('ffn_act_fn').activation('name') : 'silu',
    },
  };
};
