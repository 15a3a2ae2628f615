/** What GPTQ and AWQ share: scales and zero points [groups, outputs], and inputs in order. */
import {assert} from '../../arguments/checks';
import {encodingOf, type WeightEncoding} from '../../contract/quantized_weights';
import type {Rows, ScaleArray} from '../weights/rows';
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

/** Scales [groups, outputs] in the order of rows. */
export const scalesByRow = <Scales extends ScaleArray>(scales: Scales, numGroups: number, numOut: number): Scales =>
  transposed(scales, numGroups, numOut);

/** Scales and offsets of rows, of float32 scales and of zero points [groups, outputs]. */
export function withOffsets(
  scales: Float32Array,
  zeros: Uint8Array,
  numGroups: number,
  numOut: number,
): Omit<Rows, 'weights'> {
  const byRow = scalesByRow(scales, numGroups, numOut);
  return {scales: byRow, offsets: offsetsOf(byRow, transposed(zeros, numGroups, numOut))};
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
