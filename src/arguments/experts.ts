/** The arguments that the ops of experts have in common: weights, biases and the activation. */
import {expandDims, Tensor, type Tensor2D, type Tensor3D, type TensorLike} from '@tensorflow/tfjs-core';
import type {
  MoeActivation,
  MoeActivationAttrs,
  MoeGateUp,
  MoeKernelActivation,
  MoeWeightFormat,
  MoeWeightParts,
} from '../contract/kernel_names';
import {
  assert,
  assertRank,
  checkBoolean,
  checkOneOf,
  convertToOptionalTensor,
  convertToTensor,
  describeValue,
} from './checks';

/** Weights of experts: one tensor, or several that are read as their concatenation along axis 0. */
export type MoeExpertWeights = Tensor | TensorLike | Tensor[];

export type ActivationOptions = {
  /**
   * `'linear'`, the default of moeGroupedMatMul; `'silu'` (or `'swish'`), that of fusedExperts and fusedMoe; `'relu'`;
   * `'relu2'`, its square; `'gelu'`, by erf; `'geluTanh'` (or `'geluNew'`); or `'swigluOai'`, which is gated:
   * min(g, limit) * sigmoid(alpha * min(g, limit)) * (clamp(u, -limit, limit) + 1).
   */
  activation?: MoeActivation | null;
  /**
   * Whether the columns are gates g and ups u, the result being activation(g) * u. Default true in fusedExperts and
   * fusedMoe, false in moeGroupedMatMul.
   */
  gated?: boolean | null;
  /**
   * `'concatenated'`: all gates, then all ups. `'interleaved'`: gate 2i, up 2i+1; it is the default of `'swigluOai'`,
   * as gpt-oss is published. Else the default is `'concatenated'`.
   */
  gateUp?: MoeGateUp | null;
  /** Alpha of `'swigluOai'`. Default 1.702. */
  swigluAlpha?: number | null;
  /** Limit of `'swigluOai'`. Default 7. */
  swigluLimit?: number | null;
};

export const activationOptionNames = ['activation', 'gated', 'gateUp', 'swigluAlpha', 'swigluLimit'] as const;

const kernelActivations: Record<MoeActivation, MoeKernelActivation> = {
  linear: 'linear',
  relu: 'relu',
  relu2: 'relu2',
  silu: 'silu',
  swish: 'silu',
  gelu: 'gelu',
  geluTanh: 'geluTanh',
  geluNew: 'geluTanh',
  swigluOai: 'swigluOai',
};
export const moeActivations = /* @__PURE__ */ Object.keys(kernelActivations) as MoeActivation[];

export function checkWeightFormat(format: MoeWeightFormat | null | undefined, opName: string): MoeWeightFormat {
  return checkOneOf(format ?? 'outIn', ['outIn', 'inOut'], 'weightFormat', opName);
}

/** Those of gpt-oss. */
export const SWIGLU_ALPHA = 1.702;
export const SWIGLU_LIMIT = 7;

/** The activation by the name that kernels know it by, and what else it takes. */
export function checkActivation(given: Partial<ActivationOptions>, opName: string): MoeActivationAttrs {
  const activation = checkOneOf(given.activation ?? 'linear', moeActivations, 'activation', opName);
  const gated = checkBoolean(given.gated, 'gated', opName);
  assert(
    gated || activation !== 'swigluOai',
    opName,
    () => "activation 'swigluOai' is for gated experts: it takes gated: true.",
  );
  const swigluAlpha = given.swigluAlpha ?? SWIGLU_ALPHA;
  assert(
    Number.isFinite(swigluAlpha),
    opName,
    () => `swigluAlpha must be a finite number, but is ${describeValue(swigluAlpha)}.`,
  );
  const swigluLimit = given.swigluLimit ?? SWIGLU_LIMIT;
  assert(
    Number.isFinite(swigluLimit) && swigluLimit > 0,
    opName,
    () => `swigluLimit must be a positive number, but is ${describeValue(swigluLimit)}.`,
  );
  // As the weights of gpt-oss are published.
  const gateUp = given.gateUp ?? (activation === 'swigluOai' ? 'interleaved' : 'concatenated');
  return {
    activation: kernelActivations[activation],
    gated,
    gateUp: checkOneOf(gateUp, ['concatenated', 'interleaved'], 'gateUp', opName),
    swigluAlpha,
    swigluLimit,
  };
}

/** What the weights of one matmul are called, and what decides how many columns they read. */
export type WeightArgument = {
  argName: string;
  /** The axes of outputs and inputs, such as 'D' and 'C'. */
  out: string;
  in: string;
  numIn: number;
  /** What has `numIn` columns, with its shape. */
  rows: string;
};

export type ExpertWeights = {
  parts: Tensor3D[];
  numExperts: number;
  numOut: number;
};

/** float32 [L, out, in], or [L, in, out] for 'inOut': one tensor or parts of it along axis 0. */
export function convertExpertWeights(
  weights: MoeExpertWeights,
  argument: WeightArgument,
  weightFormat: MoeWeightFormat,
  opName: string,
): ExpertWeights {
  const {argName} = argument;
  const isList = Array.isArray(weights) && (weights as unknown[]).some((part) => part instanceof Tensor);
  const given = isList ? (weights as Tensor[]) : [weights as Tensor | TensorLike];
  const parts = given.map((part, p) => {
    const partArgument = isList ? {...argument, argName: `${argName}[${p}]`} : argument;
    return convertWeights(part, partArgument, 'L, ', weightFormat, opName) as Tensor3D;
  });
  const [first] = parts;
  parts.forEach((part, p) => {
    assert(
      part.shape[1] === first.shape[1] && part.shape[2] === first.shape[2],
      opName,
      () => `${argName}[${p}] must be like ${argName}[0] [${first.shape}] but for axis 0, but is [${part.shape}].`,
    );
  });
  const numExperts = parts.reduce((count, {shape}) => count + shape[0], 0);
  return {parts, numExperts, numOut: first.shape[weightFormat === 'outIn' ? 1 : 2]};
}

/** float32 [out, in], or [in, out] for 'inOut', as the weights of one expert. */
export function convertSharedWeights(
  weights: Tensor | TensorLike,
  argument: WeightArgument,
  weightFormat: MoeWeightFormat,
  opName: string,
): ExpertWeights {
  const $weights = convertWeights(weights, argument, '', weightFormat, opName);
  const [first, second] = $weights.shape;
  return {parts: [expandDims($weights, 0)], numExperts: 1, numOut: weightFormat === 'outIn' ? first : second};
}

function convertWeights(
  weights: Tensor | TensorLike,
  {argName, numIn, rows, ...argument}: WeightArgument,
  leadingAxis: 'L, ' | '',
  weightFormat: MoeWeightFormat,
  opName: string,
): Tensor {
  const isOutIn = weightFormat === 'outIn';
  const matrixAxes = isOutIn ? [argument.out, argument.in] : [argument.in, argument.out];
  const axes = `[${leadingAxis}${matrixAxes.join(', ')}]`;
  const $weights = convertToTensor(weights, argName, opName, ['float32']);
  assertRank($weights, argName, opName, axes);
  assert(
    $weights.size > 0,
    opName,
    () => `${argName} must have at least 1 ${leadingAxis && 'expert, '}row and column, but is [${$weights.shape}].`,
  );
  const matrixShape = $weights.shape.slice(-2);
  const [numOut, numColumns] = isOutIn ? matrixShape : matrixShape.reverse();
  assert(
    numColumns === numIn,
    opName,
    () =>
      `${argName} must be ${axes} with ${argument.in} = ${numIn} for ${rows} and weightFormat '${weightFormat}', but ` +
      `is [${$weights.shape}].${numOut === numIn ? ` It fits weightFormat '${isOutIn ? 'inOut' : 'outIn'}'.` : ''}`,
  );
  return $weights;
}

/** The parts under the names that the kernel has for them. */
export function namedParts({parts}: ExpertWeights): MoeWeightParts {
  return Object.fromEntries(parts.map((part, p) => [`weights${p}`, part]));
}

/** float32 [L, out], or not given; `axes` names them. */
export function convertExpertBias(
  bias: Tensor | TensorLike | null | undefined,
  argName: string,
  axes: string,
  {numExperts, numOut}: ExpertWeights,
  opName: string,
): Tensor2D | undefined {
  const $bias = convertToOptionalTensor(bias, argName, opName, ['float32']);
  assert(
    $bias == null || ($bias.rank === 2 && $bias.shape[0] === numExperts && $bias.shape[1] === numOut),
    opName,
    () => `${argName} must be ${axes} = [${numExperts},${numOut}] for these weights, but is [${$bias!.shape}].`,
  );
  return $bias as Tensor2D | undefined;
}
