/** What GPTQ and AWQ share: scales and zero points [groups, outputs], and inputs in order. */
import {assert} from '../../arguments/checks';
import {encodingOf, type WeightEncoding} from '../../contract/quantized_weights';
import type {Rows} from '../weights/rows';
import {offsetsOf} from './scales';
import {transposed} from './transposed';

export const zeroPointEncoding = (
  bits: 4 | 8,
  groupSize: number,
  scaleFormat: WeightEncoding['scaleFormat'],
): WeightEncoding =>
  encodingOf<WeightEncoding>({
    format: bits === 4 ? 'int4' : 'int8',
    groupSize,
    scaleFormat,
    zeroPoint: 2 ** (bits - 1),
    hasOffsets: false,
  });

/** float32 offsets, which hold scale * zero of any 16-bit scale exactly. */
export const offsetEncoding = (bits: 4 | 8, groupSize: number): WeightEncoding =>
  encodingOf<WeightEncoding>({
    format: bits === 4 ? 'int4' : 'int8',
    groupSize,
    scaleFormat: 'float32',
    zeroPoint: 0,
    hasOffsets: true,
  });

/** The zero points [groups, rows] of some rows, of all as words [groups, outputs / perWord]. */
export function zerosOfRows(
  words: Int32Array,
  numOut: number,
  perWord: number,
  firstRow: number,
  numRows: number,
  unpack: (words: Int32Array) => Uint8Array,
): Uint8Array {
  const [wordsInGroup, first, count] = [numOut / perWord, firstRow / perWord, numRows / perWord];
  const numGroups = words.length / wordsInGroup;
  const ofRows = new Int32Array(numGroups * count);
  for (let group = 0; group < numGroups; group++) {
    const begin = group * wordsInGroup + first;
    ofRows.set(words.subarray(begin, begin + count), group * count);
  }
  return unpack(ofRows);
}

/** Scales and offsets of rows, of all float32 scales [groups, outputs] and of the rows' zero points [groups, rows]. */
export function withOffsets(
  scales: Float32Array,
  zeros: Uint8Array,
  numGroups: number,
  numOut: number,
  firstRow: number,
  numRows: number,
): Omit<Rows, 'weights'> {
  const byRow = transposed(scales, numGroups, numOut, firstRow, numRows);
  return {scales: byRow, offsets: offsetsOf(byRow, transposed(zeros, numGroups, numRows))};
}

/** Act-order gives the inputs of a group in any order. Groups of ops are of inputs that follow each other. */
export function assertGroupsInOrder(groupOfInput: Int32Array, groupSize: number, name: string, opName: string): void {
  const isInOrder = groupOfInput.every((group, input) => group === Math.floor(input / groupSize));
  const wrong = groupOfInput.findIndex((group, input) => group !== Math.floor(input / groupSize));
  assert(
    isInOrder,
    opName,
    () =>
      `${name} must have the group floor(${wrong} / ${groupSize}) for input ${wrong}, but has ${groupOfInput[wrong]}. ` +
      'Files with act-order (desc_act) cannot be read.',
  );
}
