/** All of @tensorflow/tfjs and all of this package in one namespace: `import * as tf from 'tfjs-moe/tf'`. */
import {layers as tfjsLayers, serialization} from '@tensorflow/tfjs';
import {type MoeLayers, registerLayerClasses} from './layers/register_layers';

export * from '@tensorflow/tfjs';
export * from './index';

const {mixtureOfExperts} = registerLayerClasses({layers: tfjsLayers, serialization});

/** tf.layers of tfjs, and the layers of this package. */
export const layers: typeof tfjsLayers & Pick<MoeLayers, 'mixtureOfExperts'> = {...tfjsLayers, mixtureOfExperts};
/** The types of tf.layers. */
export declare namespace layers {
  export type Layer = tfjsLayers.Layer;
  export type RNN = tfjsLayers.RNN;
  export type RNNCell = tfjsLayers.RNNCell;
}
