/**
 * The script-tag build, `dist/tf-moe.min.js`. Its exports are added to the global `tf`. In this build every import of
 * tfjs is also the global `tf`; scripts/build.mjs says how, and puts a check that `tf` is loaded before it. Readers and
 * writers of checkpoints are not in it: they are a quarter of the package.
 */
import type {TfjsLayers} from './layers/weight_parts';
import {registerMoeLayers} from './layers/register_layers';
import {languageModelFunctions} from './models/language_model_functions';
import type {TfjsModels} from './models/new_layers';

export * from './index';
export {quantizeMixtureOfExperts} from './layers/quantize_mixture_of_experts';
export {moeGraphModel, registerMoeGraphOps} from './graph/index';
export {generate} from './models/generate';
export {languageModelFiles} from './models/language_model_files';

const {tf} = globalThis as unknown as {tf: Partial<TfjsLayers>};
// A page may have tfjs-core alone.
if (tf.layers != null) {
  registerMoeLayers(tf as TfjsLayers);
  Object.assign(tf, languageModelFunctions(tf as TfjsModels));
}
