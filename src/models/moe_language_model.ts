/** Language models of mixture-of-experts blocks, as models of tf.layers. */
import type {LayersModel, SymbolicTensor} from '@tensorflow/tfjs-layers';
import {assert, checkCount, checkOptions, describeValue} from '../arguments/checks';
import type {MoeModelConfig} from '../checkpoints/config_reader';
import {type ExpertFormatArgs, expertFormatArgNames} from '../layers/expert_format';
import {registerLayerClasses} from '../layers/register_layers';
import {type Apply, hiddenStates, logitsOf, partsOf} from './decoder';
import {type LanguageModelConfig, readLanguageModelConfig} from './language_model_config';
import {newLayers, type NewLayersOptions, type TfjsModels} from './new_layers';

export type MoeLanguageModelOptions = ExpertFormatArgs & {
  /** The id of padding, which no position sees. Default: none. */
  padTokenId?: number | null;
  /** The name of the model. */
  name?: string | null;
};

/** Checks what both kinds of models have in common. */
export function checkModelOptions(
  {padTokenId, name}: Pick<MoeLanguageModelOptions, 'padTokenId' | 'name'>,
  {vocabSize}: LanguageModelConfig,
  opName: string,
): {padTokenId: number | null; name: string | undefined} {
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
  return {padTokenId: padTokenId ?? null, name: name ?? undefined};
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

const optionNames = ['padTokenId', 'name', ...expertFormatArgNames] as const;

export type MoeLanguageModel = (config: MoeModelConfig, options?: MoeLanguageModelOptions) => LayersModel;

/** moeLanguageModel for one copy of tfjs. */
export function makeMoeLanguageModel(tf: TfjsModels): MoeLanguageModel {
  return (config, options = {}) => {
    const opName = 'moeLanguageModel';
    const {padTokenId, name, ...expertFormat} = checkOptions(options, optionNames, opName);
    const read = readLanguageModelConfig(config, opName);
    const given = checkModelOptions({padTokenId, name}, read, opName);
    return buildModel(tf, read, {...given, weights: 'random', expertFormat: () => expertFormat}, opName);
  };
}
