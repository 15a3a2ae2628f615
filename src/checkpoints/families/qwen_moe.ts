/** The blocks of Qwen, OLMoE and their kin: softmax over all experts. */
import type {ConfigReader} from '../config_reader';
import type {CheckpointBlock, CheckpointLayout, LayoutOf} from './layout';
import {gateAndProjections, inOutExperts, named, sharedProjections, weight} from './parts';

function qwenLayout(
  config: ConfigReader,
  block: CheckpointBlock,
  intermediateSizeKey: string,
  renormalize: boolean,
): CheckpointLayout {
  // transformers 5 saves num_experts as num_local_experts.
  const sizes = config.sizes(config.either('num_experts', 'num_local_experts'), intermediateSizeKey);
  return {
    ...sizes,
    sharedIntermediateSize: 0,
    topk: config.topk(sizes),
    weights: gateAndProjections(block, sizes),
    routing: {scoring: 'softmax', renormalize, activation: config.activation()},
  };
}

/** Qwen3MoeSparseMoeBlock. */
export const qwen3Moe: LayoutOf = (config, block) =>
  qwenLayout(config, block, 'moe_intermediate_size', config.boolean('norm_topk_prob', false));

/** MellumSparseMoeBlock: as Qwen3's, with another default. */
export const mellum: LayoutOf = (config, block) =>
  qwenLayout(config, block, 'moe_intermediate_size', config.boolean('norm_topk_prob', true));

/** OlmoeSparseMoeBlock and FlexOlmoSparseMoeBlock. */
export const olmoe: LayoutOf = (config, block) =>
  qwenLayout(config, block, 'intermediate_size', config.boolean('norm_topk_prob', false));

/** Qwen3VLMoeTextSparseMoeBlock: always renormalized, with a row of the stacked experts for each input. */
export const qwen3VlMoe: LayoutOf = (config, block) => {
  const layout = qwenLayout(config, block, 'moe_intermediate_size', true);
  const path = `${block.at}mlp.experts`;
  return {
    ...layout,
    weights: {...layout.weights, ...inOutExperts(`${path}.gate_up_proj`, `${path}.down_proj`, layout)},
  };
};

/** A shared expert, whose output is multiplied by the sigmoid of its own gate. */
function withGatedSharedExpert(config: ConfigReader, {at}: CheckpointBlock, layout: CheckpointLayout) {
  const {hiddenSize} = layout;
  const sharedIntermediateSize = config.size('shared_expert_intermediate_size');
  return {
    ...layout,
    sharedIntermediateSize,
    weights: {
      ...layout.weights,
      ...sharedProjections(`${at}mlp.shared_expert`, hiddenSize, sharedIntermediateSize),
      shared_gate: weight([hiddenSize, 1], named([1, hiddenSize], `${at}mlp.shared_expert_gate.weight`)),
    },
  };
}

/** Qwen2MoeSparseMoeBlock. */
export const qwen2Moe: LayoutOf = (config, block) => withGatedSharedExpert(config, block, qwen3Moe(config, block));

/** Qwen3NextSparseMoeBlock: as Qwen2's, with another default. */
export const qwen3Next: LayoutOf = (config, block) => withGatedSharedExpert(config, block, mellum(config, block));

/** Qwen3_5MoeSparseMoeBlock: as Qwen2's, always renormalized. */
export const qwen3x5Moe: LayoutOf = (config, block) =>
  withGatedSharedExpert(config, block, qwenLayout(config, block, 'moe_intermediate_size', true));
