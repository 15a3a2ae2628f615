/** moeTopk as a softmax router: scores, the K largest and their sum to 1, beside core ops that do the same. */
import * as tf from '../src/tf';
import type {Benchmark} from './harness';

export const moeTopkBenchmark: Benchmark = {
  relativeError: 1e-5,

  numBytes: ({T, K, E}) => 4 * (T * E + 2 * T * K),

  contenders: ({T, K, E}) => {
    const logits = tf.randomUniform([T, E], -4, 4, 'float32', 3) as tf.Tensor2D;
    return [
      {
        name: 'moeTopk',
        kind: 'op',
        run: () => {
          const {topkWeights, topkIds} = tf.moeTopk(logits, K);
          return [topkWeights, topkIds];
        },
      },
      {
        // The softmax over all, divided by the sum of the chosen, is the softmax over the chosen.
        name: 'topk, softmax',
        kind: 'plain',
        run: () => {
          const {values, indices} = tf.topk(logits, K);
          return [tf.softmax(values), indices];
        },
      },
    ];
  },
};
