/**
 * A chain of fusedMoe calls, each on the output of the call before it, as the layers of a decoder are: its wall, host
 * and GPU time are what a token costs in these layers.
 */
import * as tf from '../src/tf';
import {numbers} from './fused_moe';
import {bytesPerWeight, randomQuantized} from './fused_moe_quantized';
import type {Benchmark} from './harness';
import type {Shape} from './shapes';

const NUM_LAYERS = 24;
/** Layers share weights where weights of their own would take more. */
const MAX_WEIGHT_BYTES = 2 ** 31;

const numWeights = ({H, E, I}: Shape) => E * 3 * I * H;

/** In float32, or in a format of codes: then all layers have weights of their own. */
export const fusedMoeChainOf = (format: 'float32' | tf.QuantizedFormat): Benchmark => ({
  relativeError: 1e-3,

  // At least: the tokens, and the weights of as many experts as random logits choose on average.
  numBytes: ({T, H, K, E, I}) =>
    NUM_LAYERS * (8 * T * H + bytesPerWeight[format] * E * (1 - (1 - K / E) ** T) * 3 * I * H),

  numFlops: ({T, H, K, I}) => NUM_LAYERS * 6 * T * K * H * I,

  minCopyBytes: 2 ** 29,

  contenders: (shape) => {
    const {T, H, K, E, I} = shape;
    const numFloatSets = Math.max(1, Math.floor(MAX_WEIGHT_BYTES / (4 * numWeights(shape))));
    const numSets = format === 'float32' ? Math.min(NUM_LAYERS, numFloatSets) : NUM_LAYERS;
    const weights = (sizes: [number, number, number], scale: number) =>
      format === 'float32' ? numbers(sizes, scale) : randomQuantized(sizes, scale, format);
    const x = numbers([T, H], 1) as tf.Tensor2D;
    // Scales at which 24 layers of random weights leave numbers that can be compared.
    const sets = Array.from({length: numSets}, () => ({
      w1: weights([E, 2 * I, H], 2 / H),
      w2: weights([E, H, I], 2 / I),
    }));
    const layers = Array.from({length: NUM_LAYERS}, (_, layer) => ({
      ...sets[layer % numSets],
      logits: tf.randomUniform([T, E], -2, 2, 'float32', 5 + layer) as tf.Tensor2D,
    }));
    // This activation is linear near 0, so that small numbers do not become smaller with each layer as by silu.
    const options = {activation: 'swigluOai'} as const;
    const run = () => [
      layers.reduce<tf.Tensor2D>((rows, {w1, w2, logits}) => tf.fusedMoe(rows, w1, w2, logits, K, options), x),
    ];
    const gibibytes = ((numSets * bytesPerWeight[format] * numWeights(shape)) / 2 ** 30).toFixed(2);
    const name = `${NUM_LAYERS} layers, ${numSets} of them with ${format} weights of their own, ${gibibytes} GiB`;
    return [{name, kind: 'op', run}];
  },
});
