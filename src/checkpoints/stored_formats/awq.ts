/**
 * AWQ of version GEMM: `<linear>.qweight` int32 [inputs, outputs/8], `.qzeros` int32 [groups, outputs/8] and `.scales`
 * [groups, outputs]. A weight is scale * (code - zero).
 */
import {decodeFloats} from '../files/safetensors';
import {offsetEncoding, withOffsets, zerosOfRows} from './input_groups';
import {groupSizeOf, hasMethod, oneOf} from './quantization_config';
import {checkFits, scaleDtypes} from './scales';
import {linearOf, type StoredFormat, TensorFinder, wordsOf} from './stored_format';

/** The output, of a word's eight, that each nibble is of, from the lowest. */
const ORDER = [0, 2, 4, 6, 1, 3, 5, 7];

export const awq: StoredFormat = {
  find: (matrices, {tensors, config, opName}) => {
    const {numOut, numIn} = matrices;
    const linear = linearOf(matrices);
    if (linear == null || !hasMethod(config, 'awq') || !tensors.has(`${linear}.qweight`)) {
      return undefined;
    }
    oneOf(config, 'bits', [4], opName);
    oneOf(config, 'version', ['gemm', 'GEMM'], opName);
    const groupSize = groupSizeOf(config, numIn, opName);
    const numGroups = Math.ceil(numIn / groupSize);
    const finder = new TensorFinder(tensors);
    const weights = finder.take(`${linear}.qweight`, ['I32'], [numIn, numOut / 8]);
    const scales = finder.take(`${linear}.scales`, scaleDtypes, [numGroups, numOut]);
    const zeros = finder.take(`${linear}.qzeros`, ['I32'], [numGroups, numOut / 8]);
    checkFits(finder, `${linear}.qweight`, {format: 'int4', groupSize}, numIn);
    if (finder.problems.length > 0) {
      return finder;
    }
    return {
      encoding: offsetEncoding(4, groupSize),
      weights,
      extras: [scales, zeros],
      hasRows: false,
      decode: (bytes, {firstRow, numRows}, [readScales, readZeros]) => {
        const values = new Float32Array(numGroups * numOut);
        decodeFloats(scales.dtype, readScales, values);
        const zeroPoints = zerosOfRows(wordsOf(readZeros), numOut, 8, firstRow, numRows, zerosOf);
        return {
          weights: rowsOf(wordsOf(bytes), numIn, numOut, firstRow, numRows),
          ...withOffsets(values, zeroPoints, numGroups, numOut, firstRow, numRows),
        };
      },
    };
  },
};

/** Some rows of words of inputs, of words [inputs, outputs/8]. The first is the first of its word. */
function rowsOf(words: Int32Array, numIn: number, numOut: number, firstRow: number, numRows: number): Int32Array {
  const wordsInRow = numIn / 8;
  const rows = new Int32Array(numRows * wordsInRow);
  const wordsOfInput = numOut / 8;
  for (let w = 0; w < numRows / 8; w++) {
    for (let input = 0; input < numIn; input++) {
      const word = words[input * wordsOfInput + firstRow / 8 + w];
      const at = 8 * w * wordsInRow + (input >> 3);
      const shift = 4 * (input & 7);
      for (let i = 0; i < 8; i++) {
        rows[at + ORDER[i] * wordsInRow] |= ((word >>> (4 * i)) & 15) << shift;
      }
    }
  }
  return rows;
}

function zerosOf(words: Int32Array): Uint8Array {
  const zeros = new Uint8Array(8 * words.length);
  words.forEach((word, w) => {
    for (let i = 0; i < 8; i++) {
      zeros[8 * w + ORDER[i]] = (word >>> (4 * i)) & 15;
    }
  });
  return zeros;
}
