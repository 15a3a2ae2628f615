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
  partNames,
  partsOf,
  type WeightLayout,
  type WeightTensors,
} from '../contract/expert_weights';
import {
  MoeGroupedMatMul,
  type MoeGroupedMatMulAttrs,
  MoeGroupedMatMulBackpropActivation,
  MoeGroupedMatMulBackpropWeights,
  type MoeGroupedMatMulBackpropWeightsAttrs,
  type MoeWeightFormat,
  type MoeWeightParts,
} from '../contract/kernel_names';
import {runningOpName} from '../contract/op_name';
import {float32Encoding} from '../contract/quantized_weights';
import {byName, runMoeKernel} from '../contract/run_kernel';
import {gradConfig} from './grad_config';
import {zerosFor} from './zero_gradient';

export function product(
  x: Tensor,
  parts: ReadonlyArray<WeightTensors<Tensor>>,
  offset: Tensor,
  {weightFormat, encoding}: WeightLayout,
  bias?: Tensor,
): Tensor {
  const attrs = {...linear, weightFormat, encoding, numParts: parts.length};
  return runMoeKernel(MoeGroupedMatMul, groupedMatMulInputs(x, offset, parts, bias), attrs).out;
}

/** The layout of float32 weights. */
export const float32Layout = (weightFormat: MoeWeightFormat): WeightLayout => ({
  weightFormat,
  encoding: float32Encoding,
});

export function outerProducts(
  a: Tensor,
  b: Tensor,
  offset: Tensor,
  attrs: MoeGroupedMatMulBackpropWeightsAttrs,
): Tensor {
  return runMoeKernel(MoeGroupedMatMulBackpropWeights, {a, b, expertFirstTokenOffset: offset}, attrs).dWeights;
}

/** The inputs of a grouped matmul, which its gradient saves. */
export type SavedMatMul = {[Name in keyof MoeWeightParts]: Tensor} & {
  x: Tensor;
  expertFirstTokenOffset: Tensor;
  bias?: Tensor;
};

/** Saves all inputs, because their number depends on the number of parts. */
export const moeGroupedMatMulGradConfig: GradConfig = {
  kernelName: MoeGroupedMatMul,
  saveAllInputs: true,
  gradFunc: (dOut, saved, attrs) => {
    const matMulAttrs = attrs as unknown as MoeGroupedMatMulAttrs;
    const {weightFormat, encoding, numParts: _, ...activation} = matMulAttrs;
    const inputs = byName(groupedMatMulInputNames(matMulAttrs), saved as Tensor[]) as SavedMatMul;
    const {x, expertFirstTokenOffset: offset, bias} = inputs;
    const parts = partsOf<Tensor>(inputs, matMulAttrs);
    const dy = dOut as Tensor;
    const dz = isLinear(activation)
      ? dy
      : tidy(() => {
          const z = product(x, parts, offset, matMulAttrs, bias);
          return runMoeKernel(MoeGroupedMatMulBackpropActivation, {dy, z}, activation).dz;
        });
    return {
      x: () => product(dz, parts, offset, transposed({weightFormat, encoding})),
      expertFirstTokenOffset: zerosFor(offset.shape),
      ...weightGradients(matMulAttrs, inputs, {x: () => x, dz: () => dz}),
    };
  },
};

/** The other format. A matmul with the weights read in it is the gradient to x. */
export const transposed = ({weightFormat, encoding}: WeightLayout): WeightLayout => ({
  weightFormat: weightFormat === 'outIn' ? 'inOut' : 'outIn',
  encoding,
});

/** The gradients to the weights and the bias of z = weights[e] . x[r] + bias[e]. Quantized weights have none. */
export function weightGradients(
  {weightFormat, encoding, numParts}: Pick<MoeGroupedMatMulAttrs, 'weightFormat' | 'encoding' | 'numParts'>,
  {expertFirstTokenOffset: offset, bias, ...inputs}: SavedMatMul,
  {x, dz}: {x: () => Tensor; dz: () => Tensor},
): Record<string, () => Tensor> {
  const gradients: Record<string, () => Tensor> =
    encoding.format === 'float32' ? {} : noGradients(partNames({numParts, encoding}), encoding.format);
  if (encoding.format === 'float32') {
    partsOf<Tensor>(inputs, {numParts, encoding}).forEach(({firstExpert, numExperts}, p) => {
      gradients[`weights${p}`] = () =>
        weightFormat === 'outIn'
          ? outerProducts(dz(), x(), offset, {firstExpert, numExperts})
          : outerProducts(x(), dz(), offset, {firstExpert, numExperts});
    });
  }
  if (bias != null) {
    gradients.bias = () => {
      const rows = dz();
      const all = {firstExpert: 0, numExperts: bias.shape[0]};
      return reshape(outerProducts(ones([rows.shape[0], 1]), rows, offset, all), bias.shape);
    };
  }
  return gradients;
}

/** tfjs asks for these only where a gradient to codes, scales or offsets is wanted. */
function noGradients(names: readonly string[], format: string): Record<string, () => Tensor> {
  const noGradient = (): Tensor => {
    throw new Error(
      `Error in ${runningOpName(MoeGroupedMatMul)}: weights of format '${format}' are frozen. There is no gradient to ` +
        'their codes, scales and offsets.',
    );
  };
  return Object.fromEntries(names.map((name) => [name, noGradient]));
}

export const moeGroupedMatMulBackpropWeightsGradConfig = gradConfig(
  MoeGroupedMatMulBackpropWeights,
  {inputs: ['a', 'b', 'expertFirstTokenOffset']},
  ({dWeights: ddWeights}, {a, b, expertFirstTokenOffset: offset}, {firstExpert, numExperts}) => {
    // If the matmul has a part of the experts, the rows of all other experts are rows of no expert.
    const isPart = numExperts + 1 < offset.size;
    const ofPart = () => (isPart ? slice(offset, firstExpert, numExperts + 1) : offset);
    return {
      a: () => product(b, [{weights: ddWeights}], ofPart(), float32Layout('outIn')),
      b: () => product(a, [{weights: ddWeights}], ofPart(), float32Layout('inOut')),
      expertFirstTokenOffset: zerosFor(offset.shape),
    };
  },
);
