/** moeUnpermute beside the same sum by gather and core ops. */
import * as tf from '../src/tf';
import {randomIds, smallIntegers} from './inputs';
import type {Benchmark} from './harness';

export const moeUnpermuteBenchmark: Benchmark = {
  // At least: every permuted row read once, every token row written once.
  numBytes: ({T, H, K}) => (T + T * K) * H * 4,

  contenders: ({T, H, K, E}) => {
    const permuted = tf.moePermute(tf.zeros([T, 4]), randomIds(T, K, E), E);
    const {invPermutedIdx, expertFirstTokenOffset} = permuted;
    const rows = smallIntegers(T * K, H);
    const weights = smallIntegers(T, K);
    const gatherAndSum = () => {
      const slots = tf.reshape(tf.gather(rows, invPermutedIdx), [T, K, H]);
      return [tf.sum(tf.mul(slots, tf.expandDims(weights, 2)), 1)];
    };
    return [
      {
        name: 'moeUnpermute',
        kind: 'op',
        run: () => [tf.moeUnpermute(rows, weights, invPermutedIdx, expertFirstTokenOffset)],
      },
      {name: 'gather, mul, sum', kind: 'plain', run: gatherAndSum},
      {name: 'gather of the rows alone', kind: 'part', run: () => [tf.gather(rows, invPermutedIdx)]},
    ];
  },
};
