/** How files of others become quantized weights: bytes are moved, and no value changes. */
import * as tf from '../../src/tf';
import {packed, scaleOf, unpacked} from '../naive/quantized_weights';

export const bytesOf = (base64: string): Uint8Array => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
export const floatsOf = (base64: string): Float32Array => new Float32Array(bytesOf(base64).buffer);
const wordsOf = (bytes: Uint8Array) => new Int32Array(bytes.slice().buffer);

type Shape = [numExperts: number, numOut: number, numIn: number];

/** Bytes that are codes already, low bits first. */
const codesOfBytes = (bytes: Uint8Array, [numExperts, numOut, numIn]: Shape, bits: number) =>
  tf.tensor3d(wordsOf(bytes), [numExperts, numOut, (numIn * bits) / 32], 'int32');

const codesOf = (codes: ArrayLike<number>, [numExperts, numOut, numIn]: Shape, bits: number) =>
  tf.tensor3d(packed(codes, bits), [numExperts, numOut, (numIn * bits) / 32], 'int32');

const scalesOf = (scales: ArrayLike<number>, [numExperts, numOut]: Shape) =>
  tf.tensor3d(Float32Array.from(scales), [numExperts, numOut, scales.length / (numExperts * numOut)]);

/** Offsets of zero points, one for each scale. */
const offsetsOf = (scales: ArrayLike<number>, zeros: ArrayLike<number>) =>
  Float32Array.from(scales, (scale, i) => -scale * zeros[i]);

/** ONNX QMoE: a scale for each row, or for each block of inputs; zero points unpacked. */
export function ofQMoe(
  {weights, scales, zeros}: {weights: string; scales: string; zeros?: string},
  shape: Shape,
  bits: number,
  block: number | null,
): tf.QuantizedWeights {
  const numbers = floatsOf(scales);
  return {
    format: bits === 4 ? 'int4' : 'int8',
    shape,
    codes: codesOfBytes(bytesOf(weights), shape, bits),
    groupSize: block ?? shape[2],
    scales: scalesOf(numbers, shape),
    ...(zeros != null && {offsets: scalesOf(offsetsOf(numbers, bytesOf(zeros)), shape)}),
  };
}

/** gpt-oss: blocks [E, rows, G, 16] and scales [E, rows, G], byte for byte. */
export function ofMxfp4(blocks: string, scales: string, shape: Shape): tf.QuantizedWeights {
  return {
    format: 'fp4',
    shape,
    codes: codesOfBytes(bytesOf(blocks), shape, 4),
    groupSize: 32,
    scaleFormat: 'e8m0',
    scales: tf.tensor1d(packed(bytesOf(scales), 8), 'int32'),
  };
}

/** FP8 in blocks of rows and inputs: each row has the scales of its block. */
export function ofFp8(
  {weight, scaleInv, rows, numBlocks, block}: {weight: string; scaleInv: string; rows: number[]; numBlocks: number[]; block: number[]},
  shape: Shape,
): tf.QuantizedWeights {
  const scales = floatsOf(scaleInv);
  const ofRow = (row: number) => {
    const first = Math.floor(row / block[0]) * numBlocks[1];
    return Array.from(scales.subarray(first, first + numBlocks[1]));
  };
  return {
    format: 'float8',
    shape,
    codes: codesOfBytes(bytesOf(weight), shape, 8),
    groupSize: block[1],
    scales: scalesOf(rows.flatMap(ofRow), shape),
  };
}

/** Words [C/8, D] and zeros - 1 in words [G, D/8]: nibbles of inputs, and of outputs, from the lowest. */
export function ofGptq(qweight: string, qzeros: string, scales: string, [, numOut, numIn]: Shape, groupSize: number): tf.QuantizedWeights {
  const words = wordsOf(bytesOf(qweight));
  const numWords = numIn / 8;
  const codes = Int32Array.from({length: words.length}, (_, i) => words[(i % numWords) * numOut + Math.floor(i / numWords)]);
  const zeros = unpacked(wordsOf(bytesOf(qzeros)), 4, (numIn / groupSize) * numOut).map((zero) => zero + 1);
  return ofColumns(tf.tensor3d(codes, [1, numOut, numWords], 'int32'), zeros, floatsOf(scales), [1, numOut, numIn], groupSize);
}

/** Words [C, D/8] and zeros in words [G, D/8]: nibble i of a word is output `order[i]` of its eight. */
export function ofAwq(qweight: string, qzeros: string, scales: string, [, numOut, numIn]: Shape, groupSize: number): tf.QuantizedWeights {
  const order = [0, 2, 4, 6, 1, 3, 5, 7];
  const ordered = (base64: string, length: number) => {
    const nibbles = unpacked(wordsOf(bytesOf(base64)), 4, length);
    return nibbles.map((_, i) => nibbles[8 * Math.floor(i / 8) + order.indexOf(i % 8)]);
  };
  const byInput = ordered(qweight, numIn * numOut);
  const codes = byInput.map((_, i) => byInput[(i % numIn) * numOut + Math.floor(i / numIn)]);
  const zeros = ordered(qzeros, (numIn / groupSize) * numOut);
  return ofColumns(codesOf(codes, [1, numOut, numIn], 4), zeros, floatsOf(scales), [1, numOut, numIn], groupSize);
}

/** With zeros and scales [G, D], of which each row gets a column. */
function ofColumns(codes: tf.Tensor3D, zeros: number[], scales: Float32Array, shape: Shape, groupSize: number): tf.QuantizedWeights {
  const [, numOut, numIn] = shape;
  const numGroups = numIn / groupSize;
  const rows = (values: ArrayLike<number>) =>
    Float32Array.from({length: numOut * numGroups}, (_, i) => values[(i % numGroups) * numOut + Math.floor(i / numGroups)]);
  return {
    format: 'int4',
    shape,
    codes,
    groupSize,
    scales: scalesOf(rows(scales), shape),
    offsets: scalesOf(rows(offsetsOf(scales, zeros)), shape),
  };
}

type Block = {codes: number[]; scales: number[]; offsets?: number[]};

const half = (bytes: Uint8Array, at: number) => scaleOf.float16(bytes[at] + 256 * bytes[at + 1]);
const low = (byte: number) => byte & 15;
const high = (byte: number) => byte >> 4;
const signed = (byte: number) => (byte << 24) >> 24;
const range = <T>(length: number, value: (i: number) => T) => Array.from({length}, (_, i) => value(i));

/** 32 nibbles: the low ones of all bytes, then the high ones. */
const splitNibbles = (bytes: Uint8Array) => [...Array.from(bytes, low), ...Array.from(bytes, high)];

/** How the blocks of ggml's types become codes and scales. */
const ggml: Record<string, {format: tf.QuantizedFormat; groupSize: number; scaleFormat?: 'e8m0'; read: (block: Uint8Array) => Block}> = {
  Q4_0: {
    format: 'int4',
    groupSize: 32,
    read: (block) => ({codes: splitNibbles(block.subarray(2)), scales: [half(block, 0)]}),
  },
  // Signed codes, with 128 added.
  Q8_0: {
    format: 'int8',
    groupSize: 32,
    read: (block) => ({codes: Array.from(block.subarray(2), (byte) => byte ^ 128), scales: [half(block, 0)]}),
  },
  // scale = d * sc and offset = -dmin * m, both exact in float32.
  Q4_K: {
    format: 'int4',
    groupSize: 32,
    read: (block) => {
      const [d, dmin] = [half(block, 0), half(block, 2)];
      const s = block.subarray(4, 16);
      const scale = range(8, (j) => (j < 4 ? s[j] & 63 : low(s[j + 4]) | ((s[j - 4] >> 6) << 4)));
      const least = range(8, (j) => (j < 4 ? s[j + 4] & 63 : high(s[j + 4]) | ((s[j] >> 6) << 4)));
      return {
        codes: range(4, (i) => splitNibbles(block.subarray(16 + 32 * i, 48 + 32 * i))).flat(),
        scales: scale.map((sc) => d * sc),
        offsets: least.map((m) => -dmin * m),
      };
    },
  },
  // Codes of 6 bits with a zero of 32, as bytes with a zero of 128.
  Q6_K: {
    format: 'int8',
    groupSize: 16,
    read: (block) => ({
      codes: range(256, (i) => {
        const [part, l] = [Math.floor(i / 128), i % 32];
        const quarter = Math.floor((i % 128) / 32);
        const byte = block[64 * part + 32 * (quarter % 2) + l];
        const bits = (block[128 + 32 * part + l] >> (2 * quarter)) & 3;
        return (quarter < 2 ? low(byte) : high(byte)) + 16 * bits + 96;
      }),
      scales: range(16, (j) => half(block, 208) * signed(block[192 + j])),
    }),
  },
  MXFP4: {
    format: 'fp4',
    groupSize: 32,
    scaleFormat: 'e8m0',
    read: (block) => ({codes: splitNibbles(block.subarray(1)), scales: [block[0]]}),
  },
};

/** Rows of blocks of a type of ggml. */
export function ofGgml(type: string, typeSize: number, data: string, shape: Shape): tf.QuantizedWeights {
  const {format, groupSize, scaleFormat, read} = ggml[type];
  const bytes = bytesOf(data);
  const blocks = range(bytes.length / typeSize, (b) => read(bytes.subarray(b * typeSize, (b + 1) * typeSize)));
  const scales = blocks.flatMap((block) => block.scales);
  const offsets = blocks.flatMap((block) => block.offsets ?? []);
  return {
    format,
    shape,
    codes: codesOf(blocks.flatMap(({codes}) => codes), shape, format === 'int8' ? 8 : 4),
    groupSize,
    ...(scaleFormat == null
      ? {scales: scalesOf(scales, shape)}
      : {scaleFormat, scales: tf.tensor1d(packed(scales, 8), 'int32')}),
    ...(offsets.length > 0 && {offsets: scalesOf(offsets, shape)}),
  };
}
