/**
 * To the logits, through the weights, the choice held fixed. Ids select and the bias only chooses: zeros.
 *
 * First order is a kernel. Its own gradient is made of other kernels and of ops that have derivatives of any order.
 *
 * Let z be the logits that weights are made of: all where 'softmax' is not renormalized, else those of the chosen;
 * l(z) = log(score), u the softmax of l, g = dTopkWeights * routedScalingFactor, and v what comes in, each by z. Then
 *
 *   v . MoeTopKBackprop = h = sum of a * u * (g - sum of g * u),    a = v * l'
 *   dh/dg = u * (a - A),                                            A = sum of a * u
 *   dh/dz = v * l'' * u * (g - sum of g * u) + l' * u * (q - sum of q * u),    q = a * (g - sum of g * u) - A * g
 *
 * or, where there is no softmax, h = sum of a * score * g.
 */
import {
  add,
  div,
  type GradConfig,
  log,
  maximum,
  mul,
  neg,
  ones,
  onesLike,
  reshape,
  square,
  step,
  sub,
  sum,
  type Tensor,
  type Tensor2D,
  tensor1d,
  tensor2d,
  util,
  zerosLike,
} from '@tensorflow/tfjs-core';
import {
  MoeTopK,
  type MoeTopKAttrs,
  MoeTopKBackprop,
  type MoeTopKBackpropAttrs,
  type MoeTopkScoring,
  MoeUnpermuteBackpropRows,
  MoeUnpermuteBackpropWeights,
  runMoeKernel,
} from '../kernel_names';
import {atMost, exp, select, sigmoid, softmax, softplus} from '../smooth_ops';
import {zerosFor} from './index_gradient';

export const moeTopKGradConfig: GradConfig = {
  kernelName: MoeTopK,
  inputsToSave: ['routerLogits'],
  outputsToSave: [false, true],
  gradFunc: (dys, saved, attrs) => {
    const [dTopkWeights] = dys as Tensor[];
    const [routerLogits, topkIds] = saved as Tensor2D[];
    const {scoring, renormalize, routedScalingFactor} = attrs as unknown as MoeTopKAttrs;
    const weightAttrs = {scoring, renormalize, routedScalingFactor};
    return {
      routerLogits: () => runMoeKernel(MoeTopKBackprop, {dTopkWeights, routerLogits, topkIds}, weightAttrs)[0],
      scoreCorrectionBias: zerosFor([routerLogits.shape[1]]),
    };
  },
};

export const moeTopKBackpropGradConfig: GradConfig = {
  kernelName: MoeTopKBackprop,
  inputsToSave: ['dTopkWeights', 'routerLogits', 'topkIds'],
  gradFunc: (dy, saved, attrs) => {
    const [dTopkWeights, routerLogits, topkIds] = saved as Tensor2D[];
    const {scoring, renormalize, routedScalingFactor} = attrs as unknown as MoeTopKBackpropAttrs;
    const zeroGradients = {
      dTopkWeights: zerosFor(dTopkWeights.shape),
      routerLogits: zerosFor(routerLogits.shape),
      topkIds: zerosFor(topkIds.shape),
    };
    if (routerLogits.size === 0) {
      // Core ops fail on empty sums on GPUs.
      return zeroGradients;
    }
    const chosen = chosenOf(topkIds, routerLogits);
    const scaled = mul(dTopkWeights, routedScalingFactor);
    const partials = (): {dG: Tensor; dZ: Tensor} => {
      if (scoring === 'softmax' && !renormalize) {
        const {dG, dZ} = softmaxPartials(dy as Tensor, chosen.scatter(scaled), logScoreOf(routerLogits, scoring));
        return {dG: chosen.gather(dG), dZ};
      }
      const z = logScoreOf(chosen.gather(routerLogits), scoring);
      const isSoftmax = renormalize || scoring === 'softmaxAfterTopk';
      const {dG, dZ} = (isSoftmax ? softmaxPartials : scorePartials)(chosen.gather(dy as Tensor), scaled, z);
      return {dG, dZ: chosen.scatter(dZ)};
    };
    return {
      ...zeroGradients,
      dTopkWeights: () => mul(partials().dG, routedScalingFactor),
      routerLogits: () => partials().dZ,
    };
  },
};

/** A function of the logits with its first two derivatives. */
type LogScore = {value: Tensor; slope: Tensor; curvature: Tensor};

function softmaxPartials(v: Tensor, g: Tensor, {value, slope, curvature}: LogScore): {dG: Tensor; dZ: Tensor} {
  const u = softmax(value);
  const mean = (x: Tensor) => sum(mul(x, u), 1, true);
  const a = mul(v, slope);
  const centred = sub(g, mean(g));
  const q = sub(mul(a, centred), mul(mean(a), g));
  return {
    dG: mul(u, sub(a, mean(a))),
    dZ: mul(u, add(mul(mul(v, curvature), centred), mul(slope, sub(q, mean(q))))),
  };
}

function scorePartials(v: Tensor, g: Tensor, {value, slope, curvature}: LogScore): {dG: Tensor; dZ: Tensor} {
  const weighted = mul(v, exp(value));
  return {
    dG: mul(weighted, slope),
    dZ: mul(mul(weighted, g), add(square(slope), curvature)),
  };
}

function logScoreOf(z: Tensor, scoring: MoeTopkScoring): LogScore {
  if (scoring === 'softmax' || scoring === 'softmaxAfterTopk') {
    return {value: z, slope: onesLike(z), curvature: zerosLike(z)};
  }
  const inverse = sigmoid(neg(z));
  if (scoring === 'sigmoid') {
    return {value: neg(softplus(neg(z))), slope: inverse, curvature: neg(mul(sigmoid(z), inverse))};
  }
  // softplus(z) for small z by its series in e = exp(z), of which softplus itself loses the digits on GPUs:
  // softplus(z) = e * ratio, sigmoid(z) = e / (1 + e).
  const limit = -4;
  const isLarge = step(sub(z, limit));
  const e = exp(atMost(z, limit));
  const ratio = add(sub(1, mul(e, 0.5)), mul(square(e), 1 / 3));
  const large = maximum(z, limit);
  const value = select(isLarge, log(softplus(large)), add(z, log(ratio)));
  const relativeSlope = select(isLarge, div(sigmoid(large), softplus(large)), div(1, mul(add(1, e), ratio)));
  return {
    value: mul(value, 0.5),
    slope: mul(relativeSlope, 0.5),
    curvature: mul(mul(relativeSlope, sub(inverse, relativeSlope)), 0.5),
  };
}

/** [T, E] to what was chosen of it, [T, K], and back with zeros elsewhere, each the other's gradient. */
function chosenOf(topkIds: Tensor, {shape: [numTokens, numExperts]}: Tensor2D) {
  const numLogits = numTokens * numExperts;
  util.assert(
    numLogits <= 2 ** 24,
    () =>
      `Error in ${MoeTopKBackprop}: a second gradient takes at most ${2 ** 24} logits (T*E), past which sums of int32 ` +
      `tensors are not exact on GPUs, but there are ${numLogits}.`,
  );
  const firstLogits = Int32Array.from({length: numTokens}, (_, token) => token * numExperts);
  const slots = {
    dy: ones([numTokens, 1]),
    invPermutedIdx: add(topkIds, tensor2d(firstLogits, [numTokens, 1], 'int32')),
    expertFirstTokenOffset: tensor1d([numLogits], 'int32'),
  };
  return {
    gather: (x: Tensor): Tensor => {
      const permutedHiddenStates = reshape(x, [numLogits, 1]);
      return runMoeKernel(MoeUnpermuteBackpropWeights, {...slots, permutedHiddenStates}, {})[0];
    },
    scatter: (topkWeights: Tensor): Tensor => {
      const [rows] = runMoeKernel(MoeUnpermuteBackpropRows, {...slots, topkWeights}, {numRows: numLogits});
      return reshape(rows, [numTokens, numExperts]);
    },
  };
}
