import * as tf from '../../src/tf';
import {NUM_CLASSES, NUM_PATCHES, PATCH_PIXELS} from './digits';

export const NUM_EXPERTS = 8;
export const TOPK = 2;
const HIDDEN_SIZE = 32;
const EXPERT_SIZE = 16;

export type DigitModel = {model: tf.LayersModel; experts: ReturnType<typeof tf.layers.mixtureOfExperts>};

/**
 * A model from patches [batch, NUM_PATCHES, PATCH_PIXELS] to the probabilities of the digits [batch, NUM_CLASSES]. Each
 * patch is a token, and its two experts add what they have learned about such patches. The same seed gives the same
 * weights. `experts` may be given, if they exist already.
 */
export function makeDigitModel({
  loadBalancingLossWeight,
  seed,
  experts: given,
}: {
  loadBalancingLossWeight: number;
  seed: number;
  experts?: DigitModel['experts'];
}): DigitModel {
  let numInitializers = 0;
  const initializer = () => tf.initializers.glorotUniform({seed: seed + 100 * numInitializers++});
  const dense = (units: number, activation: 'relu' | 'softmax') =>
    tf.layers.dense({units, activation, kernelInitializer: initializer()});

  const patches = tf.input({shape: [NUM_PATCHES, PATCH_PIXELS]});
  const tokens = dense(HIDDEN_SIZE, 'relu').apply(patches) as tf.SymbolicTensor;
  const experts =
    given ??
    tf.layers.mixtureOfExperts({
      numExperts: NUM_EXPERTS,
      intermediateSize: EXPERT_SIZE,
      topk: TOPK,
      activation: 'relu',
      gated: false,
      loadBalancingLossWeight,
      kernelInitializer: initializer(),
      routerInitializer: initializer(),
    });
  const mixed = tf.layers.add().apply([tokens, experts.apply(tokens) as tf.SymbolicTensor]);
  const features = dense(32, 'relu').apply(tf.layers.flatten().apply(mixed));
  const outputs = dense(NUM_CLASSES, 'softmax').apply(features) as tf.SymbolicTensor;
  return {model: tf.model({inputs: patches, outputs}), experts};
}
