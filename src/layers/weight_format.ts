/**
 * How weights of a layer are stored, as float32 or in codes: the arguments, the shapes of codes and scales, and what
 * ops take.
 */
import type {Tensor} from '@tensorflow/tfjs-core';
import {assert, checkBoolean, checkOneOf, describeValue} from '../arguments/checks';
import {DEFAULT_GROUP_SIZE, defaultScaleFormat} from '../arguments/quantization';
import {assertZeroPoint, formatNames, scaleFormatNames, sizeOfGroups} from '../arguments/quantized_weights';
import {
  encodingOf,
  float32Encoding,
  type QuantizedFormat,
  quantizedFormats,
  quantizedShapes,
  type QuantizedWeights,
  type ScaleFormat,
  type WeightEncoding,
} from '../contract/quantized_weights';
import {type WeightSpec, zeroInitializer} from './weight_parts';

/** Null for what a format does not have. */
export type WeightFormat = {
  format: 'float32' | QuantizedFormat;
  groupSize: number | null;
  scaleFormat: ScaleFormat | null;
  zeroPoint: number | null;
  hasOffsets: boolean;
};

/** What the arguments of a layer are called. */
export type FormatArgNames = {readonly [Field in keyof WeightFormat]: string};

/** The arguments by the layer's names, as its config has them. */
export type NamedFormat<Names extends FormatArgNames> = {
  [Field in keyof WeightFormat as Names[Field]]: WeightFormat[Field];
};

/** Checks the arguments of a layer, and fills in their defaults. */
export function checkWeightFormat<Names extends FormatArgNames>(
  args: object,
  names: Names,
  opName: string,
): NamedFormat<Names> {
  const given = args as {readonly [argName: string]: unknown};
  const formats = ['float32', ...formatNames] as const;
  const format = checkOneOf(
    (given[names.format] ?? 'float32') as WeightFormat['format'],
    formats,
    names.format,
    opName,
  );
  const hasOffsets = checkBoolean(given[names.hasOffsets] as boolean | null, names.hasOffsets, opName);
  const {hasScales, zeroPoint} =
    format === 'float32' ? {hasScales: false, zeroPoint: undefined} : quantizedFormats[format];
  const assertNone = (name: string, isGiven: boolean, what: string) =>
    assert(!isGiven, opName, () => `${name} must not be given for ${names.format} '${format}', which has no ${what}.`);
  if (!hasScales) {
    assertNone(names.groupSize, given[names.groupSize] != null, 'scales');
    assertNone(names.scaleFormat, given[names.scaleFormat] != null, 'scales');
  }
  if (zeroPoint == null) {
    assertNone(names.zeroPoint, given[names.zeroPoint] != null, 'zero point');
    assertNone(names.hasOffsets, hasOffsets, 'offsets');
  }
  const checked: WeightFormat = {format, groupSize: null, scaleFormat: null, zeroPoint: null, hasOffsets};
  if (format !== 'float32' && hasScales) {
    const {[names.groupSize]: groupSize, [names.scaleFormat]: scaleFormat} = given;
    checked.groupSize = checkGroupSize((groupSize ?? DEFAULT_GROUP_SIZE) as number, names.groupSize, opName);
    checked.scaleFormat = checkOneOf(
      (scaleFormat ?? defaultScaleFormat(format)) as ScaleFormat,
      scaleFormatNames,
      names.scaleFormat,
      opName,
    );
  }
  if (format !== 'float32' && zeroPoint != null) {
    checked.zeroPoint = hasOffsets
      ? assertNoZeroPoint(given, names, opName)
      : checkZeroPoint((given[names.zeroPoint] ?? zeroPoint) as number, format, names.zeroPoint, opName);
  }
  const fields = Object.keys(checked) as Array<keyof WeightFormat>;
  return Object.fromEntries(fields.map((field) => [names[field], checked[field]])) as NamedFormat<Names>;
}

/** Asserts a multiple of 16. It may not be C, as in the ops: weights of a layer have different numbers of inputs. */
export function checkGroupSize(groupSize: number, argName: string, opName: string): number {
  assert(
    Number.isInteger(groupSize) && groupSize >= 16 && groupSize % 16 === 0,
    opName,
    () => `${argName} must be a multiple of 16, but is ${describeValue(groupSize)}.`,
  );
  return groupSize;
}

function assertNoZeroPoint(
  given: {readonly [argName: string]: unknown},
  {zeroPoint, hasOffsets}: FormatArgNames,
  opName: string,
): null {
  assert(
    given[zeroPoint] == null,
    opName,
    () => `${zeroPoint} must not be given with ${hasOffsets}, but is ${describeValue(given[zeroPoint])}.`,
  );
  return null;
}

function checkZeroPoint(zeroPoint: number, format: QuantizedFormat, argName: string, opName: string): number {
  assertZeroPoint(zeroPoint, format, argName, opName);
  return zeroPoint;
}

/** The format that the arguments of a layer say. */
export function weightFormatOf<Names extends FormatArgNames>(args: NamedFormat<Names>, names: Names): WeightFormat {
  const given = args as {readonly [argName: string]: unknown};
  const fields = Object.keys(names) as Array<keyof WeightFormat>;
  return Object.fromEntries(fields.map((field) => [field, given[names[field]]])) as WeightFormat;
}

/** Asserts that rows of `size` weights fill 32-bit words. */
export function assertWholeWords(size: number, format: WeightFormat['format'], argName: string, opName: string): void {
  if (format !== 'float32') {
    const perWord = 32 / quantizedFormats[format].bits;
    assert(
      size % perWord === 0,
      opName,
      () => `${argName} must be a multiple of ${perWord} for ${format}, whole words, but is ${size}.`,
    );
  }
}

/** How ops and kernels know weights with `numIn` inputs. */
export function weightEncodingOf(weightFormat: WeightFormat, numIn: number): WeightEncoding {
  const {format, groupSize, scaleFormat, zeroPoint, hasOffsets} = weightFormat;
  return format === 'float32'
    ? float32Encoding
    : encodingOf<WeightEncoding>({
        format,
        groupSize: sizeOfGroups(groupSize ?? 0, numIn),
        scaleFormat: scaleFormat ?? 'float32',
        zeroPoint: zeroPoint ?? 0,
        hasOffsets,
      });
}

/** The names that a weight's codes, scales and offsets have in a layer. */
export type CodesOf<Name extends string> = `${Name}_${'codes' | 'scales' | 'offsets'}`;

/** The weights that stand for `name` [L, D, C] in a format other than float32. They are 0 until they are set. */
export function codesSpecs<Name extends string>(
  name: Name,
  shape: number[],
  weightFormat: WeightFormat,
): Array<WeightSpec<CodesOf<Name>>> {
  const encoding = weightEncodingOf(weightFormat, shape[2]);
  const shapes = quantizedShapes(shape, encoding as WeightEncoding & {format: QuantizedFormat});
  const frozen = {initializer: zeroInitializer, trainable: false};
  const codes = {name: `${name}_codes` as const, shape: shapes.codes, dtype: 'int32' as const, ...frozen};
  if (weightFormat.scaleFormat == null) {
    return [codes];
  }
  const dtype = weightFormat.scaleFormat === 'float32' ? 'float32' : 'int32';
  const scales = {name: `${name}_scales` as const, shape: shapes.scales, dtype, ...frozen} as const;
  const offsets = {name: `${name}_offsets` as const, shape: shapes.scales, dtype, ...frozen} as const;
  return weightFormat.hasOffsets ? [codes, scales, offsets] : [codes, scales];
}

/** The codes of `name` as the ops take them. */
export function quantizedWeightsIn<Name extends string>(
  name: Name,
  {format, groupSize, scaleFormat, zeroPoint}: WeightFormat,
  read: (name: CodesOf<Name>) => Tensor | undefined,
): QuantizedWeights {
  const codes = read(`${name}_codes`)!;
  const [numExperts, numOut, numWords] = codes.shape;
  const quantizedFormat = format as QuantizedFormat;
  return {
    format: quantizedFormat,
    shape: [numExperts, numOut, (numWords * 32) / quantizedFormats[quantizedFormat].bits],
    codes,
    groupSize: groupSize ?? undefined,
    scales: read(`${name}_scales`),
    scaleFormat: scaleFormat ?? undefined,
    zeroPoint: zeroPoint ?? undefined,
    offsets: read(`${name}_offsets`),
  };
}
