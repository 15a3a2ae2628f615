/** The arguments of a layer that a checkpoint's config.json asks for. */
import type {MoeModelConfig} from './config_reader';
import {type CheckpointLayout, checkpointLayout, type MoeCheckpointRouting} from './layouts';

/** Arguments of mixtureOfExperts. */
export type MoeLayerConfig = Omit<MoeCheckpointRouting, 'gateUp'> & {
  /** E, the number of experts. */
  numExperts: number;
  /** I, the width of one expert. */
  intermediateSize: number;
  /** K, the number of experts for each token. */
  topk: number;
  /** Whether the experts are activation(gate) * up, as in every family but Nemotron-H. */
  gated: boolean;
  /** Whether experts have biases. */
  useBias: boolean;
  /** Whether the router has a bias. */
  useRouterBias: boolean;
  /** Whether a bias takes part in the choice of experts only. */
  useScoreCorrectionBias: boolean;
  /** 1 if there are shared experts, however many the checkpoint counts: they are one expert of their total width. */
  numSharedExperts: number;
  /** F, the total width of the shared experts. */
  sharedIntermediateSize: number;
  /** Whether the shared experts' output is multiplied by sigmoid(x . shared_gate). */
  sharedExpertGate: boolean;
  /** Zeros, which cost nothing: the weights are loaded later. */
  kernelInitializer: 'zeros';
  /** Zeros too. */
  routerInitializer: 'zeros';
};

/** A field that does not apply is absent, rather than undefined. */
export function withoutAbsent<Fields extends object>(fields: Fields): Fields {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Fields;
}

export function layerConfigOf(layout: CheckpointLayout): MoeLayerConfig {
  const {numExperts, intermediateSize, sharedIntermediateSize, topk, weights, routing} = layout;
  // The layer has no gateUp: for every activation its w1 has gates before ups, as here.
  const {gateUp: _, ...options} = routing;
  return {
    numExperts,
    intermediateSize,
    topk,
    ...options,
    gated: routing.gated ?? true,
    useBias: weights.w1_bias != null,
    useRouterBias: weights.router_bias != null,
    useScoreCorrectionBias: weights.score_correction_bias != null,
    numSharedExperts: sharedIntermediateSize > 0 ? 1 : 0,
    sharedIntermediateSize,
    sharedExpertGate: weights.shared_gate != null,
    kernelInitializer: 'zeros',
    routerInitializer: 'zeros',
  };
}

/**
 * The arguments of a mixtureOfExperts layer for the blocks of a Hugging Face checkpoint.
 *
 * ```js
 * import {moeLayerConfig} from 'tfjs-moe/checkpoints';
 * const args = moeLayerConfig({
 *   model_type: 'qwen3_moe', hidden_size: 2048, moe_intermediate_size: 768, num_experts: 128, num_experts_per_tok: 8,
 *   norm_topk_prob: true, hidden_act: 'silu',
 * });
 * [args.numExperts, args.intermediateSize, args.topk]; // => [128, 768, 8]
 * [args.scoring, args.renormalize, args.activation]; // => ['softmax', true, 'silu']
 * ```
 *
 * @param config  The checkpoint's config.json, parsed, of a `model_type` that moeCheckpoint knows.
 * @returns Plain values. Add a name, losses and other arguments for training. The initializers are zeros, which cost
 *     nothing, because the weights are loaded later. To train the layer from the start, pass other initializers after
 *     these values.
 *
 * @throws if config.json lacks a value that the family needs, or asks for something that the layer cannot do.
 */
export function moeLayerConfig(config: MoeModelConfig): MoeLayerConfig {
  return layerConfigOf(checkpointLayout(config, {layerIndex: 0, hasTensor: () => false}, 'moeLayerConfig'));
}
