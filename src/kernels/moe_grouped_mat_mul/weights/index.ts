/** The reader of weights, by their encoding and layout. */
import type {WeightLayout, WeightTensors} from '../../../contract/expert_weights';
import {isQuantizedEncoding} from '../../../contract/quantized_weights';
import {float32Weights} from './float32';
import {quantizedWeights} from './quantized';
import type {Quads, WeightReader} from './weight_reader';

export {type LaneReader, products, type Quads, type WeightReader} from './weight_reader';

export function weightReader(layout: WeightLayout, weights: WeightTensors, quads: Quads): WeightReader {
  const {encoding, weightFormat} = layout;
  return isQuantizedEncoding(encoding)
    ? quantizedWeights(encoding, weights.weights.shape, weightFormat)
    : float32Weights(quads, weightFormat);
}
