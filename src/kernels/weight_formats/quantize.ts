/**
 * Quantizing weights on the host. The arithmetic is that of float32, step by step, so that every backend gives the same
 * codes; with float16 scales they are those of ggml's Q4_0, Q4_1 and Q8_0.
 */
import {
  type QuantizedEncoding,
  quantizedFormats,
  quantizedShapes,
  type QuantizedTensors,
  scaleBits,
} from '../../contract/quantized_weights';
import {util} from '@tensorflow/tfjs-core';
import type {HostArray} from '../../contract/host_values';
import type {HostTensor} from '../shared/host_kernel';
import {setField} from './host';
import {weightFormats} from './index';
import {scaleFormats} from './scale_formats';
import {bitsOf} from './small_floats';

/** Below it, float32 is subnormal. GPUs may take such numbers for 0, so here they are 0 everywhere. */
const SMALLEST = 2 ** -126;
const flushed = (value: number) => (Math.abs(value) < SMALLEST ? 0 : value);

/**
 * What becomes of the weights of a group: (weight - offset) * inverse is encoded. One object is used for all groups:
 * millions of them would pile up before the host collects them.
 */
type GroupScale = {scale: number; inverse: number; offset: number};

/** A quotient as a scale and its inverse, in float32. */
function setScale(group: GroupScale, quotient: number): void {
  // ggml's scale of zeros is -0 where scales have the sign of the weight.
  group.scale = Math.fround(Math.abs(quotient) < SMALLEST ? 0 * quotient : quotient);
  group.inverse = group.scale === 0 ? 0 : Math.fround(1 / group.scale);
}

/** NaN or an infinity in a group: all of its weights become NaN. */
function setNoNumbers(group: GroupScale): void {
  group.scale = NaN;
  group.inverse = 0;
  group.offset = NaN;
}

/** Measures the weights from number `from` to `end` - 1. */
function measure(
  group: GroupScale,
  weights: HostArray,
  from: number,
  end: number,
  {format, scaleFormat, hasOffsets}: QuantizedEncoding,
): void {
  const {largest} = weightFormats[format];
  // The first of the weights of the largest size.
  let peak = 0;
  let low = Infinity;
  let high = -Infinity;
  // NaN if a weight is NaN or infinite, else 0.
  let zero = 0;
  for (let i = from; i < end; i++) {
    const weight = flushed(weights[i]);
    zero += 0 * weight;
    if (Math.abs(weight) > Math.abs(peak)) {
      peak = weight;
    }
    if (weight < low) {
      low = weight;
    }
    if (weight > high) {
      high = weight;
    }
  }
  const range = hasOffsets ? Math.fround(high - low) : 0;
  if (Number.isNaN(zero) || range === Infinity) {
    setNoNumbers(group);
    return;
  }
  group.offset = hasOffsets ? low : 0;
  if (hasOffsets) {
    setScale(group, range / (2 ** quantizedFormats[format].bits - 1));
  } else if (scaleFormat === 'e8m0') {
    const exponent = Math.max(-127, exponentOf(peak) - exponentOf(largest));
    group.scale = 2 ** exponent;
    group.inverse = 2 ** -exponent;
  } else {
    setScale(group, (largest < 0 ? peak : Math.abs(peak)) / largest);
  }
}

/** The exponent of a normal float32; -127 for 0. */
const exponentOf = (value: number) => ((bitsOf(value) & 0x7fffffff) >>> 23) - 127;

/** The codes, scales and offsets of weights [L, D, C]. */
export function quantizedOnHost(
  {values, shape}: HostTensor,
  encoding: QuantizedEncoding,
): QuantizedTensors<HostTensor> {
  const {format, groupSize, scaleFormat, zeroPoint, hasOffsets} = encoding;
  const {bits, hasScales} = quantizedFormats[format];
  const {encode} = weightFormats[format];
  const shapes = quantizedShapes(shape, encoding);
  const codes = new Int32Array(util.sizeFromShape(shapes.codes));
  const codesOut = {values: codes, shape: shapes.codes};
  if (!hasScales) {
    values.forEach((value, i) => setField(codes, i, bits, encode(value, 0)));
    return {codes: codesOut};
  }

  const scaleWords = new Int32Array(util.sizeFromShape(shapes.scales));
  const offsetWords = new Int32Array(hasOffsets ? scaleWords.length : 0);
  const encodeScale = scaleFormats[scaleFormat].encode;
  const numIn = shape[2];
  const numRows = shape[0] * shape[1];
  const codesPerWord = 32 / bits;
  const groupScale: GroupScale = {scale: 0, inverse: 0, offset: 0};
  let group = 0;
  for (let row = 0; row < numRows; row++) {
    for (let first = 0; first < numIn; first += groupSize, group++) {
      const from = row * numIn + first;
      const end = from + Math.min(groupSize, numIn - first);
      measure(groupScale, values, from, end, encoding);
      const {scale, inverse, offset} = groupScale;
      setField(scaleWords, group, scaleBits[scaleFormat], encodeScale(scale));
      if (hasOffsets) {
        setField(offsetWords, group, scaleBits[scaleFormat], encodeScale(offset));
      }
      // A group begins with a word.
      for (let i = from; i < end && !Number.isNaN(scale); i += codesPerWord) {
        let word = 0;
        for (let c = 0; c < codesPerWord; c++) {
          const scaled = Math.fround(flushed(Math.fround(flushed(values[i + c]) - offset)) * inverse);
          word |= encode(scaled, zeroPoint) << (bits * c);
        }
        codes[i / codesPerWord] = word;
      }
    }
  }
  const stored = (words: Int32Array) => ({
    values: scaleFormat === 'float32' ? new Float32Array(words.buffer) : words,
    shape: shapes.scales,
  });
  return hasOffsets
    ? {codes: codesOut, scales: stored(scaleWords), offsets: stored(offsetWords)}
    : {codes: codesOut, scales: stored(scaleWords)};
}
