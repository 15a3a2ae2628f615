/** fusedMoe, a whole layer's block with gated silu experts, beside all experts for every token in core ops. */
import * as tf from '../src/tf';
import type {Benchmark} from './harness';

/** The dense computation is left out where one of its tensors would be larger. */
const MAX_DENSE_BYTES = 2 ** 27;

/** float32 of this shape: small numbers that vary along every axis, made on the device without a large upload. */
function numbers(shape: number[], scale: number): tf.Tensor {
  return tf.tidy(() =>
    shape.reduce<tf.Tensor>((sum, dim, axis) => {
      const along = shape.map((_, i) => (i === axis ? dim : 1));
      return tf.add(sum, tf.randomUniform(along, -scale, scale, 'float32', axis + 1));
    }, tf.scalar(0)),
  );
}

export const fusedMoeBenchmark: Benchmark = {
  relativeError: 1e-4,

  // At least: the tokens, and the weights of as many experts as can be chosen.
  numBytes: ({T, H, K, E, I}) => 4 * (2 * T * H + Math.min(E, T * K) * 3 * I * H),

  contenders: ({T, H, K, E, I}) => {
    const x = numbers([T, H], 1) as tf.Tensor2D;
    const logits = tf.randomUniform([T, E], -2, 2, 'float32', 5) as tf.Tensor2D;
    const w1 = numbers([E, 2 * I, H], H ** -0.5) as tf.Tensor3D;
    const w2 = numbers([E, H, I], I ** -0.5) as tf.Tensor3D;
    const dense = () => {
      const {topkWeights, topkIds} = tf.moeTopk(logits, K);
      const chosen = tf.mul(tf.oneHot(topkIds, E), tf.expandDims(topkWeights, 2));
      const ofExperts = tf.reshape(tf.transpose(tf.sum(chosen, 1)), [E, T, 1]);
      const [gate, up] = tf.split(tf.matMul(tf.expandDims(x, 0), w1, false, true), 2, 2);
      const outputs = tf.matMul(tf.mul(tf.mul(gate, tf.sigmoid(gate)), up), w2, false, true);
      return [tf.sum(tf.mul(outputs, ofExperts), 0)];
    };
    const hasDense = 4 * E * T * Math.max(2 * I, H) <= MAX_DENSE_BYTES;
    return [
      {name: 'fusedMoe', kind: 'op', run: () => [tf.fusedMoe(x, w1, w2, logits, K)]},
      ...(hasDense ? [{name: 'all experts, by tf.matMul', kind: 'part' as const, run: dense}] : []),
    ];
  },
};
