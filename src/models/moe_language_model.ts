/** Language models of mixture-of-experts blocks, as models of tf.layers. */
import type {LayersModel, SymbolicTensor} from '@tensorflow/tfjs-layers';
import {assert, checkCount, checkOptions, describeValue} from '../arguments/checks';
import type {MoeModelConfig} from '../checkpoints/config_reader';
import {type ExpertFormatArgs, expertFormatArgNames} from '../layers/expert_format';
import {registerLayerClasses} from '../layers/register_layers';
import {checkDenseFormat, type DenseFormatArgs, denseFormatArgNames} from './dense_format';
import {type Apply, hiddenStates, logitsOf, partsOf} from './decoder';
import {type LanguageModelConfig, readLanguageModelConfig} from './language_model_config';
import {newLayers, type NewLayersOptions, type TfjsModels} from './new_layers';

export type MoeLanguageModelOptions = ExpertFormatArgs &
  DenseFormatArgs & {
    /** The id of padding, which no position sees. Default: none. */
    padTokenId?: number | null;
    /** The name of the model. */
    name?: string | null;
  };

/** The options that both kinds of models have. */
export type ModelOptions = Pick<MoeLanguageModelOptions, 'padTokenId' | 'name' | keyof DenseFormatArgs>;

export const modelOptionNames = ['padTokenId', 'name', ...denseFormatArgNames] as const;

/** Checks what both kinds of models have in common. */
export function checkModelOptions(
  {padTokenId, name, ...denseFormat}: ModelOptions,
  config: LanguageModelConfig,
  opName: string,
): Pick<NewLayersOptions, 'padTokenId' | 'denseFormat'> & {name: string | undefined} {
  const {vocabSize} = config;
  assert(
    name == null || typeof name === 'string',
    opName,
    () => `name must be a string, but is ${describeValue(name)}.`,
  );
  assert(
    padTokenId == null || checkCount(padTokenId, 'padTokenId', opName) < vocabSize,
    opName,
    () => `padTokenId must be less than config.vocab_size (${vocabSize}), but is ${padTokenId}.`,
  );
  return {
    padTokenId: padTokenId ?? null,
    name: name ?? undefined,
    denseFormat: checkDenseFormat(denseFormat, config, opName),
  };
}

/** A model of new layers. */
export function buildModel(
  tf: TfjsModels,
  config: LanguageModelConfig,
  {name, ...options}: NewLayersOptions & {name: string | undefined},
  opName: string,
): LayersModel {
  const {functions} = registerLayerClasses(tf);
  const parts = partsOf({layers: newLayers(tf, functions, config, options)}, opName);
  const apply: Apply<SymbolicTensor> = (layer, input) => layer.apply(input) as SymbolicTensor;
  const ids = tf.input({shape: [null], dtype: 'int32', name: 'ids'});
  return tf.model({inputs: ids, outputs: logitsOf(parts, hiddenStates(parts, ids, apply), apply), name});
}

const optionNames = [...modelOptionNames, ...expertFormatArgNames] as const;

/**
 * A language model of mixture-of-experts blocks with new weights, from the config.json of a family. The result is
 * a model of tf.layers, and trains, saves and loads as such.
 *
 * ```js
 * import {moeLanguageModel} from 'tfjs-moe/models';
 * const config = {
 *   model_type: 'mixtral', vocab_size: 10, hidden_size: 8, intermediate_size: 8, num_hidden_layers: 2,
 *   num_attention_heads: 2, num_key_value_heads: 1, num_local_experts: 4, num_experts_per_tok: 2, hidden_act: 'silu',
 * };
 * const model = moeLanguageModel(config);
 * const ids = tf.tensor2d([[1, 2, 3]], [1, 3], 'int32');
 * const logits = model.predict(ids);
 * logits instanceof tf.Tensor && logits.shape; // => [1, 3, 10]
 * ```
 *
 * The input is token ids [B, S], and the output logits [B, S, V]: position s has those of the token after it. Weights
 * begin as in transformers, normal with deviation `initializer_range`, and `router_aux_loss_coef` is the factor of each
 * layer's load-balancing loss. Dropout is not applied.
 *
 * The layers are those of `tfjs-moe/layers`, with dense layers of tf.layers where the family has a block without
 * experts. Their names say the place: `embedding`, `layers_0_attention_norm`, `layers_0_attention`,
 * `layers_0_experts_norm`, `layers_0_experts` and so on, `norm` and `head`. A tied head is `embedding` again.
 *
 * @param config  config.json, parsed, of model_type mixtral, olmoe, qwen2_moe, qwen3_moe, granitemoe, granitemoeshared
 *     or gpt_oss, in the spelling of transformers 4 or 5.
 * With a `denseFormat`, attention projections, embeddings and the head are stored in codes too; biases, norms, sinks,
 * routers, shared experts and dense blocks stay float32. Codes are not trainable, and 0 until they are set.
 *
 * @param options  {@link MoeLanguageModelOptions}: padTokenId, name, expertFormat and so on as in mixtureOfExperts, and
 *     denseFormat, denseGroupSize, denseScaleFormat and useDenseOffsets.
 * @returns The model. Dispose it when it is not needed any more.
 *
 * @throws if config.json lacks a value that the family needs, or asks for something that the layers cannot do, such as
 *     clip_qkv, partial_rotary_factor or another rope_type than default, linear, llama3 or yarn.
 */
export type MoeLanguageModel = (config: MoeModelConfig, options?: MoeLanguageModelOptions) => LayersModel;

/** moeLanguageModel for one copy of tfjs. */
export function makeMoeLanguageModel(tf: TfjsModels): MoeLanguageModel {
  return (config, options = {}) => {
    const opName = 'moeLanguageModel';
    const given = checkOptions(options, optionNames, opName);
    const {padTokenId, name, denseFormat, denseGroupSize, denseScaleFormat, useDenseOffsets, ...expertFormat} = given;
    const read = readLanguageModelConfig(config, opName);
    const dense = {denseFormat, denseGroupSize, denseScaleFormat, useDenseOffsets};
    const ofModel = checkModelOptions({padTokenId, name, ...dense}, read, opName);
    return buildModel(tf, read, {...ofModel, weights: 'random', expertFormat: () => expertFormat}, opName);
  };
}
