import {clone, customGrad, onesLike, op, type Tensor, type TensorLike} from '@tensorflow/tfjs-core';
import {assert, convertToTensor} from '../arguments/checks';

function moeAddAuxiliaryLoss_<T extends Tensor>(y: T | TensorLike, loss: Tensor | TensorLike): T {
  const opName = 'moeAddAuxiliaryLoss';
  const $y = convertToTensor(y, 'y', opName, ['float32']) as T;
  const $loss = convertToTensor(loss, 'loss', opName, ['float32']);
  assert(
    $loss.rank === 0,
    opName,
    () => `loss must be a scalar, but got rank ${$loss.rank} [${$loss.shape}]. Sum it, or take its mean, first.`,
  );
  return withGradientOf($y, $loss) as T;
}

const withGradientOf = /* @__PURE__ */ customGrad((...args) => {
  const [y, loss, save] = args as unknown as [Tensor, Tensor, (tensors: Tensor[]) => void];
  save([loss]);
  // A clone of dy, for tfjs disposes what it has added up.
  return {value: clone(y), gradFunc: (dy: Tensor, [saved]: Tensor[]) => [clone(dy), onesLike(saved)]};
});

/**
 * y itself, whose gradient also carries that of `loss`, as if `loss` had been added to whatever is minimized: the way
 * to balance experts inside of a model whose training loop is not one's own.
 *
 * ```js
 * const routerLogits = tf.tensor2d([[1, 0], [1, 0]]);
 * const gradientOf = tf.grad((logits) => {
 *   const {topkWeights, topkIds} = tf.moeTopk(logits, 1, {renormalize: true}); // weights of 1, without a gradient
 *   return tf.moeAddAuxiliaryLoss(topkWeights, tf.mul(tf.moeLoadBalancingLoss(logits, topkIds), 0.01));
 * });
 * const gradient = await gradientOf(routerLogits).data(); // of the loss alone
 * gradient[0] > 0 && gradient[1] < 0; // => true
 * ```
 *
 * @param y  float32, of any shape: anything on the way to what is minimized, such as the result of fusedMoe.
 * @param loss  float32 scalar: an auxiliary loss, times its weight. Where the minimized loss is a mean over devices or
 *     accumulated steps, or is scaled, scale this one alike.
 * @returns a new handle of y's values. The loss must reach what is minimized through it: dropped, it adds nothing.
 *
 * Gradient: dy, unchanged, to y; 1 to `loss`, whatever dy. Of any order.
 *
 * @throws if y is not float32 or loss no float32 scalar, before any work.
 *
 * Source: Megatron-LM `MoEAuxLossAutoScaler`, DeepSeek's `AddAuxiliaryLoss`.
 */
export const moeAddAuxiliaryLoss = /* @__PURE__ */ op({moeAddAuxiliaryLoss_});
