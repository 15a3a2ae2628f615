/** The block of one layer in the files of a checkpoint: found, checked, and read into tensors. */
import {dispose, type Tensor, util} from '@tensorflow/tfjs-core';
import {assert, describeValue, shorten} from '../arguments/checks';
import {type WeightName, weightNames} from '../contract/block_weights';
import type {WeightTensors} from '../contract/expert_weights';
import {float32Encoding, type WeightEncoding} from '../contract/quantized_weights';
import type {MoeModelConfig} from './config_reader';
import {type CheckpointFile, MAX_SLICE_BYTES, numBytesOf, type Reading} from './files/checkpoint_file';
import {type ByteRange, readRanges} from './files/read_ranges';
import {type CheckpointTensors, readHeaders} from './files/safetensors';
import {ggufWeights, isGguf} from './gguf_weights';
import {checkpointLayout, type CheckpointLayout, type CheckpointWeight, textConfig, whyLayerMayDiffer} from './layouts';
import {findMatrices, hasMatrices, whyFormatIsUnknown} from './stored_formats/index';
import type {StoredFiles, StoredMatrices} from './stored_formats/stored_format';
import {matricesOf, type WeightMatrices} from './weights/matrices';
import {everySecondRow, type RowConverter, rowConverter, type Rows} from './weights/rows';
import {WeightWriter} from './weights/weight_writer';

/** One file, a list of files, or the tensors of readSafetensors. */
export type MoeCheckpointSource = CheckpointFile | readonly CheckpointFile[] | CheckpointTensors;

export type LoadMoeCheckpointOptions = {
  /** The number of the layer in the checkpoint, from 0. */
  layerIndex: number;
  /** The beginning of the tensors' names, up to `layers.`. Default: `'model.'`, or what the family has. */
  prefix?: string | null;
  /** Called with the part of the block's bytes that is read, 0 to 1. */
  onProgress?: ((fraction: number) => void) | null;
  /** Calls the reading off. The promise is rejected with its reason, and no tensor stays. */
  signal?: AbortSignal | null;
};

export const loadMoeCheckpointOptionNames = ['layerIndex', 'prefix', 'onProgress', 'signal'] as const;

/** A weight of the block, and where its tensors are. */
export type StoredWeight = WeightMatrices & {shape: number[]; stored: StoredMatrices[]};

/** What one weight is read from: more than one are the rows [1, D, C] that stand below each other in it. */
type StoredRows = StoredWeight | readonly StoredWeight[];

export type StoredBlock = {
  layout: CheckpointLayout;
  /** In the order of weightNames. */
  weights: Map<WeightName, StoredWeight>;
};

/** A Map of another window counts too. */
export function isTensorMap(files: MoeCheckpointSource): files is CheckpointTensors {
  try {
    Map.prototype.has.call(files, '');
    return true;
  } catch {
    return false;
  }
}

/** Finds and checks every tensor of the block, without reading any. */
export async function findBlock(
  files: MoeCheckpointSource,
  config: MoeModelConfig,
  {layerIndex, prefix, onProgress, signal}: Partial<LoadMoeCheckpointOptions>,
  opName: string,
): Promise<StoredBlock> {
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
  assert(
    onProgress == null || typeof onProgress === 'function',
    opName,
    () => `onProgress must be a function, but is ${describeValue(onProgress)}.`,
  );
  assert(
    signal == null || typeof signal.throwIfAborted === 'function',
    opName,
    () => `signal must be an AbortSignal, but is ${describeValue(signal)}.`,
  );
  const tensors = isTensorMap(files) ? files : await readHeaders(files, {opName, signal});
  const stored: StoredFiles = {tensors, config, opName};
  const place = {layerIndex: layerIndex!, prefix, hasTensor: (name: string) => hasMatrices(stored, name)};
  const layout = checkpointLayout(config, place, opName);
  const problems: string[] = [];
  const weights = new Map<WeightName, StoredWeight>();
  const described = isGguf(tensors) ? ggufWeights(layout, layerIndex!, tensors) : layout.weights;
  for (const name of weightNames) {
    const weight = described[name];
    if (weight != null) {
      weights.set(name, findWeight(weight, stored, problems));
    }
  }
  const [example = 'none at all'] = tensors.keys();
  const what =
    `the checkpoint must have the tensors of a ${String(textConfig(config, opName).config['model_type'])} block ` +
    `(it has ${shorten(String(example), 200)}, …)`;
  assertNone(problems, what, opName, [...whyFormatIsUnknown(config), ...whyLayerMayDiffer(config, layerIndex!)]);
  return {layout, weights};
}

/** Finds the tensors of a weight. What does not fit is added to `problems`. */
export function findWeight(weight: CheckpointWeight, files: StoredFiles, problems: string[]): StoredWeight {
  const {count, shape, nameOf} = weight.tensors;
  const matrices = matricesOf(weight);
  const stored: StoredMatrices[] = [];
  for (let t = 0; t < count && problems.length <= MAX_LISTED_PROBLEMS; t++) {
    const found = findMatrices({name: nameOf(t), shape, ...matrices}, files);
    if ('problems' in found) {
      problems.push(...found.problems);
    } else {
      stored.push(found);
    }
  }
  return {shape: weight.shape, ...matrices, stored};
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

/** What becomes of a weight. */
export type WeightTarget = {encoding: WeightEncoding; expertsPerTensor: number};

export const float32Target: WeightTarget = {encoding: float32Encoding, expertsPerTensor: Infinity};

/** The tensors of each weight: one entry for each part. */
export type ReadWeights<Name> = Map<Name, Array<WeightTensors<Tensor>>>;

/** The number of bytes that readWeights reads. */
export function numStoredBytes(weights: ReadonlyMap<string, StoredRows>): number {
  const tensors = [...weights.values()]
    .flat()
    .flatMap(({stored}) => stored.flatMap(({weights: codes, extras}) => [codes, ...extras]));
  return tensors.reduce((sum, {bytes}) => sum + numBytesOf(bytes), 0);
}

/** Reads weights. The tensors belong to the caller; none is left if the promise is rejected. */
export async function readWeights<Name extends string>(
  weights: ReadonlyMap<Name, StoredRows>,
  targetOf: (name: Name) => WeightTarget,
  {onProgress, ...reading}: Reading & Pick<LoadMoeCheckpointOptions, 'onProgress'>,
): Promise<ReadWeights<Name>> {
  const writers = new Map<Name, WeightWriter>();
  const read: ReadWeights<Name> = new Map();
  try {
    const extras: ByteRange[] = [];
    const rows: ByteRange[] = [];
    for (const [name, given] of weights) {
      const pieces = [given].flat() as StoredWeight[];
      const target = targetOf(name);
      const writer = new WeightWriter(
        {shape: shapeBelow(pieces), numIn: pieces[0].numIn, ...target},
        name,
        reading.opName,
      );
      writers.set(name, writer);
      let firstRow = 0;
      for (const piece of pieces) {
        const first = firstRow;
        const write = (row: number, written: Rows) => writer.write(first + row, written);
        addRanges(piece, target.encoding, write, extras, rows);
        firstRow += util.sizeFromShape(piece.shape) / piece.numIn;
      }
    }
    const total = numStoredBytes(weights);
    let done = 0;
    const onRead = (numBytes: number) => {
      done += numBytes;
      onProgress?.(done / total);
    };
    await readRanges(extras, reading, onRead);
    await readRanges(rows, reading, onRead);
    writers.forEach((writer, name) => read.set(name, writer.finish()));
    return read;
  } catch (error) {
    dispose([...read.values()].flatMap((parts) => parts.flatMap((part) => Object.values(part))));
    writers.forEach((writer) => writer.dispose());
    throw error;
  }
}

/** The shape of weights that stand below each other. */
function shapeBelow([first, ...others]: readonly StoredWeight[]): number[] {
  if (others.length === 0) {
    return first.shape;
  }
  return [1, others.reduce((sum, {shape}) => sum + shape[1], first.shape[1]), first.numIn];
}

/** Rows that are converted at once take about so many bytes in their file. */
const MAX_CONVERTED_BYTES = MAX_SLICE_BYTES / 4;
/** Rows are converted in multiples of so many: those of a word of AWQ, or pairs of a gate and an up. */
const ROWS_TOGETHER = 8;

/** Notes what has to be read of a weight, and what is written then. */
function addRanges(
  {shape, stored, numOut, numIn, numMatrices, isInterleaved, firstRowOf}: StoredWeight,
  encoding: WeightEncoding,
  write: (firstRow: number, rows: Rows) => void,
  extras: ByteRange[],
  rows: ByteRange[],
): void {
  const converters = new Map<WeightEncoding, RowConverter>();
  if (stored.length === 0) {
    // The family has no such tensor, and a new buffer may hold anything.
    write(0, {weights: new Float32Array(util.sizeFromShape(shape))});
  }
  stored.forEach((matrices, t) => {
    const {weights, hasRows, decode} = matrices;
    const convert = converters.get(matrices.encoding) ?? rowConverter(matrices.encoding, encoding, numIn);
    converters.set(matrices.encoding, convert);
    const bytesOfExtras: Uint8Array[] = [];
    matrices.extras.forEach(({bytes}, e) => {
      extras.push({
        bytes,
        begin: 0,
        end: numBytesOf(bytes),
        use: (read) => {
          // A copy, also of a Buffer.
          bytesOfExtras[e] = new Uint8Array(read);
        },
      });
    });
    const bytesPerMatrix = numBytesOf(weights.bytes) / numMatrices;
    const bytesPerRow = bytesPerMatrix / numOut;
    const convertedAtOnce = ROWS_TOGETHER * Math.max(1, Math.floor(MAX_CONVERTED_BYTES / bytesPerRow / ROWS_TOGETHER));
    const readAtOnce = hasRows ? convertedAtOnce : numOut;
    for (let matrix = 0; matrix < numMatrices; matrix++) {
      const firstOfMatrix = firstRowOf(t, matrix);
      const use = (read: Uint8Array, firstRow: number, numRows: number): void => {
        const converted = convert(decode(read, {matrix, firstRow, numRows}, bytesOfExtras), numRows);
        if (isInterleaved) {
          const firstGate = firstOfMatrix + firstRow / 2;
          write(firstGate, everySecondRow(converted, 0, numRows));
          write(firstGate + numOut / 2, everySecondRow(converted, 1, numRows));
        } else {
          write(firstOfMatrix + firstRow, converted);
        }
      };
      forRows(0, numOut, readAtOnce, (firstRead, numRead) => {
        const begin = matrix * bytesPerMatrix + firstRead * bytesPerRow;
        rows.push({
          bytes: weights.bytes,
          begin,
          end: begin + numRead * bytesPerRow,
          use: (read) =>
            forRows(firstRead, firstRead + numRead, convertedAtOnce, (first, numRows) => use(read, first, numRows)),
        });
      });
    }
  });
}

/** Rows `begin` to `end - 1`, at most `atOnce` at a time. */
function forRows(begin: number, end: number, atOnce: number, use: (firstRow: number, numRows: number) => void): void {
  for (let firstRow = begin; firstRow < end; firstRow += atOnce) {
    use(firstRow, Math.min(atOnce, end - firstRow));
  }
}
