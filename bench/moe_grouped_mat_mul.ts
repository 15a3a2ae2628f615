/**
 * moeGroupedMatMul in both of its places in a layer: w1 with the gate by silu, and w2. Beside it a dense tf.matMul of
 * equal work, which multiplies the same rows by one expert's weights, and has neither bias nor activation.
 */
import * as tf from '../src/tf';
import type {Benchmark} from './harness';
import {randomExperts} from './inputs';
import type {Shape} from './shapes';

/** float32 [rows, columns] of -2 .. 2, so that sums are exact; made on the device, without a large upload. */
function signedIntegers(numRows: number, numColumns: number): tf.Tensor2D {
  const signs = (shape: number[]) => tf.sub(tf.floor(tf.randomUniform(shape, 0, 3, 'float32', 11)), tf.scalar(1));
  return tf.add<tf.Tensor2D>(signs([numRows, 1]), signs([1, numColumns]));
}

/** Of the activation; the sums before it are exact. */
const RELATIVE_ERROR = 1e-5;

/**
 * The offsets of as many routings as there are groups of K experts: each has the experts of the one before, K further
 * on, so that calls in a row for few tokens read weights that no cache holds.
 */
function offsetsOfRoutings({T, K, E}: Shape): tf.Tensor1D[] {
  const experts = randomExperts(T, K, E);
  return Array.from({length: Math.ceil(E / K)}, (_, routing) => {
    const offsets = new Int32Array(E + 1);
    experts.forEach((expert) => offsets[((expert + routing * K) % E) + 1]++);
    for (let e = 0; e < E; e++) {
      offsets[e + 1] += offsets[e];
    }
    return tf.tensor1d(offsets, 'int32');
  });
}

function benchmarkOf(
  name: string,
  sizes: (shape: Shape) => {numIn: number; numColumns: number},
  options: tf.MoeGroupedMatMulOptions,
): Benchmark {
  const numOutputs = (numColumns: number) => (options.gated ? numColumns / 2 : numColumns);
  return {
    relativeError: options.activation == null ? 0 : RELATIVE_ERROR,

    // At least: the rows, the weights of the experts that have rows, and the result once.
    numBytes: (shape) => {
      const {T, K, E} = shape;
      const {numIn, numColumns} = sizes(shape);
      const numChosen = new Set(randomExperts(T, K, E)).size;
      return 4 * (T * K * (numIn + numOutputs(numColumns)) + numChosen * numIn * numColumns);
    },

    numFlops: (shape) => {
      const {numIn, numColumns} = sizes(shape);
      return 2 * shape.T * shape.K * numIn * numColumns;
    },

    minCopyBytes: 2 ** 29,

    contenders: (shape) => {
      const {T, K, E} = shape;
      const {numIn, numColumns} = sizes(shape);
      const offsets = offsetsOfRoutings(shape);
      const x = signedIntegers(T * K, numIn);
      const weights = tf.reshape(signedIntegers(E * numColumns, numIn), [E, numColumns, numIn]) as tf.Tensor3D;
      const ofOne = tf.reshape(tf.slice(weights, 0, 1), [numColumns, numIn]) as tf.Tensor2D;
      let call = 0;
      return [
        {
          name,
          kind: 'op',
          run: () => [tf.moeGroupedMatMul(x, weights, offsets[call++ % offsets.length], options)],
        },
        {name: 'dense tf.matMul of equal work', kind: 'part', run: () => [tf.matMul(x, ofOne, false, true)]},
      ];
    },
  };
}

export const moeGroupedMatMulW1Benchmark = benchmarkOf('w1, gated silu', ({H, I}) => ({numIn: H, numColumns: 2 * I}), {
  activation: 'silu',
  gated: true,
});
export const moeGroupedMatMulW2Benchmark = benchmarkOf('w2', ({H, I}) => ({numIn: I, numColumns: H}), {});
