/**
 * With z = weights[e] . x[r] + bias[e] and y its activation:
 *
 *   dz       = MoeGroupedMatMulBackpropActivation of z, which is computed again: it would be twice as large as y
 *   dx       = MoeGroupedMatMul of dz with the same weights read in the other format
 *   dWeights = MoeGroupedMatMulBackpropWeights of dz and x
 *   dBias    = MoeGroupedMatMulBackpropWeights of ones and dz
 *
 * The two matmuls are linear in both of their factors and are each other's gradients, and the kernel of dz has a
 * gradient of its own, so there are derivatives of any order. The last three never read dy of a row of no expert.
 */
import {type GradConfig, ones, reshape, slice, type Tensor, tidy} from '@tensorflow/tfjs-core';
import {
  groupedMatMulInputNames,
  groupedMatMulInputs,
  isLinear,
  linear,
  namedParts,
  partsOf,
} from '../contract/expert_weights';
import {
  MoeGroupedMatMul,
  type MoeGroupedMatMulAttrs,
  MoeGroupedMatMulBackpropActivation,
  MoeGroupedMatMulBackpropWeights,
  type MoeGroupedMatMulBackpropWeightsAttrs,
  type MoeWeightFormat,
} from '../contract/kernel_names';
import {byName, runMoeKernel} from '../contract/run_kernel';
import {gradConfig} from './grad_config';
import {zerosFor} from './zero_gradient';

export function product(
  x: Tensor,
  weights: Tensor[],
  offset: Tensor,
  weightFormat: MoeWeightFormat,
  bias?: Tensor,
): Tensor {
  const attrs = {...linear, weightFormat, numParts: weights.length};
  return runMoeKernel(MoeGroupedMatMul, groupedMatMulInputs(x, offset, weights, bias), attrs).out;
}

export function outerProducts(
  a: Tensor,
  b: Tensor,
  offset: Tensor,
  attrs: MoeGroupedMatMulBackpropWeightsAttrs,
): Tensor {
  return runMoeKernel(MoeGroupedMatMulBackpropWeights, {a, b, expertFirstTokenOffset: offset}, attrs).dWeights;
}

/** The inputs of a grouped matmul, which its gradient saves. */
export type SavedMatMul = {
  x: Tensor;
  expertFirstTokenOffset: Tensor;
  bias?: Tensor;
  [part: `weights${number}`]: Tensor;
};

/** Saves all inputs, because their number depends on the number of parts. */
export const moeGroupedMatMulGradConfig: GradConfig = {
  kernelName: MoeGroupedMatMul,
  saveAllInputs: true,
  gradFunc: (dOut, saved, attrs) => {
    const matMulAttrs = attrs as unknown as MoeGroupedMatMulAttrs;
    const {weightFormat, numParts: _, ...activation} = matMulAttrs;
    const inputs = byName(groupedMatMulInputNames(matMulAttrs), saved as Tensor[]) as SavedMatMul;
    const {x, expertFirstTokenOffset: offset, bias} = inputs;
    const parts = partsOf<Tensor>(inputs, matMulAttrs);
    const weights = parts.map((part) => part.weights);
    const dy = dOut as Tensor;
    const dz = isLinear(activation)
      ? dy
      : tidy(() => {
          const z = product(x, weights, offset, weightFormat, bias);
          return runMoeKernel(MoeGroupedMatMulBackpropActivation, {dy, z}, activation).dz;
        });
    return {
      x: () => product(dz, weights, offset, transposed(weightFormat)),
      expertFirstTokenOffset: zerosFor(offset.shape),
      ...weightGradients(matMulAttrs, inputs, {x: () => x, dz: () => dz}),
    };
  },
};

/** The other format. A matmul with the weights read in it is the gradient to x. */
export const transposed = (weightFormat: MoeWeightFormat): MoeWeightFormat =>
  weightFormat === 'outIn' ? 'inOut' : 'outIn';

/** The gradients to the weights and the bias of z = weights[e] . x[r] + bias[e]. */
export function weightGradients(
  {weightFormat, numParts}: Pick<MoeGroupedMatMulAttrs, 'weightFormat' | 'numParts'>,
  {expertFirstTokenOffset: offset, bias, ...inputs}: SavedMatMul,
  {x, dz}: {x: () => Tensor; dz: () => Tensor},
): Record<string, () => Tensor> {
  const dWeights = partsOf<Tensor>(inputs, {numParts}).map(
    ({firstExpert, numExperts}) =>
      () =>
        weightFormat === 'outIn'
          ? outerProducts(dz(), x(), offset, {firstExpert, numExperts})
          : outerProducts(x(), dz(), offset, {firstExpert, numExperts}),
  );
  const gradients: Record<string, () => Tensor> = namedParts(dWeights);
  if (bias != null) {
    gradients.bias = () => {
      const rows = dz();
      const all = {firstExpert: 0, numExperts: bias.shape[0]};
      return reshape(outerProducts(ones([rows.shape[0], 1]), rows, offset, all), bias.shape);
    };
  }
  return gradients;
}

export const moeGroupedMatMulBackpropWeightsGradConfig = gradConfig(
  MoeGroupedMatMulBackpropWeights,
  {inputs: ['a', 'b', 'expertFirstTokenOffset']},
  ({dWeights: ddWeights}, {a, b, expertFirstTokenOffset: offset}, {firstExpert, numExperts}) => {
    // If the matmul has a part of the experts, the rows of all other experts are rows of no expert.
    const isPart = numExperts + 1 < offset.size;
    const ofPart = () => (isPart ? slice(offset, firstExpert, numExperts + 1) : offset);
    return {
      a: () => product(b, [ddWeights], ofPart(), 'outIn'),
      b: () => product(a, [ddWeights], ofPart(), 'inOut'),
      expertFirstTokenOffset: zerosFor(offset.shape),
    };
  },
);
