/** Random quantized weights, with the float32 numbers that they stand for. */
import * as tf from '../../src/tf';
import {bitsPerCode, bitsPerScale, naiveDequantized, packed, scaleOf} from '../naive/quantized_weights';
import {lcg} from './routings';

export type QuantizedDraw = {
  format: tf.QuantizedFormat;
  /** Default: all inputs. Not for the 16-bit formats. */
  groupSize?: number;
  scaleFormat?: tf.ScaleFormat;
  zeroPoint?: number;
  hasOffsets?: boolean;
};

export const hasScales = (format: tf.QuantizedFormat): boolean => bitsPerCode[format] < 16;
export const isInteger = (format: tf.QuantizedFormat): boolean => format === 'int4' || format === 'int8';

export const nameOf = ({format, groupSize, scaleFormat, zeroPoint, hasOffsets}: QuantizedDraw): string =>
  [format, groupSize != null && `g${groupSize}`, scaleFormat, zeroPoint != null && `zero ${zeroPoint}`, hasOffsets && 'offsets']
    .filter(Boolean)
    .join(' ');

/** Codes as int32 [L, D, C*bits/32]. */
export function codesTensor(codes: ArrayLike<number>, format: tf.QuantizedFormat, [numExperts, numOut, numIn]: number[]): tf.Tensor3D {
  const bits = bitsPerCode[format];
  return tf.tensor3d(packed(codes, bits), [numExperts, numOut, (numIn * bits) / 32], 'int32');
}

/** Scales by their codes: float32 [L, D, G], or packed words. */
export function scalesTensor(codes: ArrayLike<number>, format: tf.ScaleFormat, shape: number[]): tf.Tensor {
  return format === 'float32'
    ? tf.tensor(Float32Array.from(codes, scaleOf.float32), shape)
    : tf.tensor1d(packed(codes, bitsPerScale[format]), 'int32');
}

/** A float of the format by the parts of its code: `exponents` of which the first is `lowest`, and a random mantissa. */
const randomFloat = (next: () => number, mantissaBits: number, lowest: number, exponents: number) =>
  (lowest + Math.floor(next() * exponents)) * 2 ** mantissaBits + Math.floor(next() * 2 ** mantissaBits);

/** A code whose number is finite, and at most about 2 in the 16-bit formats. */
const randomCode: Record<tf.QuantizedFormat, (next: () => number) => number> = {
  int4: (next) => Math.floor(16 * next()),
  int8: (next) => Math.floor(256 * next()),
  fp4: (next) => Math.floor(16 * next()),
  // All but NaN, and few of the large ones.
  float8: (next) => Math.floor(2 * next()) * 128 + Math.floor((next() < 0.9 ? 80 : 127) * next()),
  float16: (next) => Math.floor(2 * next()) * 2 ** 15 + randomFloat(next, 10, 0, 16),
  bfloat16: (next) => Math.floor(2 * next()) * 2 ** 15 + randomFloat(next, 7, 115, 13),
};

/** A positive scale of about 2^-6 to 2^-2, so that products of any format are of ordinary size. */
const randomScale: Record<tf.ScaleFormat, (next: () => number) => number> = {
  float32: (next) => randomFloat(next, 23, 121, 4),
  float16: (next) => randomFloat(next, 10, 9, 4),
  bfloat16: (next) => randomFloat(next, 7, 121, 4),
  e8m0: (next) => 121 + Math.floor(4 * next()),
};

/** The sign bit of scales that have one. */
const signOf: Record<tf.ScaleFormat, number> = {float32: 2 ** 31, float16: 2 ** 15, bfloat16: 2 ** 15, e8m0: 0};

export type Shape = [numExperts: number, numOut: number, numIn: number];

/** Quantized weights before they are packed. */
export type QuantizedNumbers = {
  draw: QuantizedDraw;
  shape: Shape;
  codes: number[];
  /** The codes of scales and offsets. Both are empty in the formats without scales. */
  scales: number[];
  offsets: number[];
};

export const scaleFormatOf = ({scaleFormat}: QuantizedDraw): tf.ScaleFormat => scaleFormat ?? 'float32';

export function randomNumbers(shape: Shape, draw: QuantizedDraw, next: () => number, scaleOfFormat = randomScale): QuantizedNumbers {
  const {format, hasOffsets} = draw;
  const scaleFormat = scaleFormatOf(draw);
  const codes = Array.from({length: tf.util.sizeFromShape(shape)}, () => randomCode[format](next));
  const numScales = hasScales(format) ? shape[0] * shape[1] * Math.ceil(shape[2] / (draw.groupSize ?? shape[2])) : 0;
  const random = (length: number, isSigned: boolean) =>
    Array.from({length}, () => scaleOfFormat[scaleFormat](next) + (isSigned && next() < 0.5 ? signOf[scaleFormat] : 0));
  return {draw, shape, codes, scales: random(numScales, isInteger(format)), offsets: random(hasOffsets ? numScales : 0, true)};
}

/** The float32 numbers of the weights, row-major. */
export function valuesOf({draw, shape, codes, scales, offsets}: QuantizedNumbers): Float32Array {
  const {format, zeroPoint, hasOffsets} = draw;
  const numbers = (given: number[]) => given.map(scaleOf[scaleFormatOf(draw)]);
  return Float32Array.from(
    naiveDequantized({
      format,
      shape,
      codes,
      ...(hasScales(format) && {groupSize: draw.groupSize ?? shape[2], scales: numbers(scales)}),
      zeroPoint: zeroPoint ?? (isInteger(format) && !hasOffsets ? 2 ** (bitsPerCode[format] - 1) : 0),
      offsets: hasOffsets ? numbers(offsets) : undefined,
    }),
  );
}

/** The fields that are no tensors. */
export const fieldsOf = ({draw: {format, groupSize, scaleFormat, zeroPoint}, shape}: Pick<QuantizedNumbers, 'draw' | 'shape'>) => ({
  format,
  shape,
  ...(hasScales(format) && {groupSize: groupSize ?? shape[2], ...(scaleFormat && {scaleFormat})}),
  ...(zeroPoint != null && {zeroPoint}),
});

export type RandomQuantized = {
  weights: tf.QuantizedWeights;
  /** float32 [L, D, C], row-major. */
  values: Float32Array;
};

export function randomQuantized(shape: Shape, draw: QuantizedDraw, seed: number): RandomQuantized {
  const next = lcg(seed + 31 * shape[0] + 7 * shape[1] + shape[2]);
  // The first numbers of neighbouring seeds are alike.
  next();
  const numbers = randomNumbers(shape, draw, next);
  const groups = [shape[0], shape[1], numbers.scales.length / (shape[0] * shape[1])];
  const scales = (codes: number[]) => scalesTensor(codes, scaleFormatOf(draw), groups);
  return {
    weights: {
      ...fieldsOf(numbers),
      codes: codesTensor(numbers.codes, draw.format, shape),
      ...(hasScales(draw.format) && {scales: scales(numbers.scales)}),
      ...(draw.hasOffsets && {offsets: scales(numbers.offsets)}),
    },
    values: valuesOf(numbers),
  };
}

/** Parts of these numbers of experts, with all their values. */
export function randomParts(
  counts: number[],
  [numOut, numIn]: [number, number],
  draw: QuantizedDraw,
  seed: number,
): {parts: tf.QuantizedWeights[]; values: Float32Array} {
  const all = counts.map((count, p) => randomQuantized([count, numOut, numIn], draw, seed + 101 * p));
  const values = new Float32Array(all.reduce((size, part) => size + part.values.length, 0));
  let from = 0;
  for (const part of all) {
    values.set(part.values, from);
    from += part.values.length;
  }
  return {parts: all.map(({weights}) => weights), values};
}

/** Values [L, D, C] as nested arrays, as the naive experts take them. */
export function nested(values: ArrayLike<number>, [numExperts, numOut, numIn]: number[]): number[][][] {
  return Array.from({length: numExperts}, (_, e) =>
    Array.from({length: numOut}, (__, d) => Array.from({length: numIn}, (___, c) => values[(e * numOut + d) * numIn + c])),
  );
}
