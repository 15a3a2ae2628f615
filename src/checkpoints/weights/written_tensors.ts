/** The tensors of files that weights become: the way back of what is read. */
import {util} from '@tensorflow/tfjs-core';
import {assert} from '../../arguments/checks';
import {weightNames} from '../../contract/block_weights';
import {hostValuesOf} from '../../contract/host_values';
import {isQuantizedEncoding} from '../../contract/quantized_weights';
import {dequantizedRows} from '../../kernels/weight_formats/host';
import type {CheckpointLayout, CheckpointWeight} from '../families/layout';
import type {CheckpointTensor, CheckpointTensors} from '../files/safetensors';
import {encodeFloats, type FloatDtype} from '../files/write_safetensors';
import type {GivenBlock, GivenWeight} from './given_block';
import {matricesOf} from './matrices';

/**
 * A weight that is written: its name in messages, where its tensors are, and its values. It may be several weights of
 * the checkpoint, whose rows stand below each other in it. A layer may have a correction of scores for which the family
 * has no tensors.
 */
export type WrittenWeight = {name: string; weights: readonly CheckpointWeight[]; given: GivenWeight};

/** The weights of a block. */
export const weightsOfBlock = (block: GivenBlock, {weights}: CheckpointLayout): WrittenWeight[] =>
  weightNames.flatMap((name) => {
    const weight = weights[name];
    const given = block.weight(name, weight == null ? 1 : matricesOf(weight).numIn);
    return given == null ? [] : [{name, weights: weight == null ? [] : [weight], given}];
  });

export async function writtenTensors(
  weights: readonly WrittenWeight[],
  dtypeOf: (name: string) => FloatDtype,
  opName: string,
): Promise<CheckpointTensors> {
  const written: CheckpointTensors = new Map();
  for (const {name, weights: pieces, given} of weights) {
    const values = await hostFloats(given, pieces.length === 0 ? 1 : matricesOf(pieces[0]).numIn);
    if (pieces.every(({tensors}) => tensors.count === 0)) {
      assertZeros(values, name, opName);
      continue;
    }
    let end = 0;
    for (const weight of pieces) {
      const first = end;
      end += util.sizeFromShape(weight.shape);
      addTensors(weight, values.subarray(first, end), name, dtypeOf, written, opName);
    }
  }
  return written;
}

/** The weight as float32, row by row. */
async function hostFloats({encoding, parts}: GivenWeight, numIn: number): Promise<Float32Array> {
  const floats = await Promise.all(
    parts.map(async ({weights, scales, offsets}) => {
      const [codes, $scales, $offsets] = await Promise.all(
        [weights, scales, offsets].map(async (tensor) => tensor && hostValuesOf(await tensor.data(), tensor.dtype)),
      );
      if (!isQuantizedEncoding(encoding)) {
        return codes as Float32Array;
      }
      const numRows = util.sizeFromShape(weights.shape.slice(0, -1));
      return dequantizedRows({codes: codes!, scales: $scales, offsets: $offsets}, encoding, numIn, 0, numRows);
    }),
  );
  if (floats.length === 1) {
    return floats[0];
  }
  const all = new Float32Array(floats.reduce((sum, {length}) => sum + length, 0));
  let end = 0;
  for (const values of floats) {
    all.set(values, end);
    end += values.length;
  }
  return all;
}

function assertZeros(values: Float32Array, weightName: string, opName: string): void {
  assert(
    values.every((value) => value === 0),
    opName,
    () => `${weightName} must be 0, because files of this family have none.`,
  );
}

function addTensors(
  weight: CheckpointWeight,
  values: Float32Array,
  weightName: string,
  dtypeOf: (name: string) => FloatDtype,
  written: CheckpointTensors,
  opName: string,
): void {
  const {count, shape, nameOf} = weight.tensors;
  for (let t = 0; t < count; t++) {
    const name = nameOf(t);
    const dtype = dtypeOf(name);
    const tensor: CheckpointTensor = {dtype, shape, bytes: encodeFloats(storedValues(weight, values, t), dtype)};
    const before = written.get(name);
    assert(
      before == null || areEqual(before.bytes as Uint8Array, tensor.bytes as Uint8Array),
      opName,
      () => `${weightName} must have the same values for each expert, because files of this family have one ${name}.`,
    );
    written.set(name, tensor);
  }
}

const areEqual = (a: Uint8Array, b: Uint8Array) => a.length === b.length && a.every((byte, i) => byte === b[i]);

/** The values of tensor number `t`, in the order of the file. */
function storedValues(weight: CheckpointWeight, values: Float32Array, t: number): Float32Array {
  const {numOut, numIn, numMatrices, isTransposed, isInterleaved, firstRowOf} = matricesOf(weight);
  const stored = new Float32Array(numMatrices * numOut * numIn);
  for (let matrix = 0; matrix < numMatrices; matrix++) {
    const to = stored.subarray(matrix * numOut * numIn, (matrix + 1) * numOut * numIn);
    for (let row = 0; row < numOut; row++) {
      const rowOfWeight = firstRowOf(t, matrix) + (isInterleaved ? (row >> 1) + (row % 2) * (numOut / 2) : row);
      const from = values.subarray(rowOfWeight * numIn, (rowOfWeight + 1) * numIn);
      if (isTransposed) {
        from.forEach((value, column) => {
          to[column * numOut + row] = value;
        });
      } else {
        to.set(from, row * numIn);
      }
    }
  }
  return stored;
}
