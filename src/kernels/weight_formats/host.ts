/** Quantized weights on the host. */
import {
  isQuantizedEncoding,
  type QuantizedEncoding,
  quantizedFormats,
  type QuantizedTensors,
  scaleBits,
  type ScaleFormat,
  type WeightEncoding,
} from '../../contract/quantized_weights';
import type {WeightTensors} from '../../contract/expert_weights';
import type {HostArray} from '../../contract/host_values';
import type {HostTensor} from '../shared/host_kernel';
import {weightFormats} from './index';
import {scaleFormats} from './scale_formats';

/** The bits of the values as unsigned words, without a copy. */
const wordsOf = ({buffer, byteOffset, length}: HostArray) => new Uint32Array(buffer, byteOffset, length);

/** Field i of `bits` bits. */
const fieldOf = (words: Uint32Array, i: number, bits: number) => {
  const perWord = 32 / bits;
  const word = words[Math.floor(i / perWord)];
  return bits === 32 ? word : (word >>> (bits * (i % perWord))) & (2 ** bits - 1);
};

/** Sets field i, which is 0, of `bits` bits. */
export function setField(words: Int32Array, i: number, bits: number, code: number): void {
  const perWord = 32 / bits;
  words[Math.floor(i / perWord)] |= code << (bits === 32 ? 0 : bits * (i % perWord));
}

/** The scales, or offsets, `first` to `first + count - 1` as float32. */
function scalesOf(stored: HostArray, format: ScaleFormat, first: number, count: number): Float32Array {
  const words = wordsOf(stored);
  const {decode} = scaleFormats[format];
  return Float32Array.from({length: count}, (_, i) => decode(fieldOf(words, first + i, scaleBits[format])));
}

const tables = new Map<QuantizedEncoding['format'], Float32Array>();

/** The number of every code. */
function numbersOfCodes(format: QuantizedEncoding['format']): Float32Array {
  const {bits} = quantizedFormats[format];
  const {decode} = weightFormats[format];
  let table = tables.get(format);
  if (table == null) {
    table = Float32Array.from({length: 2 ** bits}, (_, code) => decode(code));
    tables.set(format, table);
  }
  return table;
}

/** Writes row `row` of [L * D, C], C = numIn, to values[to] and the next ones. */
type RowDecoder = (row: number, values: Float32Array, to: number) => void;

/** A weight is the float32 that is nearest to its value. */
export function rowDecoder(
  {codes, scales, offsets}: QuantizedTensors<HostArray>,
  {format, groupSize, scaleFormat, zeroPoint}: QuantizedEncoding,
  numIn: number,
): RowDecoder {
  const {bits} = quantizedFormats[format];
  const numbers = numbersOfCodes(format);
  const codesPerWord = 32 / bits;
  const mask = 2 ** bits - 1;
  const words = wordsOf(codes);
  const numGroups = groupSize === 0 ? 0 : Math.ceil(numIn / groupSize);
  return (row, values, to) => {
    const $scales = scales && scalesOf(scales, scaleFormat, row * numGroups, numGroups);
    const $offsets = offsets && scalesOf(offsets, scaleFormat, row * numGroups, numGroups);
    let place = (row * numIn) / codesPerWord;
    for (let first = 0; first < numIn; first += groupSize || numIn) {
      const end = Math.min(numIn, first + (groupSize || numIn));
      const scale = $scales?.[first / groupSize] ?? 1;
      const offset = $offsets?.[first / groupSize] ?? 0;
      for (let c = first; c < end; c += codesPerWord) {
        let word = words[place++];
        for (let i = 0; i < codesPerWord; i++) {
          const number = numbers[word & mask];
          // The sum would make 0 of -0.
          values[to + c + i] = $scales == null ? number : scale * (number - zeroPoint) + offset;
          word >>>= bits;
        }
      }
    }
  };
}

/**
 * Rows firstRow to firstRow + numRows - 1 of the rows [L, D], each of C = numIn weights, in `weights`.
 */
export function dequantizedRows(
  tensors: QuantizedTensors<HostArray>,
  encoding: QuantizedEncoding,
  numIn: number,
  firstRow: number,
  numRows: number,
  weights: Float32Array = new Float32Array(numRows * numIn),
): Float32Array {
  const decodeRow = rowDecoder(tensors, encoding, numIn);
  for (let row = 0; row < numRows; row++) {
    decodeRow(firstRow + row, weights, row * numIn);
  }
  return weights;
}

/** Rows of weights, read one by one. */
export type WeightRows = {
  values: HostArray;
  /** Where in `values` a row starts. Codes are decoded there, in the place of what the slot held before. */
  load: (row: number, slot: number) => number;
};

/** Rows of `rowLength` weights, as many of them at a time as there are slots. */
export function weightRows(
  {weights, scales, offsets}: WeightTensors<HostTensor>,
  encoding: WeightEncoding,
  rowLength: number,
  numSlots: number,
): WeightRows {
  if (!isQuantizedEncoding(encoding)) {
    return {values: weights.values, load: (row) => row * rowLength};
  }
  const values = new Float32Array(numSlots * rowLength);
  const tensors = {codes: weights.values, scales: scales?.values, offsets: offsets?.values};
  const decodeRow = rowDecoder(tensors, encoding, rowLength);
  return {
    values,
    load: (row, slot) => {
      decodeRow(row, values, slot * rowLength);
      return slot * rowLength;
    },
  };
}
