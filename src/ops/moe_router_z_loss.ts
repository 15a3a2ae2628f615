import {op, reshape, type Scalar, square, type Tensor, type TensorLike} from '@tensorflow/tfjs-core';
import {checkOptions} from '../arguments/checks';
import {convertTokenRows} from '../arguments/routing';
import {convertTokenMask, meansOver, routedTokens} from './router_losses';

export type MoeRouterZLossOptions = {
  /**
   * int32, float32 or bool, an entry for each token. A token whose entry is 0 or false does not count, whatever its
   * logits are. Default: all tokens count.
   */
  mask?: Tensor | TensorLike | null;
};

function moeRouterZLoss_(routerLogits: Tensor | TensorLike, options?: MoeRouterZLossOptions | null): Scalar {
  const opName = 'moeRouterZLoss';
  const given = checkOptions(options, ['mask'], opName);
  const $logits = convertTokenRows(routerLogits, 'routerLogits', 'E', 'float32', opName);
  const $mask = convertTokenMask(given.mask, $logits, opName);

  const {logSums, counts} = routedTokens($logits, $mask, 'softmax');
  return reshape(meansOver(counts, square(logSums), 1), []);
}

/**
 * The loss that keeps router logits small: the mean over tokens of logsumexp(logits)².
 *
 * ```js
 * const routerLogits = tf.tensor2d([[0], [2], [4]]); // of one expert, whose logit is the logsumexp
 * (await tf.moeRouterZLoss(routerLogits).data())[0].toFixed(3); // => '6.667'
 * (await tf.moeRouterZLoss(routerLogits, {mask: [1, 1, 0]}).data())[0].toFixed(3); // => '2.000'
 * ```
 *
 * @param routerLogits  float32 [..., E], of at least rank 2: a row for each token.
 * @param options.mask  int32, float32 or bool [...]: a token whose entry is 0 or false does not count, whatever its
 *     logits are. Default: all tokens count.
 * @returns a float32 scalar: the sum over the tokens that count, divided by their number; 0 if no token counts. A token
 *     whose logits are all -Infinity has no logsumexp and does not count, as if it were masked. NaN or Infinity in a
 *     token that counts makes the loss and the gradient of this token NaN.
 *
 * Gradient: to routerLogits, of any order; 0 for a token that does not count.
 *
 * @throws if a rank, dtype, shape or option name does not fit, before any work. On GPUs also if routerLogits is larger
 *     than the device binds. On webgl also if E is past 2^24, or past 2,048 on devices of half-float textures.
 *
 * Source: the router z-loss of ST-MoE, as in Megatron-LM `z_loss_func`.
 */
export const moeRouterZLoss = /* @__PURE__ */ op({moeRouterZLoss_});
