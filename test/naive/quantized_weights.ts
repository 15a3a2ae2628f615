/** Quantized weights by definition, one field at a time, independent of src/. */
import type * as tf from '../../src/tf';

export const bitsPerCode: Record<tf.QuantizedFormat, number> = {int4: 4, int8: 8, fp4: 4, float8: 8, float16: 16, bfloat16: 16};
export const bitsPerScale: Record<tf.ScaleFormat, number> = {float32: 32, float16: 16, bfloat16: 16, e8m0: 8};

const view = new DataView(new ArrayBuffer(4));
const float32Of = (bits: number) => {
  view.setUint32(0, bits);
  return view.getFloat32(0);
};

/** Sign, exponent and mantissa by IEEE's rule. `hasInfinity`: the largest exponent is for infinity and NaN alone. */
function ieee(code: number, exponentBits: number, mantissaBits: number, hasInfinity: boolean): number {
  const text = code.toString(2).padStart(1 + exponentBits + mantissaBits, '0');
  const sign = text[0] === '1' ? -1 : 1;
  const exponent = parseInt(text.slice(1, 1 + exponentBits), 2);
  const mantissa = parseInt(text.slice(1 + exponentBits), 2) / 2 ** mantissaBits;
  const bias = 2 ** (exponentBits - 1) - 1;
  if (hasInfinity && exponent === 2 ** exponentBits - 1) {
    return mantissa === 0 ? sign * Infinity : NaN;
  }
  return sign * (exponent === 0 ? mantissa * 2 ** (1 - bias) : (1 + mantissa) * 2 ** (exponent - bias));
}

const half = (code: number) => ieee(code, 5, 10, true);
const bfloat = (code: number) => float32Of(code * 65536);
const e2m1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0, -0.5, -1, -1.5, -2, -3, -4, -6];

/** The number of a code. */
export const numberOf: Record<tf.QuantizedFormat, (code: number) => number> = {
  int4: (code) => code,
  int8: (code) => code,
  fp4: (code) => e2m1[code],
  float8: (code) => (code % 128 === 127 ? NaN : ieee(code, 4, 3, false)),
  float16: half,
  bfloat16: bfloat,
};

export const scaleOf: Record<tf.ScaleFormat, (code: number) => number> = {
  float32: float32Of,
  float16: half,
  bfloat16: bfloat,
  e8m0: (code) => (code === 255 ? NaN : 2 ** (code - 127)),
};

/** Words of fields, low bits first; the last word is filled up with zeros. */
export function packed(codes: ArrayLike<number>, bits: number): Int32Array {
  const words = new Int32Array(Math.ceil((codes.length * bits) / 32));
  for (let i = 0; i < codes.length; i++) {
    for (let bit = 0; bit < bits; bit++) {
      const place = i * bits + bit;
      words[Math.floor(place / 32)] |= (Math.floor(codes[i] / 2 ** bit) % 2) << (place % 32);
    }
  }
  return words;
}

export function unpacked(words: ArrayLike<number>, bits: number, count: number): number[] {
  return Array.from({length: count}, (_, i) => {
    let code = 0;
    for (let bit = 0; bit < bits; bit++) {
      const place = i * bits + bit;
      code += ((words[Math.floor(place / 32)] >>> (place % 32)) & 1) * 2 ** bit;
    }
    return code;
  });
}

export type NaiveQuantized = {
  format: tf.QuantizedFormat;
  shape: [number, number, number];
  codes: ArrayLike<number>;
  groupSize?: number;
  scales?: ArrayLike<number>;
  zeroPoint?: number;
  offsets?: ArrayLike<number>;
};

/** The values of codes, with scales and offsets that are numbers already. */
export function naiveDequantized({format, shape, codes, groupSize, scales, zeroPoint = 0, offsets}: NaiveQuantized): number[] {
  const numIn = shape[2];
  const numGroups = groupSize == null ? 0 : Math.ceil(numIn / groupSize);
  return Array.from(codes, (code, i) => {
    const number = numberOf[format](code) - zeroPoint;
    const group = Math.floor(i / numIn) * numGroups + Math.floor((i % numIn) / (groupSize ?? 1));
    return scales == null ? number : scales[group] * number + (offsets?.[group] ?? 0);
  });
}
