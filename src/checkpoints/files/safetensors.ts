/** The safetensors format: 8 bytes of little-endian header length, a JSON header, then the tensors' bytes. */
import {assert, describeValue, shorten} from '../../arguments/checks';
import {float16} from '../../kernels/weight_formats/float16';
import {
  asCheckpointBytes,
  type CheckpointBytes,
  type CheckpointFile,
  isSliceable,
  isUint8Array,
  numBytesOf,
  partOf,
  readAllBytes,
  readBytes,
  type Reading,
} from './checkpoint_file';
import {ggmlTypeNamed} from './ggml_types';

/** One tensor of a file. */
export type CheckpointTensor = {
  /** The format's name of the dtype, such as 'BF16'. */
  dtype: string;
  /** The sizes of its axes; none for a scalar. */
  shape: number[];
  /** Its values, little-endian, in row-major order: a part of the file, not a copy. */
  bytes: CheckpointBytes;
};

/** The tensors of one or several files, by name. */
export type CheckpointTensors = Map<string, CheckpointTensor>;

type TensorHeader = {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
};

const bitsOfDtype: ReadonlyMap<string, number> = /* @__PURE__ */ new Map(
  /* @__PURE__ */ Object.entries({
    F4: 4,
    F6_E2M3: 6,
    F6_E3M2: 6,
    BOOL: 8,
    U8: 8,
    I8: 8,
    F8_E4M3: 8,
    F8_E4M3FNUZ: 8,
    F8_E5M2: 8,
    F8_E5M2FNUZ: 8,
    F8_E8M0: 8,
    U16: 16,
    I16: 16,
    F16: 16,
    BF16: 16,
    U32: 32,
    I32: 32,
    F32: 32,
    U64: 64,
    I64: 64,
    F64: 64,
    C64: 64,
  }),
);

/** The longest header that the reader by the format's authors accepts. */
const MAX_HEADER_BYTES = 100_000_000;

const MAX_SHOWN_DIMENSIONS = 8;

/**
 * The tensors of one safetensors file, or of all shards of a checkpoint, by name. Only the headers are read.
 *
 * ```js
 * import {readSafetensors, safetensorsValues} from 'tfjs-moe/checkpoints';
 * // In your code, a Blob, a File of an <input>, or await remoteCheckpointFile(url)
 * const header = new TextEncoder().encode('{"scale":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]}}');
 * const file = new Blob([Uint8Array.of(header.length, 0, 0, 0, 0, 0, 0, 0, ...header, 0x80, 0x3f, 0, 0xc0)]);
 * const scale = (await readSafetensors(file)).get('scale');
 * scale?.shape; // => [1, 2]
 * scale && [...await safetensorsValues(scale)]; // => [1, -2]
 * ```
 *
 * @param files  One file, or a list of files: bytes in memory, which may be shared, or whatever has a size and
 *     `slice(start, end).arrayBuffer()`, such as a Blob.
 * @param options.signal  Calls the reading off.
 * @returns A promise of a Map from names to `{dtype, shape, bytes}`, in which `bytes` are parts of the files: a
 *     Uint8Array of a file in memory, and `{size, slice}` of others.
 *
 * @throws if a header does not follow the format or is longer than 100,000,000 bytes. Also if a tensor has another
 *     number of bytes than its dtype and shape take, or its bytes overlap, leave a gap or pass the end of the file.
 *     Also if two files have a tensor of the same name. Like all errors of these functions, it rejects the promise.
 *
 * Source: https://huggingface.co/docs/safetensors, "Format", and the checks of its Rust crate.
 */
export async function readSafetensors(
  files: CheckpointFile | readonly CheckpointFile[],
  options: {signal?: AbortSignal | null} = {},
): Promise<CheckpointTensors> {
  return readHeaders(files, {opName: 'readSafetensors', signal: options.signal});
}

/** readSafetensors with errors in the name of `reading.opName`, the function that was called. */
export async function readHeaders(
  files: CheckpointFile | readonly CheckpointFile[],
  reading: Reading,
): Promise<CheckpointTensors> {
  const {opName} = reading;
  const given: readonly CheckpointFile[] = Array.isArray(files) ? files : [files];
  assert(given.length > 0, opName, () => 'files must have at least one file, but is empty.');
  const tensors: CheckpointTensors = new Map();
  const numTensorsUpTo: number[] = [];
  for (const [f, file] of given.entries()) {
    const fileName = `files[${f}]`;
    await readFile(asCheckpointBytes(file, fileName, opName), fileName, reading, (name, tensor) => {
      const numBefore = tensors.size;
      tensors.set(name, tensor);
      assert(tensors.size > numBefore, opName, () => {
        const place = [...tensors.keys()].indexOf(name);
        const first = numTensorsUpTo.findIndex((numTensors) => place < numTensors);
        return `${nameOf(name)} must be in one file, but is in files[${first}] and in ${fileName}.`;
      });
    });
    numTensorsUpTo.push(tensors.size);
  }
  return tensors;
}

/** A tensor's name in a message. It is whole, unless it is too long for a name. */
export const shortName = (name: string): string => shorten(name, 200);
export const nameOf = (name: string): string => `tensor '${shortName(name)}'`;

/** Passes every tensor of a file to `add`, in the order of their bytes, after the whole header is checked. */
async function readFile(
  bytes: CheckpointBytes,
  fileName: string,
  reading: Reading,
  add: (name: string, tensor: CheckpointTensor) => void,
): Promise<void> {
  const {opName} = reading;
  const {header, data} = await splitFile(bytes, fileName, reading);
  const {names, tensors} = inOrderOfBytes(checkedTensors(header, fileName, opName));
  let end = 0;
  tensors.forEach(({data_offsets: [begin, tensorEnd]}, i) => {
    const expectedBegin = end;
    assert(
      begin === expectedBegin,
      opName,
      () =>
        `${nameOf(names[i])} of ${fileName} must begin at byte ${expectedBegin} of the data, where the tensor before ` +
        `it ends, but its data_offsets are [${begin},${tensorEnd}].`,
    );
    end = tensorEnd;
  });
  assert(
    end === numBytesOf(data),
    opName,
    () => `${fileName} must have ${end} bytes of data, where its last tensor ends, but has ${numBytesOf(data)}.`,
  );
  tensors.forEach(({dtype, shape, data_offsets: [begin, tensorEnd]}, i) => {
    add(names[i], {dtype, shape, bytes: partOf(data, begin, tensorEnd)});
  });
}

/** Two lists, because there may be a million tensors. */
type NamedTensors = {names: string[]; tensors: TensorHeader[]};

function checkedTensors(header: Record<string, unknown>, fileName: string, opName: string): NamedTensors {
  const names = Object.keys(header).filter((name) => name !== '__metadata__');
  return {names, tensors: names.map((name) => checkTensorHeader(header[name], name, fileName, opName))};
}

function inOrderOfBytes({names, tensors}: NamedTensors): NamedTensors {
  const compare = ({data_offsets: a}: TensorHeader, {data_offsets: b}: TensorHeader) => a[0] - b[0] || a[1] - b[1];
  // Nearly every writer lists tensors in this order.
  if (tensors.every((tensor, i) => i === 0 || compare(tensors[i - 1], tensor) <= 0)) {
    return {names, tensors};
  }
  const order = [...tensors.keys()].sort((a, b) => compare(tensors[a], tensors[b]));
  return {names: order.map((i) => names[i]), tensors: order.map((i) => tensors[i])};
}

async function splitFile(
  bytes: CheckpointBytes,
  fileName: string,
  reading: Reading,
): Promise<{header: Record<string, unknown>; data: CheckpointBytes}> {
  const {opName} = reading;
  const size = numBytesOf(bytes);
  assert(
    size >= 8,
    opName,
    () => `${fileName} must begin with the 8 bytes of its header's length, but has ${size} bytes.`,
  );
  const first = await readBytes(bytes, 0, 8, reading);
  const view = new DataView(first.buffer, first.byteOffset, 8);
  const headerLength = view.getUint32(0, true) + 2 ** 32 * view.getUint32(4, true);
  assert(
    headerLength <= size - 8,
    opName,
    () =>
      `${fileName} must have a header of ${headerLength} bytes, as its first 8 bytes say, but has ` +
      `${size - 8} after them. Is it a whole safetensors file?`,
  );
  assert(
    headerLength <= MAX_HEADER_BYTES,
    opName,
    () => `${fileName} must have a header of at most ${MAX_HEADER_BYTES} bytes, but it has ${headerLength}.`,
  );
  const header = parseJson(await readAllBytes(partOf(bytes, 8, 8 + headerLength), reading));
  assert(
    isRecord(header),
    opName,
    () => `${fileName} must have a header that is a JSON object. Is it a safetensors file?`,
  );
  return {header: header as Record<string, unknown>, data: partOf(bytes, 8 + headerLength, size)};
}

/** Undefined if the bytes are no JSON in UTF-8. */
function parseJson(bytes: Uint8Array): unknown {
  try {
    // A copy, because browsers refuse to decode shared memory.
    return JSON.parse(new TextDecoder('utf-8', {fatal: true, ignoreBOM: true}).decode(bytes.slice()));
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const areCounts = (values: unknown): values is number[] =>
  Array.isArray(values) && values.every((value) => Number.isSafeInteger(value) && value >= 0);

/** Newer versions of the format have dtypes that are unknown here. They are accepted. */
const isDtype = (value: unknown): value is string => typeof value === 'string' && /^[A-Z][A-Z0-9_]{0,31}$/.test(value);

function checkTensorHeader(entry: unknown, name: string, fileName: string, opName: string): TensorHeader {
  const {dtype, shape, data_offsets: offsets} = isRecord(entry) ? entry : {};
  const areOffsets = areCounts(offsets) && offsets.length === 2 && offsets[0] <= offsets[1];
  if (!isDtype(dtype) || !areCounts(shape) || !areOffsets) {
    throw new Error(
      `Error in ${opName}: ${nameOf(name)} of ${fileName} must have a dtype, a shape and two ascending data_offsets, ` +
        `but is ${describeValue(entry)}.`,
    );
  }
  const numBytes = offsets[1] - offsets[0];
  const expected = bytesTaken(dtype, shape);
  assert(
    expected == null || expected === numBytes,
    opName,
    () =>
      `${nameOf(name)} of ${fileName} must take ${expected} bytes as ${dtype} ${shortShape(shape)}, but its data_offsets ` +
      `[${offsets}] span ${numBytes}.`,
  );
  return entry as TensorHeader;
}

export const shortShape = (shape: readonly number[]): string =>
  `[${shape.slice(0, MAX_SHOWN_DIMENSIONS)}${shape.length > MAX_SHOWN_DIMENSIONS ? ',…' : ''}]`;

/** A multiple of 1/32, and so exact. */
function bitsOfGgmlType(dtype: string): number | undefined {
  const type = ggmlTypeNamed(dtype);
  return type && (8 * type.typeSize) / type.blockSize;
}

/** Whether the dtype is one of ggml, which safetensors files lack. */
export const isOfGgml = (dtype: string): boolean => !bitsOfDtype.has(dtype) && ggmlTypeNamed(dtype) != null;

/** The number of bytes of a tensor; undefined for an unknown dtype. */
function bytesTaken(dtype: string, shape: readonly number[]): number | undefined {
  const bits = bitsOfDtype.get(dtype) ?? bitsOfGgmlType(dtype);
  return bits && (shape.includes(0) ? 0 : shape.reduce((product, length) => product * length, bits / 8));
}

export const readableDtypes: readonly string[] = ['F32', 'F16', 'BF16'];

/**
 * The values of a tensor of readSafetensors as float32. Every F32, F16 and BF16 value is exact.
 *
 * ```js
 * import {safetensorsValues} from 'tfjs-moe/checkpoints';
 * [...await safetensorsValues({dtype: 'F16', shape: [2], bytes: Uint8Array.of(0, 0x3c, 0, 0xb8)})]; // => [1, -0.5]
 * ```
 *
 * @param tensor  `{dtype, shape, bytes}`, of dtype F32, F16 or BF16.
 * @param options.signal  Calls the reading off.
 * @returns A promise of a new Float32Array, for tf.tensor with the tensor's shape.
 *
 * @throws if the dtype is another, or `bytes` has another length than dtype and shape take.
 */
export async function safetensorsValues(
  tensor: CheckpointTensor,
  options: {signal?: AbortSignal | null} = {},
): Promise<Float32Array> {
  const opName = 'safetensorsValues';
  const misfit = misfitOf(tensor, readableDtypes);
  assert(misfit == null, opName, () => `tensor must be ${misfit!.expected}, but is ${misfit!.given}.`);
  const bytes = await readAllBytes(tensor.bytes, {opName, signal: options.signal});
  const values = new Float32Array((8 * bytes.length) / bitsOfDtype.get(tensor.dtype)!);
  decodeFloats(tensor.dtype, bytes, values);
  return values;
}

export type Misfit = {expected: string; given: string};

/** Why `tensor` is no tensor of a file, of one of these dtypes; undefined if it is. */
export function misfitOf(tensor: unknown, dtypes: readonly string[]): Misfit | undefined {
  const {dtype, shape, bytes} = isRecord(tensor) ? tensor : {};
  if (typeof dtype !== 'string' || !areCounts(shape) || !(isUint8Array(bytes) || isSliceable(bytes))) {
    return {expected: 'a dtype, a shape and bytes in a Uint8Array or a Blob', given: describeValue(tensor)};
  }
  if (!dtypes.includes(dtype)) {
    return {expected: dtypes.join(' or '), given: shorten(dtype)};
  }
  const expected = bytesTaken(dtype, shape);
  const given = numBytesOf(bytes);
  return expected == null || given === expected
    ? undefined
    : {expected: `${expected} bytes as ${dtype} ${shortShape(shape)}`, given: `${given} bytes`};
}

/** Fills `out` with the values of `bytes`, of one of readableDtypes. The host is little-endian, as tfjs assumes too. */
export function decodeFloats(dtype: string, bytes: Uint8Array, out: Float32Array): void {
  if (dtype === 'F32') {
    // Copied as bytes, because the offsets of the tensor and of the file need not be multiples of 4.
    new Uint8Array(out.buffer, out.byteOffset, out.byteLength).set(bytes);
    return;
  }
  const halves = halvesOf(bytes);
  if (dtype === 'BF16') {
    const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
    for (let i = 0; i < halves.length; i++) {
      bits[i] = halves[i] << 16;
    }
  } else {
    const values = valuesOfHalves();
    for (let i = 0; i < halves.length; i++) {
      out[i] = values[halves[i]];
    }
  }
}

/** The bytes as 16-bit words. They are copied only if they lie at an odd offset, which writers avoid. */
export function halvesOf(bytes: Uint8Array): Uint16Array {
  const {buffer, byteOffset, length} = bytes.byteOffset % 2 === 0 ? bytes : new Uint8Array(bytes);
  return new Uint16Array(buffer, byteOffset, length / 2);
}

let halfValues: Float32Array | undefined;

/** The value of each of the 2^16 float16s. Looking values up is several times faster than decoding their bits. */
function valuesOfHalves(): Float32Array {
  halfValues ??= Float32Array.from({length: 2 ** 16}, (_, half) => float16.decode(half));
  return halfValues;
}
