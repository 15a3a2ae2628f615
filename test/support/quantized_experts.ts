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

export type RandomQuantized = {
  weights: tf.QuantizedWeights;
  /** float32 [L, D, C], row-major. */
  values: Float32Array;
};

export function randomQuantized(shape: [number, number, number], draw: QuantizedDraw, seed: number): RandomQuantized {
  const next = lcg(seed + 31 * shape[0] + 7 * shape[1] + shape[2]);
  // The first numbers of neighbouring seeds are alike.
  next();
  const {format, zeroPoint, hasOffsets} = draw;
  const codes = Array.from({length: tf.util.sizeFromShape(shape)}, () => randomCode[format](next));
  if (!hasScales(format)) {
    const values = Float32Array.from(naiveDequantized({format, shape, codes}));
    return {weights: {format, shape, codes: codesTensor(codes, format, shape)}, values};
  }
  const scaleFormat = draw.scaleFormat ?? 'float32';
  const groupSize = draw.groupSize ?? shape[2];
  const groups = [shape[0], shape[1], Math.ceil(shape[2] / groupSize)];
  const numScales = tf.util.sizeFromShape(groups);
  const random = (isSigned: boolean) =>
    Array.from({length: numScales}, () => randomScale[scaleFormat](next) + (isSigned && next() < 0.5 ? signOf[scaleFormat] : 0));
  const scales = random(isInteger(format));
  // Near the middle of the codes times their scale, as files have them.
  const offsets = hasOffsets ? random(true) : undefined;
  const zero = zeroPoint ?? (isInteger(format) && !hasOffsets ? 2 ** (bitsPerCode[format] - 1) : 0);
  const values = Float32Array.from(
    naiveDequantized({
      format,
      shape,
      codes,
      groupSize,
      scales: scales.map(scaleOf[scaleFormat]),
      zeroPoint: zero,
      offsets: offsets?.map(scaleOf[scaleFormat]),
    }),
  );
  return {
    weights: {
      format,
      shape,
      codes: codesTensor(codes, format, shape),
      groupSize,
      scales: scalesTensor(scales, scaleFormat, groups),
      ...(draw.scaleFormat && {scaleFormat}),
      ...(zeroPoint != null && {zeroPoint}),
      ...(offsets && {offsets: scalesTensor(offsets, scaleFormat, groups)}),
    },
    values,
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
