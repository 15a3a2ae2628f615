/** The block of one layer in the files of a checkpoint: found, checked, and read into tensors. */
import {tensor, type Tensor, tensor3d, type Tensor3D, util} from '@tensorflow/tfjs-core';
import {assert, describeValue} from '../arguments/checks';
import {checkpointLayout, type CheckpointLayout, type TransposedMatrices, whyLayerMayDiffer} from './layouts';
import {type MoeModelConfig} from './config_reader';
import {type WeightName} from '../contract/block_weights';
import {weightNames} from '../contract/block_weights';
import {
  misfitOf,
  parseSafetensors,
  readValues,
  type SafetensorsBytes,
  type SafetensorsTensor,
  type SafetensorsTensors,
  shortName,
  shortShape,
} from './safetensors';

/** The bytes of one safetensors file, a list of the bytes of several files, or the tensors of readSafetensors. */
export type MoeCheckpointFiles = SafetensorsBytes | readonly SafetensorsBytes[] | SafetensorsTensors;

export type LoadMoeCheckpointOptions = {
  /** The number of the layer in the checkpoint, from 0. */
  layerIndex: number;
  /** The beginning of the tensors' names, up to `layers.`. Default `'model.'`. */
  prefix?: string | null;
};

/** A weight of the block: the concatenation of tensors of the files, which all have one size. */
export type StoredWeight = {
  shape: number[];
  tensors: SafetensorsTensor[];
  transposed?: TransposedMatrices;
};

export type StoredBlock = {
  layout: CheckpointLayout;
  /** In the order of weightNames. */
  stored: Map<WeightName, StoredWeight>;
};

/** A Map of another window counts too. */
function isTensorMap(files: MoeCheckpointFiles): files is SafetensorsTensors {
  try {
    Map.prototype.has.call(files, '');
    return true;
  } catch {
    return false;
  }
}

/** Finds and checks every tensor of the block, without reading any. */
export function readBlock(
  files: MoeCheckpointFiles,
  config: MoeModelConfig,
  {layerIndex, prefix}: Partial<LoadMoeCheckpointOptions>,
  opName: string,
): StoredBlock {
  assert(
    Number.isSafeInteger(layerIndex) && layerIndex! >= 0,
    opName,
    () => `layerIndex must be the number of a layer, from 0, but is ${describeValue(layerIndex)}.`,
  );
  assert(
    prefix == null || typeof prefix === 'string',
    opName,
    () => `prefix must be a string, but is ${describeValue(prefix)}.`,
  );
  const tensors = isTensorMap(files) ? files : parseSafetensors(files, opName);
  const at = `${prefix ?? 'model.'}layers.${layerIndex}.`;
  const layout = checkpointLayout(config, {at, hasTensor: (name) => tensors.has(name)}, opName);
  const problems: string[] = [];
  const stored = new Map<WeightName, StoredWeight>();
  for (const name of weightNames) {
    const weight = layout.weights[name];
    if (weight != null) {
      const found: SafetensorsTensor[] = [];
      const {count, shape, nameOf} = weight.tensors;
      for (let i = 0; i < count && problems.length <= MAX_LISTED_PROBLEMS; i++) {
        const source = tensors.get(nameOf(i));
        const problem = problemOf(source, shape);
        if (problem == null) {
          found.push(source!);
        } else {
          problems.push(`${shortName(nameOf(i))}: ${problem}`);
        }
      }
      stored.set(name, {...weight, tensors: found});
    }
  }
  const [example = 'none at all'] = tensors.keys();
  const what =
    `the checkpoint must have the tensors of a ${String(config['model_type'])} block ` +
    `(it has ${shortName(String(example))}, …)`;
  assertNone(problems, what, opName, whyLayerMayDiffer(config, layerIndex!));
  return {layout, stored};
}

function problemOf(found: SafetensorsTensor | undefined, shape: number[]): string | undefined {
  if (found == null) {
    return `expected [${shape}], but there is none`;
  }
  const misfit = misfitOf(found);
  if (misfit != null) {
    return `expected ${misfit.expected}, but is ${misfit.given}`;
  }
  return util.arraysEqual(found.shape, shape) ? undefined : `expected [${shape}], but is ${shortShape(found.shape)}`;
}

const MAX_LISTED_PROBLEMS = 10;

/** Throws the first problems. If there are more than the list holds, the message says so. */
export function assertNone(problems: string[], what: string, opName: string, reasons: string[] = []): void {
  assert(problems.length === 0, opName, () => {
    const listed = problems.slice(0, MAX_LISTED_PROBLEMS);
    const count = problems.length > listed.length ? `more than ${listed.length}` : listed.length;
    return [`${what}, but ${count} do not fit:`, ...listed, ...reasons].join('\n');
  });
}

export function toTensor(weight: StoredWeight): Tensor {
  return tensor(valuesOf(weight, 0, util.sizeFromShape(weight.shape)), weight.shape);
}

/** The weight as tensors of at most `expertsPerTensor` experts along axis 0. */
export function toTensors(weight: StoredWeight, expertsPerTensor: number): Tensor3D[] {
  const [numExperts, rows, columns] = weight.shape;
  const parts: Tensor3D[] = [];
  for (let first = 0; first < numExperts; first += expertsPerTensor) {
    const count = Math.min(expertsPerTensor, numExperts - first);
    const values = valuesOf(weight, first * rows * columns, count * rows * columns);
    parts.push(tensor3d(values, [count, rows, columns]));
  }
  return parts;
}

/** `size` values of the weight, beginning at number `from`. Transposed weights are read in whole matrices. */
function valuesOf({tensors, transposed}: StoredWeight, from: number, size: number): Float32Array {
  const values = new Float32Array(size);
  if (transposed == null) {
    readConcatenation(tensors, from, values);
    return values;
  }
  const matrixSize = transposed.rows * transposed.columns;
  const matrix = new Float32Array(matrixSize);
  for (let at = 0; at < size; at += matrixSize) {
    readConcatenation(tensors, from + at, matrix);
    transpose(matrix, transposed, values.subarray(at, at + matrixSize));
  }
  return values;
}

/** Fills `out` with values of the concatenated tensors, beginning at number `from`. */
function readConcatenation(tensors: SafetensorsTensor[], from: number, out: Float32Array): void {
  const tensorSize = util.sizeFromShape(tensors[0].shape);
  let filled = 0;
  while (filled < out.length) {
    const index = Math.floor((from + filled) / tensorSize);
    const first = from + filled - index * tensorSize;
    const end = Math.min(filled + tensorSize - first, out.length);
    readValues(tensors[index], first, out.subarray(filled, end));
    filled = end;
  }
}

/** So few rows that their cache lines stay cached while all columns are read. */
const TRANSPOSED_ROWS = 32;

function transpose(matrix: Float32Array, {rows, columns, gatesFirst}: TransposedMatrices, out: Float32Array): void {
  for (let firstRow = 0; firstRow < rows; firstRow += TRANSPOSED_ROWS) {
    const endRow = Math.min(firstRow + TRANSPOSED_ROWS, rows);
    for (let column = 0; column < columns; column++) {
      const outRow = !gatesFirst ? column : (column >> 1) + (column % 2 === 0 ? 0 : columns / 2);
      for (let row = firstRow; row < endRow; row++) {
        out[outRow * rows + row] = matrix[row * columns + column];
      }
    }
  }
}
