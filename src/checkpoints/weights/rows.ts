/** Rows of weights, as files have them and as ops take them. */
import {util} from '@tensorflow/tfjs-core';
import {
  encodingOf,
  isQuantizedEncoding,
  type QuantizedEncoding,
  type ScaleFormat,
  type WeightEncoding,
} from '../../contract/quantized_weights';
import {dequantizedRows} from '../../kernels/weight_formats/host';
import {quantizedOnHost} from '../../kernels/weight_formats/quantize';
import {scaleFormats} from '../../kernels/weight_formats/scale_formats';
import {decodeFloats} from '../files/safetensors';

/** Scales or offsets as they are stored: float32, the bits of 16-bit floats, or bytes of e8m0. */
export type ScaleArray = Float32Array | Uint16Array | Uint8Array;

/** Rows of one length. Codes fill whole words in each of them; scales are those of their groups, row by row. */
export type Rows = {
  /** float32, or words of codes. */
  weights: Float32Array | Int32Array;
  scales?: ScaleArray;
  offsets?: ScaleArray;
};

/** How many groups a row of `numIn` weights has. */
export const groupsOf = ({groupSize}: WeightEncoding, numIn: number): number =>
  groupSize === 0 ? 0 : Math.ceil(numIn / groupSize);

/** Zeros in a tensor of scales of this shape: whole words, low bits first, as in the memory of the host. */
export function newScaleArray(format: ScaleFormat, shape: number[]): ScaleArray {
  const {buffer} = new Int32Array(util.sizeFromShape(shape));
  return elementsOf(buffer, format);
}

const floatsOf = (stored: ScaleArray, format: ScaleFormat): Float32Array => {
  const {decode} = scaleFormats[format];
  return stored instanceof Float32Array ? stored : Float32Array.from(stored, decode);
};

/** Memory as elements of a format: `length` of them, or all. */
export const elementsOf = (words: ArrayBufferLike, format: ScaleFormat, length?: number): ScaleArray =>
  format === 'float32'
    ? new Float32Array(words, 0, length)
    : format === 'e8m0'
      ? new Uint8Array(words, 0, length)
      : new Uint16Array(words, 0, length);

/** Converts rows: as they are, decoded, or quantized like moeQuantizeWeights. The rows hold until the next call. */
export type RowConverter = (rows: Rows, numRows: number) => Rows;

export function rowConverter(from: WeightEncoding, to: WeightEncoding, numIn: number): RowConverter {
  if (from === to) {
    return (rows) => rows;
  }
  const decode = isQuantizedEncoding(from) ? rowDecoder(from, numIn) : ({weights}: Rows) => weights as Float32Array;
  if (!isQuantizedEncoding(to)) {
    return (rows, numRows) => ({weights: decode(rows, numRows)});
  }
  return (rows, numRows) => {
    const {codes, scales, offsets} = quantizedOnHost({values: decode(rows, numRows), shape: [1, numRows, numIn]}, to);
    const numScales = numRows * groupsOf(to, numIn);
    return {
      weights: codes.values,
      ...(scales != null && {scales: elementsOf(scales.values.buffer, to.scaleFormat, numScales)}),
      ...(offsets != null && {offsets: elementsOf(offsets.values.buffer, to.scaleFormat, numScales)}),
    };
  };
}

/** Rows as float32, in one array for all calls: many arrays would pile up before the host collects them. */
function rowDecoder(encoding: QuantizedEncoding, numIn: number): (rows: Rows, numRows: number) => Float32Array {
  const ofFloatScales = encodingOf({...encoding, scaleFormat: 'float32'});
  let memory = new Float32Array(0);
  return ({weights, scales, offsets}, numRows) => {
    memory = memory.length < numRows * numIn ? new Float32Array(numRows * numIn) : memory;
    const values = memory.subarray(0, numRows * numIn);
    if (encoding.groupSize === 0) {
      // Floats of 16 bits, which most files have, need neither groups nor scales.
      const bytes = new Uint8Array(weights.buffer, weights.byteOffset, weights.byteLength);
      decodeFloats(encoding.format === 'float16' ? 'F16' : 'BF16', bytes, values);
      return values;
    }
    const tensors = {
      codes: weights,
      ...(scales != null && {scales: floatsOf(scales, encoding.scaleFormat)}),
      ...(offsets != null && {offsets: floatsOf(offsets, encoding.scaleFormat)}),
    };
    return dequantizedRows(tensors, ofFloatScales, numIn, 0, numRows, values);
  };
}

/** Row `first` of `numRows` rows and every second one after it. */
export function everySecondRow({weights, scales, offsets}: Rows, first: 0 | 1, numRows: number): Rows {
  const pick = <Values extends Float32Array | Int32Array | ScaleArray>(values: Values): Values => {
    const length = values.length / numRows;
    const picked = values.slice(0, values.length / 2) as Values;
    for (let row = first; row < numRows; row += 2) {
      picked.set(values.subarray(row * length, (row + 1) * length), (row >> 1) * length);
    }
    return picked;
  };
  return {
    weights: pick(weights),
    ...(scales != null && {scales: pick(scales)}),
    ...(offsets != null && {offsets: pick(offsets)}),
  };
}
