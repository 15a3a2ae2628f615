/** What the kernels of all backends read off their inputs' shapes. */
import type {Tensor3D, TensorInfo} from '@tensorflow/tfjs-core';
import type {MoeGroupedMatMulAttrs, MoeWeightParts} from './kernel_names';

/** The weights of experts firstExpert .. firstExpert + numExperts - 1. */
export type Part<T> = {weights: T; firstExpert: number; numExperts: number};

export function partsOf<T extends {shape: number[]} = TensorInfo>(
  inputs: {[Name in keyof MoeWeightParts]: T},
  {numParts}: MoeGroupedMatMulAttrs,
): Array<Part<T>> {
  let firstExpert = 0;
  return Array.from({length: numParts}, (_, p) => {
    const weights = inputs[`weights${p}`];
    const part = {weights, firstExpert, numExperts: weights.shape[0]};
    firstExpert += part.numExperts;
    return part;
  });
}

/** D, and the columns of the result. */
export function columnsOf(
  {shape}: {shape: number[]},
  {weightFormat, gated}: MoeGroupedMatMulAttrs,
): {numColumns: number; numOutputs: number} {
  const numColumns = weightFormat === 'outIn' ? shape[1] : shape[2];
  return {numColumns, numOutputs: gated ? numColumns / 2 : numColumns};
}

export type ExpertWeights = {
  parts: Tensor3D[];
  numExperts: number;
  numOut: number;
};

/** The parts under the names that the kernel has for them. */
export function namedParts({parts}: ExpertWeights): MoeWeightParts {
  return Object.fromEntries(parts.map((part, p) => [`weights${p}`, part]));
}
