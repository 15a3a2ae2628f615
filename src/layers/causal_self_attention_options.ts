/** The arguments of the attention layer: their types, their checks and their defaults. */
import type {layers} from '@tensorflow/tfjs-layers';
import {assert, assertPositiveInteger, checkBoolean, checkOneOf, checkOptions} from '../arguments/checks';
import type {QuantizedFormat, ScaleFormat} from '../contract/quantized_weights';
import {checkArgsOfEveryLayer, type LayerArgs, layerArgNames} from './layer_arguments';
import {checkPositive} from './numbers';
import {checkRotaryScaling, type RotaryScaling} from './rotary_embedding';
import {assertWholeWords, checkWeightFormat} from './weight_format';

type DenseArgs = Parameters<typeof layers.dense>[0];

/** What queries and keys are normalized over: each head, or all heads together. */
export type QueryKeyNormalization = 'head' | 'all';

export type ProjectionFormatArgs = {
  /**
   * How the kernels are stored. Default `'float32'`. Kernels of any other format are not trainable, and 0 until a file
   * or setWeights sets them.
   */
  projectionFormat?: 'float32' | QuantizedFormat | null;
  /**
   * How many inputs share a scale: a multiple of 16. A number above H and N*D gives one scale a row. Default 32. Only
   * for formats with scales.
   */
  projectionGroupSize?: number | null;
  /**
   * How scales and offsets are stored. Default `'float32'`, and `'e8m0'` for `'fp4'`. Only for formats with scales.
   */
  projectionScaleFormat?: ScaleFormat | null;
  /** The code that stands for 0. Default 8 for `'int4'`, 128 for `'int8'`. Only for integers without offsets. */
  projectionZeroPoint?: number | null;
  /** Whether groups have offsets, the values of code 0, in place of a zero point. Default false. Only for integers. */
  useProjectionOffsets?: boolean | null;
};

export const projectionFormatNames = {
  format: 'projectionFormat',
  groupSize: 'projectionGroupSize',
  scaleFormat: 'projectionScaleFormat',
  zeroPoint: 'projectionZeroPoint',
  hasOffsets: 'useProjectionOffsets',
} as const;

export type CausalSelfAttentionArgs = LayerArgs &
  ProjectionFormatArgs & {
    /** N, the number of heads. */
    numHeads: number;
    /** M, the number of heads of keys and values. N is a multiple of M. Default N. */
    numKeyValueHeads?: number | null;
    /** D, the size of a head, an even number. Default H / N. */
    headDim?: number | null;
    /** The base of the rotary embedding's wavelengths. Default 10000. */
    rotaryBase?: number | null;
    /** How the rotary embedding is scaled to long contexts, as transformers' `rope_parameters`. Default: not at all. */
    rotaryScaling?: RotaryScaling | null;
    /** Whether queries, keys and values have biases. Default false. */
    useBias?: boolean | null;
    /** Whether the output has a bias. Default false. */
    useOutputBias?: boolean | null;
    /** RMS normalization of queries and keys before the rotary embedding. Default: none. */
    queryKeyNormalization?: QueryKeyNormalization | null;
    /** The epsilon of that normalization. Default 1e-6. */
    normalizationEpsilon?: number | null;
    /** A position sees itself and w - 1 positions before it. Default: all positions before it. */
    slidingWindow?: number | null;
    /** Whether each head has a sink: a logit that takes part in its softmax, without a value. Default false. */
    useSinks?: boolean | null;
    /** The factor of scores. Default D ** -0.5. */
    scale?: number | null;
    /** The initializer of the kernels. Default `'glorotNormal'`. */
    kernelInitializer?: DenseArgs['kernelInitializer'] | null;
    /** The initializer of biases and sinks. Default `'zeros'`. */
    biasInitializer?: DenseArgs['biasInitializer'] | null;
    /** The regularizer of the kernels. */
    kernelRegularizer?: DenseArgs['kernelRegularizer'] | null;
    /** The regularizer of the biases. */
    biasRegularizer?: DenseArgs['biasRegularizer'] | null;
    /** The constraint of the kernels. */
    kernelConstraint?: DenseArgs['kernelConstraint'] | null;
    /** The constraint of the biases. */
    biasConstraint?: DenseArgs['biasConstraint'] | null;
  };

/** Which argument of tf.layers.dense each one is like. */
export const weightArgParts = {
  kernelInitializer: 'kernelInitializer',
  biasInitializer: 'biasInitializer',
  kernelRegularizer: 'kernelRegularizer',
  biasRegularizer: 'biasRegularizer',
  kernelConstraint: 'kernelConstraint',
  biasConstraint: 'biasConstraint',
} as const;

const argNames = [
  'numHeads',
  'numKeyValueHeads',
  'headDim',
  'rotaryBase',
  'rotaryScaling',
  'useBias',
  'useOutputBias',
  'queryKeyNormalization',
  'normalizationEpsilon',
  'slidingWindow',
  'useSinks',
  'scale',
  'projectionFormat',
  'projectionGroupSize',
  'projectionScaleFormat',
  'projectionZeroPoint',
  'useProjectionOffsets',
  ...(Object.keys(weightArgParts) as Array<keyof typeof weightArgParts>),
  ...layerArgNames,
] as const;

export type CausalSelfAttentionOptions = ReturnType<typeof checkArgs>;

/** The layer's own options, each with a value or null, as a config holds them. */
export function checkArgs(args: CausalSelfAttentionArgs, opName: string) {
  type Known = CausalSelfAttentionArgs & {customObjects?: unknown};
  assert(args != null, opName, () => 'args must have numHeads, but are not given.');
  const given = checkOptions<Known>(args, argNames, opName) as CausalSelfAttentionArgs;
  const {numHeads} = given;
  assertPositiveInteger(numHeads, 'numHeads', opName);
  const numKeyValueHeads = given.numKeyValueHeads ?? numHeads;
  assertPositiveInteger(numKeyValueHeads, 'numKeyValueHeads', opName);
  assert(
    numHeads % numKeyValueHeads === 0,
    opName,
    () => `numHeads must be a multiple of numKeyValueHeads (${numKeyValueHeads}), but is ${numHeads}.`,
  );
  const headDim = given.headDim ?? null;
  if (headDim != null) {
    assertHeadDim(headDim, 'headDim', opName);
  }
  const rotaryBase = checkPositive(given.rotaryBase ?? 10000, 'rotaryBase', opName);
  assert(rotaryBase > 1, opName, () => `rotaryBase must be more than 1, but is ${rotaryBase}.`);
  const slidingWindow = given.slidingWindow ?? null;
  if (slidingWindow != null) {
    assertPositiveInteger(slidingWindow, 'slidingWindow', opName);
  }
  const {queryKeyNormalization: normalization, scale} = given;
  const normalizations: QueryKeyNormalization[] = ['head', 'all'];
  checkArgsOfEveryLayer(given, opName);
  return {
    numHeads,
    numKeyValueHeads,
    headDim,
    rotaryBase,
    rotaryScaling: checkRotaryScaling(given.rotaryScaling, opName),
    useBias: checkBoolean(given.useBias, 'useBias', opName),
    useOutputBias: checkBoolean(given.useOutputBias, 'useOutputBias', opName),
    queryKeyNormalization:
      normalization == null ? null : checkOneOf(normalization, normalizations, 'queryKeyNormalization', opName),
    normalizationEpsilon: checkPositive(given.normalizationEpsilon ?? 1e-6, 'normalizationEpsilon', opName),
    slidingWindow,
    useSinks: checkBoolean(given.useSinks, 'useSinks', opName),
    scale: scale == null ? null : checkPositive(scale, 'scale', opName),
    ...checkWeightFormat(given, projectionFormatNames, opName),
  };
}

/** D, given or by default, for an input of H columns. */
export function headDimOf({numHeads, headDim}: CausalSelfAttentionOptions, hiddenSize: number, opName: string): number {
  if (headDim != null) {
    return headDim;
  }
  assert(
    hiddenSize % numHeads === 0,
    opName,
    () =>
      `the last axis of the input (H) must be a multiple of numHeads (${numHeads}) without headDim, but is ${hiddenSize}.`,
  );
  assertHeadDim(hiddenSize / numHeads, 'headDim, by default H / numHeads,', opName);
  return hiddenSize / numHeads;
}

/** Asserts that rows of the kernels fill whole words: of H inputs, and of N*D. */
export function assertWholeKernels(
  {projectionFormat}: Pick<CausalSelfAttentionOptions, 'projectionFormat'>,
  hiddenSize: number,
  querySize: number,
  opName: string,
): void {
  assertWholeWords(hiddenSize, projectionFormat, 'the last axis of the input (H)', opName);
  assertWholeWords(querySize, projectionFormat, 'numHeads * headDim', opName);
}

function assertHeadDim(headDim: number, argName: string, opName: string): void {
  assertPositiveInteger(headDim, argName, opName);
  assert(
    headDim % 2 === 0,
    opName,
    () => `${argName} must be even, as the rotary embedding turns pairs, but is ${headDim}.`,
  );
}
