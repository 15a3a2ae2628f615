/**
 * Language models of mixture-of-experts blocks: `tfjs-moe/models`.
 *
 * @module tfjs-moe/models
 */
import {serialization} from '@tensorflow/tfjs-core';
import {input, layers, model} from '@tensorflow/tfjs-layers';
import '../layers/index';
import {type LanguageModelFunctions, languageModelFunctions} from './language_model_functions';

export type {DenseFormatArgs} from './dense_format';
export {generate, type GenerateOptions} from './generate';
export {languageModelFiles, type LanguageModelFilesOptions} from './language_model_files';
export type {LoadMoeLanguageModel, LoadMoeLanguageModelOptions} from './load_moe_language_model';
export type {MoeLanguageModel, MoeLanguageModelOptions} from './moe_language_model';
export type {SamplingOptions} from './sampling';

const functions = languageModelFunctions({layers, serialization, model, input});

/**
 * A language model with new weights, from config.json: {@link MoeLanguageModel}.
 *
 * @function
 */
export const moeLanguageModel: LanguageModelFunctions['moeLanguageModel'] = functions.moeLanguageModel;

/**
 * A language model with the weights of a Hugging Face checkpoint: {@link LoadMoeLanguageModel}.
 *
 * @function
 */
export const loadMoeLanguageModel: LanguageModelFunctions['loadMoeLanguageModel'] = functions.loadMoeLanguageModel;
