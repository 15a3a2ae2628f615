/** The weights of experts as inputs of MoeGroupedMatMul: how ops name them, and how kernels and gradients read them. */
import type {Tensor3D, TensorInfo} from '@tensorflow/tfjs-core';
import type {MoeActivationAttrs, MoeGroupedMatMulAttrs, MoeGroupedMatMulInputs, MoeWeightParts} from './kernel_names';

const partName = (p: number): `weights${number}` => `weights${p}`;

/** The weights of experts firstExpert .. firstExpert + numExperts - 1. */
export type Part<T> = {weights: T; firstExpert: number; numExperts: number};

export function partsOf<T extends {shape: number[]} = TensorInfo>(
  inputs: {[Name in keyof MoeWeightParts]: T},
  {numParts}: Pick<MoeGroupedMatMulAttrs, 'numParts'>,
): Array<Part<T>> {
  let firstExpert = 0;
  return Array.from({length: numParts}, (_, p) => {
    const weights = inputs[partName(p)];
    const part = {weights, firstExpert, numExperts: weights.shape[0]};
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

/** D, and the number of columns of the result. */
export function columnsOf(
  {shape}: {shape: number[]},
  {weightFormat, gated}: Pick<MoeGroupedMatMulAttrs, 'weightFormat' | 'gated'>,
): {numColumns: number; numOutputs: number} {
  const numColumns = weightFormat === 'outIn' ? shape[1] : shape[2];
  return {numColumns, numOutputs: gated ? numColumns / 2 : numColumns};
}

export type ExpertWeights = {
  parts: Tensor3D[];
  numExperts: number;
  numOut: number;
};

/** The parts, by the names of the kernel's inputs. */
export function namedParts<T>(parts: readonly T[]): {[part: `weights${number}`]: T} {
  return Object.fromEntries(parts.map((part, p) => [partName(p), part]));
}

/** The inputs of MoeGroupedMatMul, in the order in which its gradient saves them. */
export function groupedMatMulInputs(
  x: TensorInfo,
  expertFirstTokenOffset: TensorInfo,
  parts: readonly TensorInfo[],
  bias: TensorInfo | undefined,
): MoeGroupedMatMulInputs {
  return {x, expertFirstTokenOffset, ...namedParts(parts), bias};
}

/** The names of the inputs of groupedMatMulInputs. A bias is the last, if there is one. */
export function groupedMatMulInputNames({numParts}: Pick<MoeGroupedMatMulAttrs, 'numParts'>): string[] {
  return ['x', 'expertFirstTokenOffset', ...Array.from({length: numParts}, (_, p) => partName(p)), 'bias'];
}
