/** fusedMoe, a whole layer's block with gated silu experts, beside all experts for every token in core ops. */
import * as tf from '../src/tf';
import type {Benchmark} from './harness';

/** The dense computation is left out where one of its tensors would be larger. */
const MAX_DENSE_BYTES = 2 ** 29;
/** Calls in a row have other logits, so that those for few tokens read weights that no cache holds. */
export const NUM_ROUTINGS = 8;

/** float32 of this shape: small numbers that vary along every axis, made on the device without a large upload. */
export function numbers(shape: number[], scale: number): tf.Tensor {
  return tf.tidy(() =>
    shape.reduce<tf.Tensor>((sum, dim, axis) => {
      const along = shape.map((_, i) => (i === axis ? dim : 1));
      return tf.add(sum, tf.randomUniform(along, -scale, scale, 'float32', axis + 1));
    }, tf.scalar(0)),
  );
}

/** The same result as fusedMoe's, of all experts for every token. */
export function denseMoe(
  x: tf.Tensor2D,
  w1: tf.Tensor3D,
  w2: tf.Tensor3D,
  logits: tf.Tensor2D,
  topk: number,
): tf.Tensor2D {
  const [numExperts] = w1.shape;
  const {topkWeights, topkIds} = tf.moeTopk(logits, topk);
  const chosen = tf.mul(tf.oneHot(topkIds, numExperts), tf.expandDims(topkWeights, 2));
  const ofExperts = tf.reshape(tf.transpose(tf.sum(chosen, 1)), [numExperts, x.shape[0], 1]);
  const [gate, up] = tf.split(tf.matMul(tf.expandDims(x, 0), w1, false, true), 2, 2);
  const outputs = tf.matMul(tf.mul(tf.mul(gate, tf.sigmoid(gate)), up), w2, false, true);
  return tf.sum(tf.mul(outputs, ofExperts), 0);
}

export const fusedMoeBenchmark: Benchmark = {
  relativeError: 1e-4,

  // At least: the tokens, and the weights of as many experts as random logits choose on average.
  numBytes: ({T, H, K, E, I}) => 4 * (2 * T * H + E * (1 - (1 - K / E) ** T) * 3 * I * H),

  numFlops: ({T, H, K, I}) => 6 * T * K * H * I,

  minCopyBytes: 2 ** 29,

  contenders: ({T, H, K, E, I}) => {
    const x = numbers([T, H], 1) as tf.Tensor2D;
    const logitsOfRoutings = Array.from(
      {length: NUM_ROUTINGS},
      (_, routing) => tf.randomUniform([T, E], -2, 2, 'float32', 5 + routing) as tf.Tensor2D,
    );
    let call = 0;
    const w1 = numbers([E, 2 * I, H], H ** -0.5) as tf.Tensor3D;
    const w2 = numbers([E, H, I], I ** -0.5) as tf.Tensor3D;
    const dense = () => [denseMoe(x, w1, w2, logitsOfRoutings[0], K)];
    const fused = () => [tf.fusedMoe(x, w1, w2, logitsOfRoutings[call++ % NUM_ROUTINGS], K)];
    const hasDense = 4 * E * T * Math.max(2 * I, H) <= MAX_DENSE_BYTES;
    return [
      {name: 'fusedMoe', kind: 'op', run: fused},
      ...(hasDense ? [{name: 'all experts, by tf.matMul', kind: 'plain' as const, run: dense}] : []),
    ];
  },
};
