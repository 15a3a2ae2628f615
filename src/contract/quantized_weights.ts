/** Weights of experts as packed codes: what ops take in place of float32 weights, and what kernels know of it. */
import type {Tensor, TensorInfo} from '@tensorflow/tfjs-core';

/**
 * How a code stands for a number. Integers are unsigned, with a zero point or an offset. `'fp4'` is E2M1, of MXFP4 and
 * NVFP4; `'float8'` is E4M3FN.
 */
export type QuantizedFormat = 'int4' | 'int8' | 'fp4' | 'float8' | 'float16' | 'bfloat16';

/** How scales are stored. `'e8m0'` is a power of two in a byte s: 2^(s - 127), and NaN for 255. */
export type ScaleFormat = 'float32' | 'float16' | 'bfloat16' | 'e8m0';

/** What packing asks of a format. */
type FormatTraits = {
  bits: number;
  /** Whether groups of codes have scales. */
  hasScales: boolean;
  /** Of integers, where nothing else is given. Other formats have no zero point. */
  zeroPoint?: number;
};

export const quantizedFormats: Readonly<Record<QuantizedFormat, FormatTraits>> = {
  int4: {bits: 4, hasScales: true, zeroPoint: 8},
  int8: {bits: 8, hasScales: true, zeroPoint: 128},
  fp4: {bits: 4, hasScales: true},
  float8: {bits: 8, hasScales: true},
  float16: {bits: 16, hasScales: false},
  bfloat16: {bits: 16, hasScales: false},
};

export const scaleBits: Readonly<Record<ScaleFormat, number>> = {float32: 32, float16: 16, bfloat16: 16, e8m0: 8};

/**
 * Weights of experts as packed codes. The value of a code is scale * (code - zeroPoint) or scale * code + offset for
 * integers, scale * number for `'fp4'` and `'float8'`, and the number itself for `'float16'` and `'bfloat16'`.
 *
 * It is a plain object, so that tf.dispose, tf.tidy and tf.keep find its tensors. Ops never change it.
 */
export type QuantizedWeights = {
  /** How a code stands for a number. */
  format: QuantizedFormat;
  /** Experts, outputs and inputs: [L, D, C]. */
  shape: number[];
  /**
   * int32 [L, D, C*bits/32]: code c of a row is in word floor(c*bits/32), (c*bits) % 32 bits up. A row has whole words.
   */
  codes: Tensor;
  /**
   * How many inputs share a scale: a multiple of 16, or C. A row has G = ceil(C / groupSize) groups. Not for the 16-bit
   * formats.
   */
  groupSize?: number;
  /**
   * float32 [L, D, G], or packed in this order into int32 [n] words, low bits first, the last word filled up. Not for
   * the 16-bit formats.
   */
  scales?: Tensor;
  /** How scales and offsets are stored: two to a word in 16 bits, four for `'e8m0'`. Default `'float32'`. */
  scaleFormat?: ScaleFormat;
  /** The integer code that stands for 0. Default 8 for `'int4'`, 128 for `'int8'`. Only for integers. */
  zeroPoint?: number;
  /** Stored like scales, in place of a zero point: the value of code 0. Only for integers. */
  offsets?: Tensor;
};

/**
 * What a kernel must know of weights besides their tensors. There is one object for equal values, made by encodingOf,
 * so that attributes can be compared by ===.
 */
export type WeightEncoding = {
  readonly format: 'float32' | QuantizedFormat;
  /** How many inputs share a scale; 0 if there are no scales. */
  readonly groupSize: number;
  readonly scaleFormat: ScaleFormat;
  /** 0 if there are offsets, and for formats other than integers. */
  readonly zeroPoint: number;
  readonly hasOffsets: boolean;
};

const encodings = new Map<string, WeightEncoding>();

/** Words that tell encodings apart, for names of programs. */
export function encodingKey({format, groupSize, scaleFormat, zeroPoint, hasOffsets}: WeightEncoding): string {
  return `${format}_${groupSize}_${scaleFormat}_${hasOffsets ? 'offsets' : zeroPoint}`;
}

/** One and the same frozen object for equal values. */
export function encodingOf<Encoding extends WeightEncoding>(encoding: Encoding): Encoding {
  const {format, groupSize, scaleFormat, zeroPoint, hasOffsets} = encoding;
  const key = encodingKey(encoding);
  let known = encodings.get(key);
  if (known == null) {
    known = Object.freeze({format, groupSize, scaleFormat, zeroPoint, hasOffsets});
    encodings.set(key, known);
  }
  return known as Encoding;
}

/** The encoding of float32 weights. */
export const float32Encoding: WeightEncoding = /* @__PURE__ */ encodingOf<WeightEncoding>({
  format: 'float32',
  groupSize: 0,
  scaleFormat: 'float32',
  zeroPoint: 0,
  hasOffsets: false,
});

/** An encoding of codes. */
export type QuantizedEncoding = WeightEncoding & {readonly format: QuantizedFormat};

export const isQuantizedEncoding = (encoding: WeightEncoding): encoding is QuantizedEncoding =>
  encoding.format !== 'float32';

/** How many weights an element of their tensor has. */
export const codesPerWord = ({format}: WeightEncoding): number =>
  format === 'float32' ? 1 : 32 / quantizedFormats[format].bits;

/** The tensors of quantized weights. */
export type QuantizedTensors<T = TensorInfo> = {codes: T; scales?: T; offsets?: T};

/** C of codes [L, D, C*bits/32]. */
export function numInOf({shape}: {shape: number[]}, {format}: QuantizedEncoding): number {
  return (shape[2] * 32) / quantizedFormats[format].bits;
}

/** The shapes of the tensors of weights [L, D, C]. */
export function quantizedShapes(
  [numExperts, numOut, numIn]: readonly number[],
  {format, groupSize, scaleFormat}: QuantizedEncoding,
): {codes: number[]; numGroups: number; scales: number[]} {
  // G: 0 for the formats without scales.
  const numGroups = groupSize === 0 ? 0 : Math.ceil(numIn / groupSize);
  const numScales = numExperts * numOut * numGroups;
  const scales =
    scaleFormat === 'float32'
      ? [numExperts, numOut, numGroups]
      : [Math.ceil(numScales / (32 / scaleBits[scaleFormat]))];
  return {codes: [numExperts, numOut, (numIn * quantizedFormats[format].bits) / 32], numGroups, scales};
}

/** Quantized weights of these tensors, with the fields that the encoding has. */
export function quantizedWeightsOf(
  shape: number[],
  {format, groupSize, scaleFormat, zeroPoint, hasOffsets}: QuantizedEncoding,
  {codes, scales, offsets}: QuantizedTensors<Tensor>,
): QuantizedWeights {
  if (scales == null) {
    return {format, shape, codes};
  }
  const quantized: QuantizedWeights = {format, shape, groupSize, scaleFormat, codes, scales};
  if (offsets != null) {
    return {...quantized, offsets};
  }
  return quantizedFormats[format].zeroPoint != null && !hasOffsets ? {...quantized, zeroPoint} : quantized;
}
