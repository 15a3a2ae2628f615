/**
 * With z = weights[e] . x[r] + bias[e] and y its activation:
 *
 *   dz       = MoeGroupedMatMulBackpropActivation, z being computed again: kept, it would be twice as large as y
 *   dx       = MoeGroupedMatMul of dz with the same weights read in the other format
 *   dWeights = MoeGroupedMatMulBackpropWeights of dz and x
 *   dBias    = the same of ones and dz
 *
 * The two matmuls are linear in both of their factors and each other's gradients, and the first has a gradient of its
 * own: there are derivatives of any order. dy of a row of no expert is never read by the last three.
 */
import {type GradConfig, ones, reshape, slice, type Tensor, tidy} from '@tensorflow/tfjs-core';
import {
  type MoeActivationAttrs,
  MoeGroupedMatMul,
  type MoeGroupedMatMulAttrs,
  MoeGroupedMatMulBackpropActivation,
  MoeGroupedMatMulBackpropWeights,
  type MoeGroupedMatMulBackpropWeightsAttrs,
  type MoeWeightFormat,
  type MoeWeightParts,
} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {zerosFor} from './zero_gradient';

const linear: MoeActivationAttrs = {
  activation: 'linear',
  gated: false,
  gateUp: 'concatenated',
  swigluAlpha: 0,
  swigluLimit: 0,
};

function product(x: Tensor, weights: Tensor[], offset: Tensor, weightFormat: MoeWeightFormat, bias?: Tensor): Tensor {
  const parts: MoeWeightParts = {};
  weights.forEach((part, p) => {
    parts[`weights${p}`] = part;
  });
  const attrs = {...linear, weightFormat, numParts: weights.length};
  return runMoeKernel(MoeGroupedMatMul, {x, expertFirstTokenOffset: offset, ...parts, bias}, attrs)[0];
}

function outerProducts(a: Tensor, b: Tensor, offset: Tensor, attrs: MoeGroupedMatMulBackpropWeightsAttrs): Tensor {
  return runMoeKernel(MoeGroupedMatMulBackpropWeights, {a, b, expertFirstTokenOffset: offset}, attrs)[0];
}

export const moeGroupedMatMulGradConfig: GradConfig = {
  kernelName: MoeGroupedMatMul,
  saveAllInputs: true,
  gradFunc: (dy, saved, attrs) => {
    const {weightFormat, numParts, ...activation} = attrs as unknown as MoeGroupedMatMulAttrs;
    const [x, offset, ...others] = saved as Tensor[];
    const weights = others.slice(0, numParts);
    const bias: Tensor | undefined = others[numParts];
    const isLinear = activation.activation === 'linear' && !activation.gated;
    const dz = isLinear
      ? (dy as Tensor)
      : tidy(() => {
          const z = product(x, weights, offset, weightFormat, bias);
          return runMoeKernel(MoeGroupedMatMulBackpropActivation, {dy: dy as Tensor, z}, activation)[0];
        });

    const gradients: Record<string, () => Tensor> = {
      x: () => product(dz, weights, offset, weightFormat === 'outIn' ? 'inOut' : 'outIn'),
      expertFirstTokenOffset: zerosFor(offset.shape),
    };
    let firstExpert = 0;
    weights.forEach(({shape: [numExperts]}, p) => {
      const part = {firstExpert, numExperts};
      gradients[`weights${p}`] = () =>
        weightFormat === 'outIn' ? outerProducts(dz, x, offset, part) : outerProducts(x, dz, offset, part);
      firstExpert += numExperts;
    });
    if (bias != null) {
      const all = {firstExpert: 0, numExperts: bias.shape[0]};
      gradients.bias = () => reshape(outerProducts(ones([x.shape[0], 1]), dz, offset, all), bias.shape);
    }
    return gradients;
  },
};

export const moeGroupedMatMulBackpropWeightsGradConfig: GradConfig = {
  kernelName: MoeGroupedMatMulBackpropWeights,
  inputsToSave: ['a', 'b', 'expertFirstTokenOffset'],
  gradFunc: (dOut, saved, attrs) => {
    const [a, b, offset] = saved as Tensor[];
    const {firstExpert, numExperts} = attrs as unknown as MoeGroupedMatMulBackpropWeightsAttrs;
    // Of a part of the experts: rows of the others are rows of no expert.
    const isPart = numExperts + 1 < offset.size;
    const ofPart = () => (isPart ? slice(offset, firstExpert, numExperts + 1) : offset);
    return {
      a: () => product(b, [dOut as Tensor], ofPart(), 'outIn'),
      b: () => product(a, [dOut as Tensor], ofPart(), 'inOut'),
      expertFirstTokenOffset: zerosFor(offset.shape),
    };
  },
};
