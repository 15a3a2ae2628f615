/** Quantized weights on the host. */
import {
  type QuantizedEncoding,
  quantizedFormats,
  type QuantizedTensors,
  scaleBits,
  type ScaleFormat,
} from '../../contract/quantized_weights';
import type {HostArray} from '../../contract/host_values';
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

/** The number of every code, or undefined where there are too many. */
function numbersOfCodes(format: QuantizedEncoding['format']): ArrayLike<number> | undefined {
  const {bits} = quantizedFormats[format];
  const {decode} = weightFormats[format];
  return bits > 8 ? undefined : Float32Array.from({length: 2 ** bits}, (_, code) => decode(code));
}

/**
 * Rows firstRow to firstRow + numRows - 1 of the rows [L, D], each of C = numIn weights. A weight is the float32 that
 * is nearest to its value.
 */
export function dequantizedRows(
  {codes, scales, offsets}: QuantizedTensors<HostArray>,
  {format, groupSize, scaleFormat, zeroPoint}: QuantizedEncoding,
  numIn: number,
  firstRow: number,
  numRows: number,
): Float32Array {
  const {bits} = quantizedFormats[format];
  const {decode} = weightFormats[format];
  const table = numbersOfCodes(format);
  const words = wordsOf(codes);
  const numGroups = groupSize === 0 ? 0 : Math.ceil(numIn / groupSize);
  const weights = new Float32Array(numRows * numIn);
  const firstGroup = firstRow * numGroups;
  const $scales = scales && scalesOf(scales, scaleFormat, firstGroup, numRows * numGroups);
  const $offsets = offsets && scalesOf(offsets, scaleFormat, firstGroup, numRows * numGroups);
  for (let row = 0; row < numRows; row++) {
    const from = (firstRow + row) * numIn;
    for (let c = 0; c < numIn; c++) {
      const code = fieldOf(words, from + c, bits);
      const number = table?.[code] ?? decode(code);
      const group = row * numGroups + Math.floor(c / groupSize);
      weights[row * numIn + c] =
        $scales == null ? number : $scales[group] * (number - zeroPoint) + ($offsets?.[group] ?? 0);
    }
  }
  return weights;
}
