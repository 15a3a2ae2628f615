/**
 * The script-tag build, `dist/tf-moe.min.js`. Its exports are added to the global `tf`. In this build every import of
 * tfjs is also the global `tf`; scripts/build.mjs says how, and puts a check that `tf` is loaded before it. Checkpoints
 * and language models are not in it: they are a quarter of the package.
 */
import type {TfjsLayers} from './layers/weight_parts';
import {registerMoeLayers} from './layers/register_layers';

export * from './index';
export {quantizeMixtureOfExperts} from './layers/quantize_mixture_of_experts';
export {moeGraphModel, registerMoeGraphOps} from './graph/index';

const {tf} = globalThis as unknown as {tf: Partial<TfjsLayers>};
// A page may have tfjs-core alone.
if (tf.layers != null) {
  registerMoeLayers(tf as TfjsLayers);
}
