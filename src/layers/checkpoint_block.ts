/** The block of one layer in the files of a checkpoint: found, checked, and read into tensors. */
import {tensor, type Tensor, tensor3d, type Tensor3D, util} from '@tensorflow/tfjs-core';
import {assert} from '../ops/checks';
import {
  checkpointLayout,
  type CheckpointLayout,
  type CheckpointTensor,
  type MoeModelConfig,
  type TransposedMatrices,
  whyLayerMayDiffer,
} from './checkpoint_layouts';
import {type WeightName, weightNames} from './expert_weights';
import {
  parseSafetensors,
  readableDtypes,
  readValues,
  type SafetensorsBytes,
  type SafetensorsTensor,
  type SafetensorsTensors,
} from './safetensors';

/** The bytes of one safetensors file, a list of those of several, or tensors as readSafetensors gives them. */
export type MoeCheckpointFiles = SafetensorsBytes | readonly SafetensorsBytes[] | SafetensorsTensors;

export type LoadMoeCheckpointOptions = {
  layer: number;
  prefix?: string | null;
};

/** A weight of the block, with the tensors of the files that it is the concatenation of. */
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

/** A Map of another window is one, too. */
function isTensorMap(files: MoeCheckpointFiles): files is SafetensorsTensors {
  return Object.prototype.toString.call(files) === '[object Map]';
}

/** Finds and checks every tensor of the block; none is read. */
export function readBlock(
  files: MoeCheckpointFiles,
  config: MoeModelConfig,
  {layer, prefix}: Partial<LoadMoeCheckpointOptions>,
  opName: string,
): StoredBlock {
  assert(
    Number.isInteger(layer) && layer! >= 0,
    opName,
    () => `options.layer must be the number of a layer, from 0, but is ${String(layer)}.`,
  );
  const tensors = isTensorMap(files) ? files : parseSafetensors(files, opName);
  const at = `${prefix ?? 'model.'}layers.${layer}.`;
  const layout = checkpointLayout(config, {at, hasTensor: (name) => tensors.has(name)}, opName);
  const problems: string[] = [];
  const stored = new Map<WeightName, StoredWeight>();
  for (const name of weightNames) {
    const weight = layout.weights[name];
    if (weight != null) {
      const found = weight.tensors.map(({name: source}) => tensors.get(source));
      problems.push(...weight.tensors.flatMap((wanted, i) => problemOf(wanted, found[i]) ?? []));
      stored.set(name, {...weight, tensors: found.flatMap((source) => source ?? [])});
    }
  }
  const [example = 'none at all'] = tensors.keys();
  const what = `the checkpoint must have the tensors of a ${String(config['model_type'])} block (it has ${example}, …)`;
  assertNone(problems, what, opName, whyLayerMayDiffer(config, layer!));
  return {layout, stored};
}

function problemOf({name, shape}: CheckpointTensor, found: SafetensorsTensor | undefined): string | undefined {
  if (found == null) {
    return `${name}: expected [${shape}], but there is none`;
  }
  if (!util.arraysEqual(found.shape, shape)) {
    return `${name}: expected [${shape}], but is [${found.shape}]`;
  }
  if (!readableDtypes.includes(found.dtype)) {
    return `${name}: expected ${readableDtypes.join(' or ')}, but is ${found.dtype}`;
  }
  return undefined;
}

const MAX_LISTED_PROBLEMS = 10;

export function assertNone(problems: string[], what: string, opName: string, reasons: string[] = []): void {
  assert(problems.length === 0, opName, () => {
    const listed = problems.slice(0, MAX_LISTED_PROBLEMS);
    const numMore = problems.length - listed.length;
    const more = numMore > 0 ? [`… and ${numMore} more`] : [];
    return [`${what}, but ${problems.length} do not fit:`, ...listed, ...more, ...reasons].join('\n');
  });
}

export function toTensor(weight: StoredWeight): Tensor {
  return tensor(valuesOf(weight, 0, util.sizeFromShape(weight.shape)), weight.shape);
}

/** In parts of at most `expertsPerTensor` along axis 0. */
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

/** `size` values of the weight from the `from`-th on; whole matrices where they are transposed. */
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

/** Fills `out` with the values of the concatenated tensors from the `from`-th on. */
function readConcatenation(tensors: SafetensorsTensor[], from: number, out: Float32Array): void {
  let begin = -from;
  for (const stored of tensors) {
    const end = begin + util.sizeFromShape(stored.shape);
    const [first, last] = [Math.max(begin, 0), Math.min(end, out.length)];
    if (first < last) {
      readValues(stored, first - begin, out.subarray(first, last));
    }
    begin = end;
  }
}

/** Rows whose cache lines stay while all columns are read. */
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
