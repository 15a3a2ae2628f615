/**
 * Experts computed by tfjs's own ops alone. Every expert computes every token.
 *
 * All ops here have a second derivative. tfjs's exp, sigmoid, tanh and softmax lack terms in it: their gradients are
 * computed from saved outputs, which the tape does not connect to inputs. minimum's gradient has no gradient at all.
 */
import * as tf from '../../src/tf';

const exp = (x: tf.Tensor): tf.Tensor => tf.add(tf.expm1(x), 1);
const sigmoid = (x: tf.Tensor): tf.Tensor => tf.div(1, tf.add(1, exp(tf.neg(x))));
export const coreSoftmax = (x: tf.Tensor): tf.Tensor => tf.div(exp(x), tf.sum(exp(x), 1, true));
const atMost = (x: tf.Tensor, limit: number): tf.Tensor => tf.neg(tf.maximum(tf.neg(x), -limit));

const coreActivations: Record<tf.MoeActivation, (x: tf.Tensor, alpha: number) => tf.Tensor> = {
  linear: (x) => x,
  relu: (x) => tf.relu(x),
  relu2: (x) => tf.square(tf.relu(x)),
  silu: (x) => tf.mul(x, sigmoid(x)),
  swish: (x) => tf.mul(x, sigmoid(x)),
  gelu: (x) => tf.mul(tf.mul(x, 0.5), tf.add(tf.erf(tf.mul(x, Math.SQRT1_2)), 1)),
  geluTanh: (x) => coreGeluTanh(x),
  geluNew: (x) => coreGeluTanh(x),
  swigluOai: (x, alpha) => tf.mul(x, sigmoid(tf.mul(x, alpha))),
};

function coreGeluTanh(x: tf.Tensor): tf.Tensor {
  const inner = tf.mul(tf.add(x, tf.mul(tf.mul(x, tf.square(x)), 0.044715)), Math.sqrt(2 / Math.PI));
  return tf.mul(x, sigmoid(tf.mul(inner, 2)));
}

function coreActivate(z: tf.Tensor, options: tf.FusedExpertsOptions): tf.Tensor {
  const {activation, gated = true, gateUp, swigluAlpha, swigluLimit} = options;
  const limit = swigluLimit ?? 7;
  const act = (x: tf.Tensor) => coreActivations[activation ?? 'silu'](x, swigluAlpha ?? 1.702);
  if (!gated) {
    return act(z);
  }
  const [numRows, numColumns] = z.shape;
  const isInterleaved = (gateUp ?? (activation === 'swigluOai' ? 'interleaved' : 'concatenated')) === 'interleaved';
  const pairs = tf.reshape(z, isInterleaved ? [numRows, numColumns / 2, 2] : [numRows, 2, numColumns / 2]);
  const [gate, up] = tf.unstack(pairs, isInterleaved ? 2 : 1);
  const isClamped = activation === 'swigluOai' || (activation === 'silu' && swigluLimit != null);
  return isClamped
    ? tf.mul(act(atMost(gate, limit)), tf.add(atMost(tf.maximum(up, -limit), limit), activation === 'swigluOai' ? 1 : 0))
    : tf.mul(act(gate), up);
}

/** `combine` [T, E]: the weight of each expert for each token; weights 'outIn'. */
export function coreExperts(
  x: tf.Tensor,
  w1: tf.Tensor,
  w2: tf.Tensor,
  combine: tf.Tensor,
  w1Bias: tf.Tensor,
  w2Bias: tf.Tensor,
  options: tf.FusedExpertsOptions,
): tf.Tensor {
  const experts = [w1, w2, w1Bias, w2Bias].map((tensor) => tf.unstack(tensor));
  const outputs = tf.split(combine, combine.shape[1]!, 1).map((weight, e) => {
    const [up, down, upBias, downBias] = experts.map((tensors) => tensors[e]) as tf.Tensor2D[];
    const hidden = coreActivate(tf.add(tf.matMul(x as tf.Tensor2D, up, false, true), upBias), options);
    return tf.mul(tf.add(tf.matMul(hidden as tf.Tensor2D, down, false, true), downBias), weight);
  });
  return outputs.reduce((sum, output) => tf.add(sum, output));
}
