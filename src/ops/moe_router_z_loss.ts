import {op, type Scalar, square, type Tensor, type TensorLike} from '@tensorflow/tfjs-core';
import {logSumExp} from '../smooth_ops';
import {checkOptions} from './checks';
import {convertRouterLogits, convertTokenMask} from './moe_arguments';
import {countedRows} from './router_losses';

export type MoeRouterZLossOptions = {
  mask?: Tensor | TensorLike | null;
};

function moeRouterZLoss_(routerLogits: Tensor | TensorLike, options?: MoeRouterZLossOptions | null): Scalar {
  const opName = 'moeRouterZLoss';
  const given = checkOptions(options, ['mask'], opName);
  const $logits = convertRouterLogits(routerLogits, opName);
  const $mask = convertTokenMask(given.mask, $logits.shape[0], opName);

  const {logits, meanOf} = countedRows($logits, $mask);
  return meanOf(square(logSumExp(logits))) as Scalar;
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
 * @param routerLogits  float32 [T, E].
 * @param options.mask  int32, float32 or bool [T]: a token of 0 or false does not count, whatever its logits. Default:
 *     all count.
 * @returns a float32 scalar; 0 where no token counts.
 *
 * Gradient: to routerLogits, of any order.
 *
 * @throws if a rank, dtype, shape or option name does not fit, before any work.
 *
 * Source: the router z-loss of ST-MoE, as in Megatron-LM `z_loss_func`.
 */
export const moeRouterZLoss = /* @__PURE__ */ op({moeRouterZLoss_});
