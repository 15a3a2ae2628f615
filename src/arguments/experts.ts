/** The arguments that the ops on experts share: weights, biases and the activation. */
import {
  expandDims,
  Tensor,
  type Tensor1D,
  type Tensor2D,
  type Tensor3D,
  type TensorLike,
  util,
} from '@tensorflow/tfjs-core';
import type {
  MoeActivation,
  MoeActivationAttrs,
  MoeGateUp,
  MoeKernelActivation,
  MoeWeightFormat,
} from '../contract/kernel_names';
import {
  assert,
  assertNumExperts,
  assertRank,
  checkBoolean,
  checkCount,
  checkOneOf,
  checkOptions,
  convertToOptionalTensor,
  convertToTensor,
  describeValue,
} from './checks';
import type {ExpertWeights} from '../contract/expert_weights';
import {codesPerWord, float32Encoding, type QuantizedWeights} from '../contract/quantized_weights';
import {convertQuantizedWeights, isQuantized} from './quantized_weights';
import type {MoeIndices} from './routing';

/**
 * Weights of experts, in float32 or as packed codes: in one piece, or in several that are read as their concatenation
 * along axis 0.
 */
export type MoeExpertWeights = Tensor | TensorLike | Tensor[] | QuantizedWeights | QuantizedWeights[];

export type ActivationOptions = {
  /**
   * One of these names:
   * - `'linear'`: the default of moeGroupedMatMul.
   * - `'silu'` (or `'swish'`): the default of fusedExperts and fusedMoe.
   * - `'relu'`.
   * - `'relu2'`: the square of relu.
   * - `'gelu'`: GELU by erf.
   * - `'geluTanh'` (or `'geluNew'`): GELU by tanh.
   * - `'swigluOai'`, for gated experts: min(g, limit) * sigmoid(alpha * min(g, limit)) * (clamp(u, -limit, limit) + 1).
   */
  activation?: MoeActivation | null;
  /**
   * Whether the columns are gates g and ups u, so that the result is activation(g) * u. Default true in fusedExperts
   * and fusedMoe, false in moeGroupedMatMul.
   */
  gated?: boolean | null;
  /**
   * `'concatenated'`: all gates, then all ups. `'interleaved'`: the gate in column 2i, the up in column 2i+1. The
   * default is `'interleaved'` for `'swigluOai'`, as gpt-oss is published, and else `'concatenated'`.
   */
  gateUp?: MoeGateUp | null;
  /** Alpha of `'swigluOai'`. Default 1.702. */
  swigluAlpha?: number | null;
  /**
   * Limit of `'swigluOai'`, default 7. If it is given with `'silu'`, gated experts are clamped too, as in DeepSeek-V4:
   * silu(min(g, limit)) * clamp(u, -limit, limit).
   */
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

/** The alpha and limit of gpt-oss. */
export const SWIGLU_ALPHA = 1.702;

export const SWIGLU_LIMIT = 7;

/** The activation and its parameters, under the name that kernels know. */
export function checkActivation(given: Partial<ActivationOptions>, opName: string): MoeActivationAttrs {
  const activation = checkOneOf(given.activation ?? 'linear', moeActivations, 'activation', opName);
  const gated = checkBoolean(given.gated, 'gated', opName);
  assert(
    gated || activation !== 'swigluOai',
    opName,
    () => "activation 'swigluOai' needs gated experts: pass gated: true.",
  );
  const swigluAlpha = given.swigluAlpha ?? SWIGLU_ALPHA;
  assert(
    Number.isFinite(swigluAlpha),
    opName,
    () => `swigluAlpha must be a finite number, but is ${describeValue(swigluAlpha)}.`,
  );
  const limit = given.swigluLimit ?? SWIGLU_LIMIT;
  assert(
    Number.isFinite(limit) && limit > 0,
    opName,
    () => `swigluLimit must be a positive number, but is ${describeValue(limit)}.`,
  );
  const name = kernelActivations[activation];
  const isClamped = gated && (name === 'swigluOai' || (name === 'silu' && given.swigluLimit != null));
  // The weights of gpt-oss are published interleaved.
  const gateUp = given.gateUp ?? (activation === 'swigluOai' ? 'interleaved' : 'concatenated');
  return {
    activation: name,
    gated,
    gateUp: checkOneOf(gateUp, ['concatenated', 'interleaved'], 'gateUp', opName),
    swigluAlpha,
    swigluLimit: isClamped ? limit : Infinity,
  };
}

/** The names of one matmul's weights, and of the rows that determine how many columns the weights read. */
type WeightArgument = {
  argName: string;
  /** The axes of outputs and inputs, such as 'D' and 'C'. */
  out: string;
  in: string;
  numIn: number;
  /** The name and shape of the rows, which have `numIn` columns. */
  rows: string;
};

/**
 * float32 [L, out, in], or [L, in, out] for 'inOut', or quantized: in one piece, or in parts that are concatenated
 * along axis 0.
 */
export function convertExpertWeights(
  weights: MoeExpertWeights,
  argument: WeightArgument,
  weightFormat: MoeWeightFormat,
  opName: string,
): ExpertWeights {
  return isQuantized(weights)
    ? convertCodes(weights, argument, weightFormat, opName)
    : convertFloats(weights, argument, weightFormat, opName);
}

function convertCodes(
  weights: QuantizedWeights | QuantizedWeights[],
  {argName, numIn, rows, ...axes}: WeightArgument,
  weightFormat: MoeWeightFormat,
  opName: string,
): ExpertWeights {
  const {parts, encoding, numExperts, numOut, ...$weights} = convertQuantizedWeights(
    weights,
    argName,
    weightFormat,
    opName,
  );
  assert(
    $weights.numIn === numIn,
    opName,
    () =>
      `${argName}.shape must be [L, ${axes.out}, ${axes.in}] with ${axes.in} = ${numIn} for ${rows}, but is ` +
      `[${[numExperts, numOut, $weights.numIn]}].`,
  );
  return {parts: parts.map(({codes, ...scaling}) => ({weights: codes, ...scaling})), encoding, numExperts, numOut};
}

function convertFloats(
  weights: Tensor | TensorLike | Tensor[],
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
      () =>
        `${argName}[${p}] must have the shape of ${argName}[0] [${first.shape}] except for axis 0, but is ` +
        `[${part.shape}].`,
    );
  });
  return {
    parts: parts.map((part) => ({weights: part})),
    encoding: float32Encoding,
    numExperts: parts.reduce((count, {shape}) => count + shape[0], 0),
    numOut: first.shape[weightFormat === 'outIn' ? 1 : 2],
  };
}

/** float32 [out, in], or [in, out] for 'inOut', as the weights of a single expert. */
function convertSharedWeights(
  weights: Tensor | TensorLike,
  argument: WeightArgument,
  weightFormat: MoeWeightFormat,
  opName: string,
): ExpertWeights {
  assert(
    !isQuantized(weights),
    opName,
    () => `${argument.argName} must be float32, but is quantized. moeDequantizeWeights makes float32 of it.`,
  );
  const $weights = convertWeights(weights, argument, '', weightFormat, opName);
  const [first, second] = $weights.shape;
  return {
    parts: [{weights: expandDims($weights, 0)}],
    encoding: float32Encoding,
    numExperts: 1,
    numOut: weightFormat === 'outIn' ? first : second,
  };
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

/** The bias, float32 [L, out], or undefined if it is not given; `axes` names its axes. */
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

/** The weights of w2 . act(w1 . x + b1) + b2, for one expert or several. */
export type FeedForward = {
  w1: ExpertWeights;
  w2: ExpertWeights;
  w1Bias?: Tensor2D;
  w2Bias?: Tensor2D;
  intermediateSize: number;
};

/** The experts of a call, converted and checked. */
export type Experts = FeedForward & {
  numExperts: number;
  expertMap?: Tensor1D;
  numZeroExperts: number;
  weightFormat: MoeWeightFormat;
  activation: MoeActivationAttrs;
  applyRouterWeightOnInput: boolean;
  /** One expert for every token; its gate is [H, 1]. */
  shared?: FeedForward & {gate?: Tensor2D};
};

/** The experts for every token, given as one expert of their total width F. */
export type MoeSharedExperts = {
  /** float32 [2F, H]; [F, H] with `gated: false`; [H, 2F] and [H, F] with `weightFormat: 'inOut'`. */
  w1: Tensor | TensorLike;
  /** float32 [H, F]; [F, H] with `weightFormat: 'inOut'`. */
  w2: Tensor | TensorLike;
  /**
   * float32 [H, 1], for either weightFormat. The shared output is multiplied by sigmoid(x . gate). Default: no gate.
   */
  gate?: Tensor | TensorLike | null;
};

export type FusedExpertsOptions = ActivationOptions & {
  /**
   * `'outIn'`, the default: an expert's weights have a row for each output, as in files of vLLM, PyTorch and Hugging
   * Face. `'inOut'`: they have a row for each input, w1 [L, H, 2I] and w2 [L, I, H], as in tf.layers and gpt-oss.
   */
  weightFormat?: MoeWeightFormat | null;
  /** float32 [L, 2I]; [L, I] with `gated: false`. Default: none. */
  w1Bias?: Tensor | TensorLike | null;
  /** float32 [L, H]. Default: none. */
  w2Bias?: Tensor | TensorLike | null;
  /**
   * int32 [E]: the local index of each global expert id, -1 for an expert that is not local. The results of all shards
   * add up to the result of the whole model. Default: all experts are local, E = L.
   */
  expertMap?: MoeIndices | null;
  /**
   * Z, the number of zero experts, whose output is the token itself, as in LongCat-Flash: they have the ids E to E+Z-1
   * and no weights, and E is as without them. If the results of several shards are added, pass this to one shard only.
   * The expertMap of each other shard then has E+Z entries, with -1 for the zero experts. Default 0.
   */
  numZeroExperts?: number | null;
  /** Multiply rows by their router weights before w1 instead of after w2, as Llama-4 does. Default false. */
  applyRouterWeightOnInput?: boolean | null;
  /**
   * Experts for every token, added last. If the results of several shards are added, pass them to one shard only.
   * Default: none.
   */
  sharedExperts?: MoeSharedExperts | null;
};

export const fusedExpertsOptionNames = [
  ...activationOptionNames,
  'weightFormat',
  'w1Bias',
  'w2Bias',
  'expertMap',
  'numZeroExperts',
  'applyRouterWeightOnInput',
  'sharedExperts',
] as const;

/** The arguments that routed and shared experts of a call share. */
type CommonArguments = {xShape: number[]; gated: boolean; weightFormat: MoeWeightFormat};

type PairNames<Weights> = {
  w1: string;
  w2: string;
  /** The axis between w1 and w2. It is twice as long in w1 if w1 has gates. */
  width: string;
  convert: (weights: Weights, argument: WeightArgument, format: MoeWeightFormat, opName: string) => ExpertWeights;
  shapeOf: (weights: ExpertWeights) => number[];
};

const routedPair: PairNames<MoeExpertWeights> = {
  w1: 'w1',
  w2: 'w2',
  width: 'I',
  convert: convertExpertWeights,
  shapeOf,
};

/** The shape that an op's caller knows: of the first part, or of the weights that its codes stand for. */
function shapeOf({parts: [{weights}], encoding}: ExpertWeights): number[] {
  const [numExperts, ...sizes] = weights.shape;
  return [numExperts, ...sizes.slice(0, -1), sizes[sizes.length - 1] * codesPerWord(encoding)];
}

export const sharedPair: PairNames<Tensor | TensorLike> = {
  w1: 'sharedExperts.w1',
  w2: 'sharedExperts.w2',
  width: 'F',
  convert: convertSharedWeights,
  shapeOf: (weights) => shapeOf(weights).slice(1),
};

function convertPair<Weights>(
  w1: Weights,
  w2: Weights,
  {width, convert, shapeOf, ...names}: PairNames<Weights>,
  {xShape, gated, weightFormat}: CommonArguments,
  opName: string,
): Pick<Experts, 'w1' | 'w2' | 'intermediateSize'> {
  const hiddenSize = xShape[xShape.length - 1];
  const out = gated ? `2${width}` : width;
  const $w1 = convert(
    w1,
    {argName: names.w1, out, in: 'H', numIn: hiddenSize, rows: `hiddenStates [${xShape}]`},
    weightFormat,
    opName,
  );
  assert(
    !gated || $w1.numOut % 2 === 0,
    opName,
    () =>
      `${names.w1} must have an even ${out} when gated (a gate and an up for each of ${width}), but ${out} = ` +
      `${$w1.numOut}.`,
  );
  const intermediateSize = gated ? $w1.numOut / 2 : $w1.numOut;
  const $w2 = convert(
    w2,
    {argName: names.w2, out: 'H', in: width, numIn: intermediateSize, rows: `${names.w1} [${shapeOf($w1)}]`},
    weightFormat,
    opName,
  );
  assert(
    $w2.numOut === hiddenSize,
    opName,
    () =>
      `${names.w2} must have as many outputs as hiddenStates has columns (H = ${hiddenSize}), but has ${$w2.numOut}.`,
  );
  return {w1: $w1, w2: $w2, intermediateSize};
}

function convertSharedExperts(
  shared: MoeSharedExperts | null | undefined,
  common: CommonArguments,
  opName: string,
): Experts['shared'] {
  if (shared == null) {
    return undefined;
  }
  const {w1, w2, gate} = checkOptions(shared, ['w1', 'w2', 'gate'], opName, 'sharedExperts') as MoeSharedExperts;
  const pair = convertPair(w1, w2, sharedPair, common, opName);
  const hiddenSize = pair.w2.numOut;
  const $gate = convertToOptionalTensor(gate, 'sharedExperts.gate', opName, ['float32']) as Tensor2D | undefined;
  assert(
    $gate == null || util.arraysEqual($gate.shape, [hiddenSize, 1]),
    opName,
    () => `sharedExperts.gate must be [H, 1] = [${hiddenSize},1], but is [${$gate!.shape}].`,
  );
  return {...pair, gate: $gate};
}

/** The columns that routerLogits or a router's kernel must have, in the words of an error. */
export function describeRouted({numExperts, numZeroExperts, expertMap}: Experts): string {
  const source = expertMap == null ? 'the number of experts of w1' : 'the length of expertMap';
  return numZeroExperts === 0
    ? `a column for each expert (E = ${numExperts}, ${source})`
    : `a column for each expert and each zero expert (E = ${numExperts}, ${source}, and Z = ${numZeroExperts})`;
}

/** The arguments of fusedExperts that describe the experts; errors name `opName`, the op that was called. */
export function convertExperts(
  xShape: number[],
  w1: MoeExpertWeights,
  w2: MoeExpertWeights,
  given: Partial<FusedExpertsOptions>,
  opName: string,
): Experts {
  const activation = checkActivation(
    {...given, activation: given.activation ?? 'silu', gated: given.gated ?? true},
    opName,
  );
  const common = {xShape, gated: activation.gated, weightFormat: checkWeightFormat(given.weightFormat, opName)};
  const experts = convertPair(w1, w2, routedPair, common, opName);
  const numLocalExperts = experts.w1.numExperts;
  assert(
    experts.w2.numExperts === numLocalExperts,
    opName,
    () => `w2 must have as many experts as w1 (L = ${numLocalExperts}), but has ${experts.w2.numExperts}.`,
  );
  const expertMap = convertToOptionalTensor(given.expertMap, 'expertMap', opName, ['int32']) as Tensor1D | undefined;
  if (expertMap != null) {
    assertRank(expertMap, 'expertMap', opName, '[E]');
    assert(
      expertMap.shape[0] >= numLocalExperts,
      opName,
      () =>
        `expertMap must have an entry for each expert, at least as many as are local (L = ${numLocalExperts}), but has ` +
        `${expertMap.shape[0]}.`,
    );
  }
  const numExperts = expertMap?.shape[0] ?? numLocalExperts;
  const numZeroExperts = checkCount(given.numZeroExperts ?? 0, 'numZeroExperts', opName);
  assertNumExperts(numExperts + numZeroExperts, `the number of experts (E${numZeroExperts > 0 ? '+Z' : ''})`, opName);
  return {
    ...experts,
    w1Bias: convertExpertBias(given.w1Bias, 'w1Bias', activation.gated ? '[L, 2I]' : '[L, I]', experts.w1, opName),
    w2Bias: convertExpertBias(given.w2Bias, 'w2Bias', '[L, H]', experts.w2, opName),
    numExperts,
    expertMap,
    numZeroExperts,
    weightFormat: common.weightFormat,
    activation,
    applyRouterWeightOnInput: checkBoolean(given.applyRouterWeightOnInput, 'applyRouterWeightOnInput', opName),
    shared: convertSharedExperts(given.sharedExperts, common, opName),
  };
}
