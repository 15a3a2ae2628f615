/** All of @tensorflow/tfjs and all of this package in one namespace: `import * as tf from 'tfjs-moe/tf'`. */
import {input, layers as tfjsLayers, model, registerOp, serialization} from '@tensorflow/tfjs';
import {type MoeGraphOpRegistry, registerGraphOps} from './graph/graph_ops';
import {type MoeLayerFunctions, registerLayerClasses} from './layers/register_layers';
import {type LanguageModelFunctions, languageModelFunctions} from './models/language_model_functions';

export * from '@tensorflow/tfjs';
export * from './index';
export * from './checkpoints/index';
export type {MoeGraphOpRegistry} from './graph/graph_ops';
export {moeGraphModel, type MoeGraphModelOptions, type MoeGraphModelWeights} from './graph/moe_graph_model';
export {quantizeMixtureOfExperts} from './layers/quantize_mixture_of_experts';
export {generate, type GenerateOptions} from './models/generate';
export {languageModelFiles, type LanguageModelFilesOptions} from './models/language_model_files';
export type {LoadMoeLanguageModel, LoadMoeLanguageModelOptions} from './models/load_moe_language_model';
export type {MoeLanguageModel, MoeLanguageModelOptions} from './models/moe_language_model';
export type {SamplingOptions} from './models/sampling';

/**
 * Like registerMoeGraphOps of `tfjs-moe/graph`, but its default is this tfjs. It is another function, because that one
 * imports the package @tensorflow/tfjs-converter, which a strict package manager hides from packages that do not depend
 * on it.
 */
export function registerMoeGraphOps(tf?: MoeGraphOpRegistry | null): void {
  registerGraphOps(tf ?? {registerOp});
}

const {functions} = registerLayerClasses({layers: tfjsLayers, serialization});

/** The tf.layers of tfjs, with the layers of this package added. */
export const layers: typeof tfjsLayers & MoeLayerFunctions = {...tfjsLayers, ...functions};
/** The types of tf.layers. */
export declare namespace layers {
  export type Layer = tfjsLayers.Layer;
  export type RNN = tfjsLayers.RNN;
  export type RNNCell = tfjsLayers.RNNCell;
}

const models = languageModelFunctions({layers: tfjsLayers, serialization, model, input});

/** A language model with new weights, from config.json, as in `tfjs-moe/models`: {@link MoeLanguageModel}. */
export const moeLanguageModel: LanguageModelFunctions['moeLanguageModel'] = models.moeLanguageModel;
/** A language model of a Hugging Face checkpoint, as in `tfjs-moe/models`: {@link LoadMoeLanguageModel}. */
export const loadMoeLanguageModel: LanguageModelFunctions['loadMoeLanguageModel'] = models.loadMoeLanguageModel;
