/** How the experts of the layer are stored: the arguments, the shapes of codes and scales, and what ops take. */
import type {Tensor} from '@tensorflow/tfjs-core';
import {assert, checkBoolean, checkOneOf, describeValue} from '../arguments/checks';
import {DEFAULT_GROUP_SIZE, defaultScaleFormat} from '../arguments/quantization';
import {assertZeroPoint, formatNames, scaleFormatNames} from '../arguments/quantized_weights';
import type {LayerWeightName} from '../contract/block_weights';
import {
  encodingOf,
  type QuantizedEncoding,
  type QuantizedFormat,
  quantizedFormats,
  quantizedShapes,
  type QuantizedWeights,
  type ScaleFormat,
} from '../contract/quantized_weights';

export type ExpertFormatArgs = {
  /**
   * How the weights of the experts are stored. Default `'float32'`. The experts of any other format are not trainable,
   * and 0 until a file, setWeights or quantizeMixtureOfExperts sets them.
   */
  expertFormat?: 'float32' | QuantizedFormat | null;
  /**
   * How many inputs share a scale: a multiple of 16. A number above H and I gives one scale a row. Default 32. Only for
   * formats with scales.
   */
  expertGroupSize?: number | null;
  /**
   * How scales and offsets are stored. Default `'float32'`, and `'e8m0'` for `'fp4'`. Only for formats with scales.
   */
  expertScaleFormat?: ScaleFormat | null;
  /** The code that stands for 0. Default 8 for `'int4'`, 128 for `'int8'`. Only for integers without offsets. */
  expertZeroPoint?: number | null;
  /** Whether groups have offsets, the values of code 0, in place of a zero point. Default false. Only for integers. */
  useExpertOffsets?: boolean | null;
};

/** Null for what a format does not have. */
export type ExpertFormat = {
  expertFormat: 'float32' | QuantizedFormat;
  expertGroupSize: number | null;
  expertScaleFormat: ScaleFormat | null;
  expertZeroPoint: number | null;
  useExpertOffsets: boolean;
};

export const expertFormatArgNames = [
  'expertFormat',
  'expertGroupSize',
  'expertScaleFormat',
  'expertZeroPoint',
  'useExpertOffsets',
] as const;

export function checkExpertFormat(given: ExpertFormatArgs & {intermediateSize: number}, opName: string): ExpertFormat {
  const expertFormat = checkOneOf(given.expertFormat ?? 'float32', ['float32', ...formatNames], 'expertFormat', opName);
  const useExpertOffsets = checkBoolean(given.useExpertOffsets, 'useExpertOffsets', opName);
  const {hasScales, zeroPoint} =
    expertFormat === 'float32' ? {hasScales: false, zeroPoint: undefined} : quantizedFormats[expertFormat];
  const assertNone = (name: keyof ExpertFormatArgs, isGiven: boolean, what: string) =>
    assert(
      !isGiven,
      opName,
      () => `${name} must not be given for expertFormat '${expertFormat}', which has no ${what}.`,
    );
  if (!hasScales) {
    assertNone('expertGroupSize', given.expertGroupSize != null, 'scales');
    assertNone('expertScaleFormat', given.expertScaleFormat != null, 'scales');
  }
  if (zeroPoint == null) {
    assertNone('expertZeroPoint', given.expertZeroPoint != null, 'zero point');
    assertNone('useExpertOffsets', useExpertOffsets, 'offsets');
  }
  if (expertFormat === 'float32') {
    return {expertFormat, expertGroupSize: null, expertScaleFormat: null, expertZeroPoint: null, useExpertOffsets};
  }
  assertWholeWords(given.intermediateSize, expertFormat, 'intermediateSize', opName);
  return {
    expertFormat,
    expertGroupSize: hasScales
      ? checkGroupSize(given.expertGroupSize ?? DEFAULT_GROUP_SIZE, 'expertGroupSize', opName)
      : null,
    expertScaleFormat: hasScales
      ? checkOneOf(
          given.expertScaleFormat ?? defaultScaleFormat(expertFormat),
          scaleFormatNames,
          'expertScaleFormat',
          opName,
        )
      : null,
    expertZeroPoint: zeroPoint == null ? null : checkZeroPoint(given, expertFormat, zeroPoint, opName),
    useExpertOffsets,
  };
}

/** Asserts a multiple of 16. It may not be C, as in the ops: w1 and w2 have different numbers of inputs. */
export function checkGroupSize(groupSize: number, argName: string, opName: string): number {
  assert(
    Number.isInteger(groupSize) && groupSize >= 16 && groupSize % 16 === 0,
    opName,
    () => `${argName} must be a multiple of 16, but is ${describeValue(groupSize)}.`,
  );
  return groupSize;
}

function checkZeroPoint(
  {expertZeroPoint, useExpertOffsets}: ExpertFormatArgs,
  format: QuantizedFormat,
  byDefault: number,
  opName: string,
): number | null {
  if (useExpertOffsets === true) {
    assert(
      expertZeroPoint == null,
      opName,
      () => `expertZeroPoint must not be given with useExpertOffsets, but is ${describeValue(expertZeroPoint)}.`,
    );
    return null;
  }
  assertZeroPoint(expertZeroPoint ?? byDefault, format, 'expertZeroPoint', opName);
  return expertZeroPoint ?? byDefault;
}

/** Asserts that an expert's rows of `size` weights fill 32-bit words. */
export function assertWholeWords(
  size: number,
  format: ExpertFormat['expertFormat'],
  argName: string,
  opName: string,
): void {
  if (format !== 'float32') {
    const perWord = 32 / quantizedFormats[format].bits;
    assert(
      size % perWord === 0,
      opName,
      () => `${argName} must be a multiple of ${perWord} for ${format}, whole words, but is ${size}.`,
    );
  }
}

type QuantizedSpec = {name: LayerWeightName; shape: number[]; dtype: 'float32' | 'int32'};

/** The weights that stand for `name` [L, D, C] in a format other than float32. */
export function quantizedSpecs(name: 'w1' | 'w2', shape: number[], format: ExpertFormat): QuantizedSpec[] {
  const shapes = quantizedShapes(shape, encodingFor(format));
  const codes: QuantizedSpec = {name: `${name}_codes`, shape: shapes.codes, dtype: 'int32'};
  if (format.expertScaleFormat == null) {
    return [codes];
  }
  const dtype = format.expertScaleFormat === 'float32' ? 'float32' : 'int32';
  const scales: QuantizedSpec = {name: `${name}_scales`, shape: shapes.scales, dtype};
  const offsets: QuantizedSpec = {name: `${name}_offsets`, shape: shapes.scales, dtype};
  return format.useExpertOffsets ? [codes, scales, offsets] : [codes, scales];
}

function encodingFor(format: ExpertFormat): QuantizedEncoding {
  return encodingOf({
    format: format.expertFormat as QuantizedFormat,
    groupSize: format.expertGroupSize ?? 0,
    scaleFormat: format.expertScaleFormat ?? 'float32',
    zeroPoint: format.expertZeroPoint ?? 0,
    hasOffsets: format.useExpertOffsets,
  });
}

/** `name` as the ops take it. */
export function expertWeights(
  name: 'w1' | 'w2',
  format: ExpertFormat,
  read: (name: LayerWeightName) => Tensor | undefined,
): Tensor | QuantizedWeights {
  const {expertFormat, expertGroupSize, expertScaleFormat, expertZeroPoint} = format;
  if (expertFormat === 'float32') {
    return read(name)!;
  }
  const codes = read(`${name}_codes`)!;
  const [numExperts, numOut, numWords] = codes.shape;
  return {
    format: expertFormat,
    shape: [numExperts, numOut, (numWords * 32) / quantizedFormats[expertFormat].bits],
    codes,
    groupSize: expertGroupSize ?? undefined,
    scales: read(`${name}_scales`),
    scaleFormat: expertScaleFormat ?? undefined,
    zeroPoint: expertZeroPoint ?? undefined,
    offsets: read(`${name}_offsets`),
  };
}
