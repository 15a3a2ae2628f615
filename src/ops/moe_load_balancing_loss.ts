import {
  add,
  cast,
  div,
  expandDims,
  fill,
  log,
  maximum,
  mul,
  neg,
  op,
  type Rank,
  type Scalar,
  slice,
  step,
  sub,
  sum,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
  type TensorLike,
  where,
  zeros,
} from '@tensorflow/tfjs-core';
import {MoePermute, type MoeTopkScoring, runMoeKernel} from '../kernel_names';
import {atMost, exp, select, softmax, softplus} from '../smooth_ops';
import {assert, checkOptions} from './checks';
import {checkScoring, convertRouterLogits, convertTokenMask, convertTopkIds, type MoeIndices} from './moe_arguments';
import {countedRows} from './router_losses';

export type MoeLoadBalancingLossOptions = {
  mask?: Tensor | TensorLike | null;
  scoring?: MoeTopkScoring | null;
};

function moeLoadBalancingLoss_(
  routerLogits: Tensor | TensorLike,
  topkIds: MoeIndices,
  options?: MoeLoadBalancingLossOptions | null,
): Scalar {
  const opName = 'moeLoadBalancingLoss';
  const given = checkOptions(options, ['mask', 'scoring'], opName);
  const $logits = convertRouterLogits(routerLogits, opName);
  const [numTokens, numExperts] = $logits.shape;
  const $ids = convertTopkIds(topkIds, opName);
  assert(
    $ids.shape[0] === numTokens,
    opName,
    () => `topkIds must have as many rows as routerLogits (T = ${numTokens}), but has ${$ids.shape[0]}.`,
  );
  const $mask = convertTokenMask(given.mask, numTokens, opName);
  const scoring = checkScoring(given.scoring, opName);

  const {logits, meanOf} = countedRows($logits, $mask);
  // An id of -1 is not here, and no count has it.
  const countedIds = $mask == null ? $ids : where(expandDims($mask, 1), $ids, fill<Rank.R2>($ids.shape, -1, 'int32'));
  const meanProbability = meanOf(softmax(logScores(logits, scoring)));
  return mul(numExperts, sum(mul(sharesOf(countedIds, numExperts), meanProbability)));
}

/** float32 [E]: how many of the assignments each expert has, of 1 in all. */
function sharesOf(topkIds: Tensor2D, numExperts: number): Tensor {
  const [, offset] = runMoeKernel(
    MoePermute,
    {hiddenStates: zeros([topkIds.shape[0], 1]), topkIds},
    {numExperts, numLocalExperts: numExperts, alignBlockSize: 0, fillInvalidExpert: -1, padding: 'zero'},
  );
  const starts = cast(offset as Tensor1D, 'float32');
  const counts = sub(slice(starts, 1, numExperts), slice(starts, 0, numExperts));
  return div(counts, maximum(slice(starts, numExperts, 1), 1));
}

/** log(score) but for what a softmax does not see: the softmax of it is score / sum of scores. */
function logScores(logits: Tensor2D, scoring: MoeTopkScoring): Tensor {
  if (scoring === 'sigmoid') {
    return neg(softplus(neg(logits)));
  }
  if (scoring === 'sqrtSoftplus') {
    // Small logits by the series of softplus in exp(x), of which softplus itself loses the digits on GPUs.
    const limit = -4;
    const e = exp(atMost(logits, limit));
    const series = sub(1, mul(e, sub(0.5, mul(e, 1 / 3))));
    const small = add(logits, log(series));
    return mul(select(step(sub(logits, limit)), log(softplus(maximum(logits, limit))), small), 0.5);
  }
  return logits;
}

/**
 * The loss that spreads tokens over experts: E * sum over e of share[e] * meanProbability[e]. It is 1 where both are
 * alike for all experts, as in Switch Transformers and Megatron-LM (Hugging Face transformers counts K there).
 *
 * ```js
 * const routerLogits = tf.tensor2d([[1, 1], [1, 1]]);
 * const loss = (ids, options) => tf.moeLoadBalancingLoss(routerLogits, ids, options).array();
 * await loss([[0], [1]]); // => 1
 * await loss([[0], [0]], {mask: [true, false]}); // => 1
 * ```
 *
 * @param routerLogits  float32 [T, E].
 * @param topkIds  int32 [T, K], as from moeTopk. An id outside 0..E-1, such as -1 for one that was dropped, is in no
 *     share.
 * @param options.mask  int32, float32 or bool [T]: a token of 0 or false does not count, whatever its logits and ids.
 *     Default: all count.
 * @param options.scoring  Whose probabilities: the softmax for `'softmax'` (default) and `'softmaxAfterTopk'`, else
 *     score / sum of scores.
 * @returns a float32 scalar, with share[e] the part of the counted assignments that expert e has, and
 *     meanProbability[e] the mean of its probability over the counted tokens; 0 where none counts.
 *
 * Gradient: to routerLogits, through the probabilities, of any order; shares are held fixed.
 *
 * @throws if a rank, dtype, shape or option name does not fit, before any work.
 *
 * Source: Megatron-LM `switch_load_balancing_loss_func`.
 */
export const moeLoadBalancingLoss = /* @__PURE__ */ op({moeLoadBalancingLoss_});
