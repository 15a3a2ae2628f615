/**
 * The gradient to the logits, through the weights; the choice is held fixed. Ids and the bias get zeros.
 *
 * The first order is a kernel. The kernel's own gradient is made of other kernels and of ops that have derivatives of
 * any order.
 *
 * Let z be the logits from which weights are computed: all logits if 'softmax' is not renormalized, else the chosen
 * ones. Let l(z) = log(score), u the softmax of l, g = dTopkWeights * routedScalingFactor, and v the gradient that
 * comes in for each z. Then
 *
 *   v . MoeTopKBackprop = h = sum of a * u * (g - sum of g * u),    a = v * l'
 *   dh/dg = u * (a - A),                                            A = sum of a * u
 *   dh/dz = v * l'' * u * (g - sum of g * u) + l' * u * (q - sum of q * u),    q = a * (g - sum of g * u) - A * g
 *
 * Without a softmax, h = sum of a * score * g. Then dh/dg is the kernel with v in place of g, and dh/dz is this times g
 * and the slope of log(score * l'). For a logit of -Infinity u is 0, and so are its gradients.
 */
import {
  add,
  mul,
  ones,
  reshape,
  sub,
  type Tensor,
  type Tensor2D,
  tensor1d,
  tensor2d,
  util,
} from '@tensorflow/tfjs-core';
import {
  MoeRouterProbabilities,
  MoeTopK,
  MoeTopKBackprop,
  type MoeKernelScoring,
  MoeUnpermuteBackpropRows,
  MoeUnpermuteBackpropWeights,
} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {gradConfig} from './grad_config';
import {slopeOf, turnOf} from './score_slopes';
import {sumOverExperts} from './sum_over_experts';
import {zerosFor} from './zero_gradient';

export const moeTopKGradConfig = gradConfig(
  MoeTopK,
  {inputs: ['routerLogits'], outputs: ['topkIds']},
  ({topkWeights: dTopkWeights}, {routerLogits, topkIds}, {scoring, renormalize, routedScalingFactor}) => {
    const weightAttrs = {scoring, renormalize, routedScalingFactor};
    return {
      routerLogits: () =>
        runMoeKernel(MoeTopKBackprop, {dTopkWeights, routerLogits, topkIds}, weightAttrs).dRouterLogits,
      scoreCorrectionBias: zerosFor(routerLogits.shape.slice(1)),
    };
  },
);

export const moeTopKBackpropGradConfig = gradConfig(
  MoeTopKBackprop,
  {inputs: ['dTopkWeights', 'routerLogits', 'topkIds']},
  ({dRouterLogits: dy}, saved, {scoring, renormalize, routedScalingFactor}) => {
    const {dTopkWeights, routerLogits, topkIds} = saved as {[Name in keyof typeof saved]: Tensor2D};
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
    const partials = (): Partials => {
      if (scoring === 'softmax' && !renormalize) {
        const {dG, dZ} = softmaxPartials(dy, chosen.scatter(scaled), routerLogits, scoring);
        return {dG: chosen.gather(dG), dZ};
      }
      const v = chosen.gather(dy);
      const z = chosen.gather(routerLogits);
      if (renormalize || scoring === 'softmaxAfterTopk') {
        const {dG, dZ} = softmaxPartials(v, scaled, z, scoring);
        return {dG, dZ: chosen.scatter(dZ)};
      }
      const weightAttrs = {scoring, renormalize, routedScalingFactor: 1};
      const {dRouterLogits: first} = runMoeKernel(
        MoeTopKBackprop,
        {dTopkWeights: v, routerLogits, topkIds},
        weightAttrs,
      );
      const dG = chosen.gather(first);
      return {dG, dZ: chosen.scatter(mul(mul(dG, scaled), turnOf(z, slopeOf(z, scoring), scoring)))};
    };
    return {
      ...zeroGradients,
      dTopkWeights: () => mul(partials().dG, routedScalingFactor),
      routerLogits: () => partials().dZ,
    };
  },
);

type Partials = {dG: Tensor; dZ: Tensor};

function softmaxPartials(v: Tensor, g: Tensor, z: Tensor, scoring: MoeKernelScoring): Partials {
  const {probabilities: u} = runMoeKernel(MoeRouterProbabilities, {routerLogits: z}, {scoring});
  const slope = slopeOf(z, scoring);
  const mean = (x: Tensor) => sumOverExperts(mul(x, u));
  const a = mul(v, slope);
  const centred = sub(g, mean(g));
  const q = sub(mul(a, centred), mul(mean(a), g));
  const bent = mul(mul(a, sub(turnOf(z, slope, scoring), slope)), centred);
  return {
    dG: mul(u, sub(a, mean(a))),
    dZ: mul(u, add(bent, mul(slope, sub(q, mean(q))))),
  };
}

/**
 * A pair of functions: from [T, E] to the chosen entries [T, K], and back with zeros elsewhere. Each is the other's
 * gradient.
 */
function chosenOf(topkIds: Tensor, {shape: [numTokens, numExperts]}: Tensor2D) {
  const numLogits = numTokens * numExperts;
  util.assert(
    numLogits <= 2 ** 24,
    () =>
      `Error in ${MoeTopKBackprop}: a second gradient takes at most ${2 ** 24} logits (T*E), because larger sums of ` +
      `int32 tensors are not exact on GPUs, but there are ${numLogits}.`,
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
      return runMoeKernel(MoeUnpermuteBackpropWeights, {...slots, permutedHiddenStates}, {}).dWeights;
    },
    scatter: (topkWeights: Tensor): Tensor => {
      const {dRows: rows} = runMoeKernel(MoeUnpermuteBackpropRows, {...slots, topkWeights}, {numRows: numLogits});
      return reshape(rows, [numTokens, numExperts]);
    },
  };
}
