/**
 * The families of language models, by the `model_type` of config.json: what their layers have beside experts. Source:
 * huggingface/transformers, src/transformers/models/<model_type>/configuration_*.py and modeling_*.py.
 */
import {type ConfigReader, MAX_SIZE} from '../checkpoints/config_reader';
import type {CausalSelfAttentionArgs} from '../layers/causal_self_attention_options';
import type {RotaryDefaults} from './rotary_config';

export type Family = {
  epsilon: number;
  rotary: RotaryDefaults;
  /** The number of heads of keys and values without num_key_value_heads. Default: the number of heads. */
  numKeyValueHeads?: number;
  /** Arguments of the attention layers. */
  attention: (config: ConfigReader) => Partial<CausalSelfAttentionArgs>;
  slidingWindow?: (config: ConfigReader, layer: number, numLayers: number) => number | null;
  /** Layers with one feed-forward network for all tokens. */
  isDense?: (config: ConfigReader, layer: number) => boolean;
  /** Whether the config has factors of embeddings, residuals, attention scores and logits. */
  hasMultipliers?: boolean;
};

const biases = (useBias: boolean, useOutputBias = useBias) => ({useBias, useOutputBias});

const mixtral: Family = {
  epsilon: 1e-5,
  rotary: {rotaryBase: 1e6},
  numKeyValueHeads: 8,
  attention: () => ({}),
  slidingWindow: (config) => config.sizeOrNull('sliding_window'),
};

const olmoe: Family = {
  epsilon: 1e-5,
  rotary: {rotaryBase: 1e4},
  attention: (config) => {
    config.absent('clip_qkv', 'clipping of queries, keys and values');
    return {...biases(config.boolean('attention_bias', false)), queryKeyNormalization: 'all'};
  },
};

const isDenseInQwen = (config: ConfigReader, layer: number): boolean => {
  const isNumber = (value: unknown): value is number => typeof value === 'number';
  const dense = config.has('mlp_only_layers') ? config.list('mlp_only_layers', 'numbers of layers', isNumber) : [];
  return dense.includes(layer) || (layer + 1) % config.size('decoder_sparse_step', 1) !== 0;
};

const qwen2Moe: Family = {
  epsilon: 1e-6,
  rotary: {rotaryBase: 1e4},
  numKeyValueHeads: 16,
  attention: (config) => biases(config.boolean('qkv_bias', true), false),
  slidingWindow: (config, layer, numLayers) => {
    const isUsed = config.boolean('use_sliding_window', false);
    const isEvenBefore = layer % 2 === 0 && layer < config.count('max_window_layers', MAX_SIZE, 28);
    const isSliding = isSlidingLayer(config, layer, numLayers, isUsed && isEvenBefore);
    return isSliding ? config.size('sliding_window', 4096) : null;
  },
  isDense: isDenseInQwen,
};

const qwen3Moe: Family = {
  epsilon: 1e-6,
  rotary: {rotaryBase: 1e4},
  numKeyValueHeads: 4,
  attention: (config) => ({...biases(config.boolean('attention_bias', false)), queryKeyNormalization: 'head'}),
  slidingWindow: (config) =>
    config.boolean('use_sliding_window', false) ? config.sizeOrNull('sliding_window', 4096) : null,
  isDense: isDenseInQwen,
};

const graniteMoe: Family = {
  epsilon: 1e-6,
  rotary: {rotaryBase: 1e4},
  attention: (config) => ({
    ...biases(config.boolean('attention_bias', false)),
    scale: config.positive('attention_multiplier', 1),
  }),
  hasMultipliers: true,
};

const gptOss: Family = {
  epsilon: 1e-5,
  rotary: {
    rotaryBase: 1.5e5,
    rotaryScaling: {type: 'yarn', factor: 32, originalMaxPositions: 4096, betaFast: 32, betaSlow: 1, truncate: false},
  },
  numKeyValueHeads: 8,
  attention: (config) => ({...biases(config.boolean('attention_bias', true)), useSinks: true}),
  slidingWindow: (config, layer, numLayers) =>
    isSlidingLayer(config, layer, numLayers, layer % 2 === 0) ? config.sizeOrNull('sliding_window', 128) : null,
};

/** As layer_types says, or by default. */
function isSlidingLayer(config: ConfigReader, layer: number, numLayers: number, byDefault: boolean): boolean {
  const kinds = ['sliding_attention', 'full_attention'];
  const isKind = (value: unknown): value is string => kinds.some((kind) => kind === value);
  return config.has('layer_types')
    ? config.list('layer_types', kinds.join(' or '), isKind, numLayers)[layer] === kinds[0]
    : byDefault;
}

export const languageModelFamilies: {readonly [modelType: string]: Family} = {
  gpt_oss: gptOss,
  granitemoe: graniteMoe,
  granitemoeshared: graniteMoe,
  mixtral,
  olmoe,
  qwen2_moe: qwen2Moe,
  qwen3_moe: qwen3Moe,
};
