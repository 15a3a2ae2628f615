/** GGUF files, whose headers @huggingface/gguf reads. */
import {assert, describeValue} from '../../arguments/checks';
import {asCheckpointBytes, type CheckpointBytes, type CheckpointFile, numBytesOf, partOf} from './checkpoint_file';
import {type GgmlType, ggmlType} from './ggml_types';
import {type CheckpointTensor, type CheckpointTensors, nameOf, shortShape} from './safetensors';

/** What `gguf(url)` of @huggingface/gguf gives, as far as it is used. */
export type GgufHeader = {
  /** Where the tensors' bytes begin in the file. */
  tensorDataOffset: bigint;
  /** What the header says of each tensor. */
  tensorInfos: ReadonlyArray<{
    name: string;
    /** The inputs first. */
    shape: readonly bigint[];
    /** The number of a type of ggml. */
    dtype: number;
    /** From tensorDataOffset on. */
    offset: bigint;
  }>;
  /** Files of big-endian machines are errors. Default true. */
  littleEndian?: boolean;
};

const opName = 'readGguf';

/**
 * The tensors of a GGUF file, or of all its shards, by name, for moeCheckpoint and loadMoeCheckpoint.
 *
 * ```js
 * import {readGguf} from 'tfjs-moe/checkpoints';
 * // In your code, the file is `await remoteCheckpointFile(url)`; the header, `await gguf(url)` of @huggingface/gguf.
 * const file = new Blob([new Uint8Array(64 + 2 * 18)]);
 * const header = {
 *   tensorDataOffset: 64n,
 *   tensorInfos: [{name: 'blk.0.ffn_up.weight', shape: [32n, 2n], dtype: 2, offset: BigInt(0)}],
 * };
 * const up = readGguf(file, header).get('blk.0.ffn_up.weight');
 * up?.dtype; // => 'Q4_0'
 * up?.shape; // => [2, 32]
 * ```
 *
 * @param files  One file, or a list of its shards, as in readSafetensors. Nothing of them is read.
 * @param headers  For one file, what `gguf(url)` of the npm package @huggingface/gguf gives; for a list of files, the
 *     list of these, which is `shards` of its `ggufAllShards(url)`.
 * @returns A Map from names to `{dtype, shape, bytes}`, as of readSafetensors. `dtype` is the name of a type of ggml,
 *     such as `'Q4_K'`, and the inputs are the last axis of `shape`.
 *
 * @throws if there are more headers than files, or fewer. Also if a tensor's rows are no whole blocks of its type, or
 *     its bytes overlap those of another or pass the end of the file. Also if a name is there twice, or a file is
 *     big-endian.
 */
export function readGguf(
  files: CheckpointFile | readonly CheckpointFile[],
  headers: GgufHeader | readonly GgufHeader[],
): CheckpointTensors {
  const allFiles: readonly CheckpointFile[] = Array.isArray(files) ? files : [files];
  const allHeaders: readonly GgufHeader[] = Array.isArray(headers) ? headers : [headers];
  assert(
    allFiles.length > 0 && allFiles.length === allHeaders.length,
    opName,
    () => `headers must have one for each of ${allFiles.length} files, but has ${allHeaders.length}.`,
  );
  const tensors: CheckpointTensors = new Map();
  allHeaders.forEach((header, f) => {
    const fileName = `files[${f}]`;
    const bytes = asCheckpointBytes(allFiles[f], fileName, opName);
    for (const {name, tensor} of tensorsOf(bytes, header, fileName, `headers[${f}]`)) {
      assert(!tensors.has(name), opName, () => `${nameOf(name)} must be once in the files, but is there twice.`);
      tensors.set(name, tensor);
    }
  });
  return tensors;
}

type Placed = {name: string; shape: number[]; dtype: string; begin: number; numBytes: number | undefined};

function tensorsOf(
  bytes: CheckpointBytes,
  header: GgufHeader,
  fileName: string,
  headerName: string,
): Array<{name: string; tensor: CheckpointTensor}> {
  const {tensorDataOffset, tensorInfos, littleEndian} = (header ?? {}) as Partial<GgufHeader>;
  assert(
    typeof tensorDataOffset === 'bigint' && Array.isArray(tensorInfos),
    opName,
    () => `${headerName} must be what gguf() of @huggingface/gguf gives, but is ${describeValue(header)}.`,
  );
  assert(littleEndian ?? true, opName, () => `${fileName} must be little-endian, but is big-endian.`);
  const size = numBytesOf(bytes);
  const placed = tensorInfos!.map((info) => checked(info, tensorDataOffset!, size, fileName));
  // A tensor without bytes may be where another begins.
  placed.sort((a, b) => a.begin - b.begin || (a.numBytes ?? 0) - (b.numBytes ?? 0));
  return placed.map(({name, shape, dtype, begin, numBytes}, i) => {
    // A type that is unknown here may fill the space up to the next tensor.
    const endOfSpace = placed[i + 1]?.begin ?? size;
    const end = numBytes == null ? endOfSpace : begin + numBytes;
    assert(
      end <= endOfSpace,
      opName,
      () =>
        `${nameOf(name)} of ${fileName} must end at byte ${endOfSpace}, where ` +
        `${i + 1 < placed.length ? `${nameOf(placed[i + 1].name)} begins` : 'the file ends'}, but takes ${end - begin} ` +
        `bytes from ${begin} on as ${dtype} ${shortShape(shape)}.`,
    );
    return {name, tensor: {dtype, shape, bytes: partOf(bytes, begin, end)}};
  });
}

function checked(info: unknown, dataOffset: bigint, size: number, fileName: string): Placed {
  const {name, shape, dtype, offset} = (info ?? {}) as {[field: string]: unknown};
  if (typeof name !== 'string' || !areSizes(shape) || !isTypeNumber(dtype) || typeof offset !== 'bigint') {
    throw new Error(
      `Error in ${opName}: ${typeof name === 'string' ? nameOf(name) : 'a tensor'} of ${fileName} must have a name, a ` +
        'shape of bigints, a dtype and an offset, but is ' +
        `${describeValue({name, shape: String(shape), dtype, offset: String(offset)})}.`,
    );
  }
  const begin = dataOffset + offset;
  assert(
    dataOffset >= 0 && offset >= 0 && begin <= size,
    opName,
    () => `${nameOf(name)} of ${fileName} must begin within its ${size} bytes, but begins at ${begin}.`,
  );
  const type = ggmlType(dtype);
  const [numIn = BigInt(1)] = shape;
  assert(
    type == null || numIn % BigInt(type.blockSize) === BigInt(0),
    opName,
    () =>
      `${nameOf(name)} of ${fileName} must have rows of a multiple of ${type!.blockSize} weights as ${type!.name}, but ` +
      `has rows of ${numIn}.`,
  );
  const numBytes = type && bytesTaken(shape, type);
  assert(
    numBytes == null || begin + numBytes <= size,
    opName,
    () =>
      `${nameOf(name)} of ${fileName} must end within its ${size} bytes, but takes ${numBytes} bytes from ${begin} on as ` +
      `${type!.name} [${shape.join()}] (inputs first).`,
  );
  return {
    name,
    // Lengths that no number holds are of types unknown here, or of tensors without bytes. Nobody can ask for them.
    shape: [...shape].reverse().map(Number),
    dtype: type?.name ?? `GGML_${dtype}`,
    begin: Number(begin),
    numBytes: numBytes == null ? undefined : Number(numBytes),
  };
}

const bytesTaken = (shape: readonly bigint[], {blockSize, typeSize}: GgmlType): bigint =>
  (shape.reduce((product, length) => product * length, BigInt(1)) / BigInt(blockSize)) * BigInt(typeSize);

const MAX_AXES = 8;

const areSizes = (shape: unknown): shape is bigint[] =>
  Array.isArray(shape) &&
  shape.length <= MAX_AXES &&
  shape.every((length) => typeof length === 'bigint' && length >= 0);

const isTypeNumber = (dtype: unknown): dtype is number => Number.isSafeInteger(dtype) && (dtype as number) >= 0;
