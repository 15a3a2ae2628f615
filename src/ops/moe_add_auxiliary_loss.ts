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
  // A clone, because tfjs disposes a dy that it has added up.
  return {value: clone(y), gradFunc: (dy: Tensor, [saved]: Tensor[]) => [clone(dy), onesLike(saved)]};
});

/**
 * Returns y. The gradient of the result also carries the gradient of `loss`, as if `loss` had been added to the
 * minimized loss. Use it to balance experts inside a model whose training loop you do not write.
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
 * @param y  a float32 tensor of any shape from which the minimized loss is computed, such as the result of fusedMoe.
 * @param loss  float32 scalar: an auxiliary loss, times its weight. If the minimized loss is scaled, or is a mean over
 *     devices or accumulated steps, scale `loss` by the same factor.
 * @returns a new handle of y's values. The minimized loss must be computed from this handle: otherwise `loss` adds
 *     nothing.
 *
 * Gradient: dy, unchanged, to y; 1 to `loss`, whatever dy is; of any order.
 *
 * @throws if y is not float32 or `loss` is not a float32 scalar, before any work.
 *
 * Source: Megatron-LM `MoEAuxLossAutoScaler`, DeepSeek's `AddAuxiliaryLoss`.
 */
export const moeAddAuxiliaryLoss = /* @__PURE__ */ op({moeAddAuxiliaryLoss_});
