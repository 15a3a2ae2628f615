/** The weights of experts as inputs of MoeGroupedMatMul: how ops name them, and how kernels and gradients read them. */
import type {Tensor, TensorInfo} from '@tensorflow/tfjs-core';
import type {
  MoeActivationAttrs,
  MoeFusedExpertsAttrs,
  MoeFusedExpertsInputs,
  MoeGroupedMatMulAttrs,
  MoeGroupedMatMulInputs,
  MoeWeightParts,
} from './kernel_names';
import {codesPerWord, quantizedFormats, type WeightEncoding} from './quantized_weights';

/** Float32 weights of several experts; or their codes, with the scales and offsets that the encoding has. */
export type WeightTensors<T = TensorInfo> = {weights: T; scales?: T; offsets?: T};

/** The weights of experts firstExpert .. firstExpert + numExperts - 1. */
export type Part<T> = WeightTensors<T> & {firstExpert: number; numExperts: number};

/** How the experts of a call are given: what MoeGroupedMatMul must know besides tensors. */
export type WeightLayout = Pick<MoeGroupedMatMulAttrs, 'weightFormat' | 'encoding'>;

/** The tensors that a part has, in the order of inputs. */
function tensorNames({format, hasOffsets}: WeightEncoding): Array<keyof WeightTensors> {
  const hasScales = format !== 'float32' && quantizedFormats[format].hasScales;
  return ['weights', ...(hasScales ? (['scales'] as const) : []), ...(hasOffsets ? (['offsets'] as const) : [])];
}

export function partsOf<T extends {shape: number[]} = TensorInfo>(
  inputs: {[Name in keyof MoeWeightParts]: T},
  {numParts, encoding}: Pick<MoeGroupedMatMulAttrs, 'numParts' | 'encoding'>,
): Array<Part<T>> {
  const names = tensorNames(encoding);
  let firstExpert = 0;
  return Array.from({length: numParts}, (_, p) => {
    const tensors = Object.fromEntries(names.map((name) => [name, inputs[`${name}${p}`]])) as WeightTensors<T>;
    const part = {...tensors, firstExpert, numExperts: tensors.weights.shape[0]};
    firstExpert += part.numExperts;
    return part;
  });
}

/** The attributes of a product alone. */
export const linear: MoeActivationAttrs = {
  activation: 'linear',
  gated: false,
  gateUp: 'concatenated',
  swigluAlpha: 0,
  swigluLimit: 0,
};

export const isLinear = ({activation, gated}: MoeActivationAttrs): boolean => activation === 'linear' && !gated;

/** Whether gates and ups are clamped. */
export const hasClamps = ({activation, swigluLimit}: MoeActivationAttrs): boolean =>
  activation === 'swigluOai' || (activation === 'silu' && swigluLimit < Infinity);

/** D, and the number of columns of the result. */
export function columnsOf(
  {shape}: {shape: number[]},
  {weightFormat, encoding, gated}: WeightLayout & {gated: boolean},
): {numColumns: number; numOutputs: number} {
  const numColumns = weightFormat === 'outIn' ? shape[1] : shape[2] * codesPerWord(encoding);
  return {numColumns, numOutputs: gated ? numColumns / 2 : numColumns};
}

/** Weights of one op, converted and checked. */
export type ExpertWeights = {
  parts: Array<WeightTensors<Tensor>>;
  encoding: WeightEncoding;
  numExperts: number;
  numOut: number;
};

/** One of the two products of MoeFusedExperts, as MoeGroupedMatMul has it. */
export type FusedProduct<T> = WeightTensors<T> & {bias?: T; attrs: MoeGroupedMatMulAttrs};

export function fusedProducts<T>(
  inputs: {[Name in keyof MoeFusedExpertsInputs]: T},
  {weightFormat, w1Encoding, w2Encoding, ...activation}: MoeFusedExpertsAttrs,
): {first: FusedProduct<T>; second: FusedProduct<T>} {
  const {w1, w1Scales, w1Offsets, w1Bias, w2, w2Scales, w2Offsets, w2Bias} = inputs;
  return {
    first: {
      weights: w1,
      scales: w1Scales,
      offsets: w1Offsets,
      bias: w1Bias,
      attrs: {...activation, weightFormat, encoding: w1Encoding, numParts: 1},
    },
    second: {
      weights: w2,
      scales: w2Scales,
      offsets: w2Offsets,
      bias: w2Bias,
      attrs: {...linear, weightFormat, encoding: w2Encoding, numParts: 1},
    },
  };
}

/** The inputs of MoeGroupedMatMul, in the order in which its gradient saves them. */
export function groupedMatMulInputs(
  x: TensorInfo,
  expertFirstTokenOffset: TensorInfo,
  parts: readonly WeightTensors[],
  bias: TensorInfo | undefined,
): MoeGroupedMatMulInputs {
  return {x, expertFirstTokenOffset, ...namedParts(parts), bias};
}

/** The tensors of the parts, by the names of the kernel's inputs. */
function namedParts(parts: readonly WeightTensors[]): MoeWeightParts {
  const named: MoeWeightParts = {};
  parts.forEach(({weights, scales, offsets}, p) => {
    named[`weights${p}`] = weights;
    if (scales != null) {
      named[`scales${p}`] = scales;
    }
    if (offsets != null) {
      named[`offsets${p}`] = offsets;
    }
  });
  return named;
}

/** The names of the tensors of all parts, in the order of inputs. */
export function partNames({
  numParts,
  encoding,
}: Pick<MoeGroupedMatMulAttrs, 'numParts' | 'encoding'>): Array<keyof MoeWeightParts> {
  return Array.from({length: numParts}, (_, p) => tensorNames(encoding).map((name) => `${name}${p}` as const)).flat();
}

/** The names of the inputs of groupedMatMulInputs. A bias is the last, if there is one. */
export function groupedMatMulInputNames(attrs: Pick<MoeGroupedMatMulAttrs, 'numParts' | 'encoding'>): string[] {
  return ['x', 'expertFirstTokenOffset', ...partNames(attrs), 'bias'];
}
