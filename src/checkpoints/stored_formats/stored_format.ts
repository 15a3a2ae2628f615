/** How files store the matrices of a block: what a format is. */
import {util} from '@tensorflow/tfjs-core';
import {shorten} from '../../arguments/checks';
import type {WeightEncoding} from '../../contract/quantized_weights';
import type {MoeModelConfig} from '../config_reader';
import {type CheckpointTensor, type CheckpointTensors, misfitOf, shortShape} from '../files/safetensors';
import type {Rows} from '../weights/rows';

/** Matrices [numOut, numIn] that an unquantized file has in one tensor. */
export type Matrices = {
  /** The tensor's name in an unquantized file. */
  name: string;
  /** Its shape there. */
  shape: number[];
  numMatrices: number;
  numOut: number;
  numIn: number;
  /** Whether an unquantized file has them as [numIn, numOut]. */
  isTransposed: boolean;
};

/** Where matrices are, and how their bytes become rows. */
export type StoredMatrices = {
  /** Of the rows that `decode` gives. Nothing is rounded. */
  encoding: WeightEncoding;
  /** The tensor of weights or of their codes, one matrix after another. */
  weights: CheckpointTensor;
  /** The tensors that are read before it, as a whole: scales and zero points. */
  extras: CheckpointTensor[];
  /** Whether rows follow each other in the bytes, so that some can be read alone. Else matrices are read whole. */
  hasRows: boolean;
  /** Rows of one matrix, from a multiple of 8 on. `bytes` are theirs, or those of the whole matrix. */
  decode: (bytes: Uint8Array, at: RowsAt, extras: Uint8Array[]) => Rows;
};

export type RowsAt = {matrix: number; firstRow: number; numRows: number};

/** Lines about tensors that are missing or do not fit. */
export type Problems = {problems: string[]};

/** The files of a checkpoint, and the function in whose name errors are. */
export type StoredFiles = {tensors: CheckpointTensors; config: MoeModelConfig; opName: string};

export type StoredFormat = {
  /** The matrices; what is wrong with their tensors; or undefined if the files do not have them in this format. */
  find: (matrices: Matrices, files: StoredFiles) => StoredMatrices | Problems | undefined;
};

/** What a format asks for: names without a tensor are undefined, and each problem is noted. */
export class TensorFinder {
  readonly problems: string[] = [];

  constructor(private readonly tensors: CheckpointTensors) {}

  /** The tensor of this name, dtype and shape. Shapes are alternatives. */
  take(name: string, dtypes: readonly string[], ...shapes: number[][]): CheckpointTensor {
    const found = this.tensors.get(name);
    const problem = problemOf(found, dtypes, shapes);
    if (problem != null) {
      this.note(name, problem);
    }
    // If there is a problem, nobody reads it.
    return found!;
  }

  /** Notes a problem of the tensor of this name. */
  note(name: string, problem: string): void {
    this.problems.push(`${shorten(name, 200)}: ${problem}`);
  }
}

function problemOf(
  found: CheckpointTensor | undefined,
  dtypes: readonly string[],
  shapes: number[][],
): string | undefined {
  if (found == null) {
    return `expected ${listed(shapes)}, but there is none`;
  }
  const misfit = misfitOf(found, dtypes);
  if (misfit != null) {
    return `expected ${misfit.expected}, but is ${misfit.given}`;
  }
  return shapes.some((shape) => util.arraysEqual(found.shape, shape))
    ? undefined
    : `expected ${listed(shapes)}, but is ${shortShape(found.shape)}`;
}

/** What the names of a matrix of its own begin with, where a quantized format has several tensors in its place. */
export const linearOf = ({name, shape, isTransposed}: Matrices): string | undefined =>
  shape.length === 2 && !isTransposed && name.endsWith('.weight') ? name.slice(0, -'.weight'.length) : undefined;

const listed = (shapes: number[][]) => shapes.map((shape) => `[${shape}]`).join(' or ');

/** Bytes as words, without a copy where they lie at a multiple of 4. */
export function wordsOf(bytes: Uint8Array): Int32Array {
  const {buffer, byteOffset, length} = bytes.byteOffset % 4 === 0 ? bytes : new Uint8Array(bytes);
  return new Int32Array(buffer, byteOffset, length / 4);
}
