/** What config.json says of a whole language model: the arguments of its layers. */
import {assert, describeValue} from '../arguments/checks';
import {ConfigReader, type MoeModelConfig} from '../checkpoints/config_reader';
import {checkpointLayout, textConfig} from '../checkpoints/layouts';
import {layerConfigOf, type MoeLayerConfig} from '../checkpoints/moe_layer_config';
import type {CausalSelfAttentionArgs} from '../layers/causal_self_attention_options';
import {type Family, languageModelFamilies} from './families';
import {rotaryConfig} from './rotary_config';

/** A feed-forward network: down(activation(gate(x)) * up(x)). */
export type DenseConfig = {width: number; activation: 'swish' | 'relu' | 'gelu' | 'gelu_new'};

export type BlockConfig = {
  attention: CausalSelfAttentionArgs;
  /** In place of experts. */
  dense?: DenseConfig;
};

export type LanguageModelConfig = {
  vocabSize: number;
  hiddenSize: number;
  /** Of every RMS normalization. */
  epsilon: number;
  /** Whether the embeddings are the head too. */
  isTied: boolean;
  /** The standard deviation of new weights. */
  initializerRange: number;
  embeddingFactor: number;
  residualFactor: number;
  logitsFactor: number;
  /** The factor of the load-balancing loss of each layer in training. */
  loadBalancingLossWeight: number;
  experts: MoeLayerConfig;
  blocks: BlockConfig[];
};

const MAX_LAYERS = 10_000;

/** The names of activations in tf.layers. */
const activationsOfDense = {silu: 'swish', swish: 'swish', relu: 'relu', gelu: 'gelu', gelu_new: 'gelu_new'} as const;

export function readLanguageModelConfig(given: MoeModelConfig, opName: string): LanguageModelConfig {
  const {config: ofText, path} = textConfig(given, opName);
  const family = familyOf(ofText, path, opName);
  const config = new ConfigReader(ofText, path, opName);
  const numLayers = config.integer('num_hidden_layers', 1, MAX_LAYERS);
  const factor = (key: string) => (family.hasMultipliers === true ? config.positive(key, 1) : 1);
  const attention = attentionArgs(config, family, path, opName);
  const isDense = Array.from({length: numLayers}, (_, layer) => family.isDense?.(config, layer) ?? false);
  assert(
    !isDense.every(Boolean),
    opName,
    () => `${path} must have experts in at least one of ${numLayers} layers, but has none.`,
  );
  return {
    vocabSize: config.size('vocab_size'),
    hiddenSize: config.size('hidden_size'),
    epsilon: config.positive('rms_norm_eps', family.epsilon),
    isTied: config.boolean('tie_word_embeddings', false),
    initializerRange: config.positive('initializer_range', 0.02),
    embeddingFactor: factor('embedding_multiplier'),
    residualFactor: factor('residual_multiplier'),
    logitsFactor: 1 / factor('logits_scaling'),
    loadBalancingLossWeight: config.number('router_aux_loss_coef', 0.001),
    experts: layerConfigOf(checkpointLayout(given, {layerIndex: 0, hasTensor: () => false}, opName)),
    blocks: isDense.map((dense, layer) => ({
      attention: {...attention, slidingWindow: family.slidingWindow?.(config, layer, numLayers) ?? null},
      ...(dense && {dense: denseConfig(config)}),
    })),
  };
}

function familyOf(config: MoeModelConfig, path: string, opName: string): Family {
  const {model_type: modelType} = config;
  const isKnown = typeof modelType === 'string' && Object.keys(languageModelFamilies).includes(modelType);
  const known = Object.keys(languageModelFamilies).join(', ');
  assert(isKnown, opName, () => `${path}.model_type must be one of ${known}, but is ${describeValue(modelType)}.`);
  return languageModelFamilies[modelType as string];
}

function attentionArgs(config: ConfigReader, family: Family, path: string, opName: string): CausalSelfAttentionArgs {
  const numHeads = config.size('num_attention_heads');
  const byDefault = config.isNull('num_key_value_heads') ? numHeads : (family.numKeyValueHeads ?? numHeads);
  const numKeyValueHeads = config.size('num_key_value_heads', byDefault);
  const hiddenSize = config.size('hidden_size');
  assert(
    numHeads % numKeyValueHeads === 0,
    opName,
    () =>
      `${path}.num_attention_heads must be a multiple of num_key_value_heads (${numKeyValueHeads}), but is ${numHeads}.`,
  );
  const headDim = config.sizeOrNull('head_dim') ?? hiddenSize / numHeads;
  assert(
    Number.isInteger(headDim) && headDim % 2 === 0,
    opName,
    () =>
      `${path} must have heads of an even size (head_dim, or hidden_size / num_attention_heads), but has ${headDim}.`,
  );
  return {
    numHeads,
    numKeyValueHeads,
    headDim,
    normalizationEpsilon: config.positive('rms_norm_eps', family.epsilon),
    ...rotaryConfig(config, family.rotary, opName),
    ...family.attention(config),
  };
}

function denseConfig(config: ConfigReader): DenseConfig {
  const names = Object.keys(activationsOfDense) as Array<keyof typeof activationsOfDense>;
  return {width: config.size('intermediate_size'), activation: activationsOfDense[config.only('hidden_act', names)]};
}
