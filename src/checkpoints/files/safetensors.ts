/** The safetensors format: 8 bytes of little-endian header length, a JSON header, then the tensors' bytes. */
import {assert, describeValue, shorten} from '../arguments/checks';

/** A buffer may also be shared memory. */
export type SafetensorsBytes = ArrayBufferLike | Uint8Array;

/** One tensor of a file; `bytes` is a view of the file, not a copy. */
export type SafetensorsTensor = {
  /** The format's name of the dtype, such as 'BF16'. */
  dtype: string;
  /** The sizes of its axes; none for a scalar. */
  shape: number[];
  /** Its values, little-endian, in row-major order. */
  bytes: Uint8Array;
};

/** The tensors of one or several files, by name. */
export type SafetensorsTensors = Map<string, SafetensorsTensor>;

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
 * The tensors of one safetensors file, or of all shards of a checkpoint, by name. Nothing is copied.
 *
 * ```js
 * import {readSafetensors, safetensorsValues} from 'tfjs-moe/checkpoints';
 * // In your code, fetch the file: new Uint8Array(await (await fetch(url)).arrayBuffer())
 * const header = new TextEncoder().encode('{"scale":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]}}');
 * const file = Uint8Array.of(header.length, 0, 0, 0, 0, 0, 0, 0, ...header, 0x80, 0x3f, 0, 0xc0);
 * const scale = readSafetensors(file).get('scale');
 * scale?.shape; // => [1, 2]
 * scale && [...safetensorsValues(scale)]; // => [1, -2]
 * ```
 *
 * @param files  The bytes of one file, or a list of the bytes of several files. Shared memory works too.
 * @returns A Map from names to `{dtype, shape, bytes}`, in which `bytes` are views of the files.
 *
 * @throws if a header does not follow the format or is longer than 100,000,000 bytes. Also if a tensor has another
 *     number of bytes than its dtype and shape take, or its bytes overlap, leave a gap or pass the end of the file.
 *     Also if two files have a tensor of the same name.
 *
 * Source: https://huggingface.co/docs/safetensors, "Format", and the checks of its Rust crate.
 */
export function readSafetensors(files: SafetensorsBytes | readonly SafetensorsBytes[]): SafetensorsTensors {
  return parseSafetensors(files, 'readSafetensors');
}

/** readSafetensors with errors in the name of `opName`, the function that was called. */
export function parseSafetensors(
  files: SafetensorsBytes | readonly SafetensorsBytes[],
  opName: string,
): SafetensorsTensors {
  const given: readonly SafetensorsBytes[] = Array.isArray(files) ? files : [files];
  assert(given.length > 0, opName, () => 'files must have at least one file, but is empty.');
  const tensors: SafetensorsTensors = new Map();
  const numTensorsUpTo: number[] = [];
  for (const [f, file] of given.entries()) {
    const fileName = `files[${f}]`;
    readFile(asBytes(file, fileName, opName), fileName, opName, (name, tensor) => {
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
const nameOf = (name: string): string => `tensor '${shortName(name)}'`;

function asBytes(file: SafetensorsBytes, fileName: string, opName: string): Uint8Array {
  if (ArrayBuffer.isView(file)) {
    return new Uint8Array(file.buffer, file.byteOffset, file.byteLength);
  }
  assert(
    isArrayBuffer(file),
    opName,
    () => `${fileName} must be an ArrayBuffer or a Uint8Array, but is ${describeValue(file)}.`,
  );
  return new Uint8Array(file);
}

/** [[Class]] of a value, also of one from another window, whose classes are different objects. */
const tagOf = (value: unknown): string => Object.prototype.toString.call(value).slice('[object '.length, -1);
const isArrayBuffer = (value: unknown): value is ArrayBufferLike => /^(Shared)?ArrayBuffer$/.test(tagOf(value));
const isUint8Array = (value: unknown): value is Uint8Array =>
  ArrayBuffer.isView(value) && tagOf(value) === 'Uint8Array';

/** Passes every tensor of a file to `add`, in the order of their bytes, after the whole header is checked. */
function readFile(
  bytes: Uint8Array,
  fileName: string,
  opName: string,
  add: (name: string, tensor: SafetensorsTensor) => void,
): void {
  const {header, data} = splitFile(bytes, fileName, opName);
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
    end === data.length,
    opName,
    () => `${fileName} must have ${end} bytes of data, where its last tensor ends, but has ${data.length}.`,
  );
  tensors.forEach(({dtype, shape, data_offsets: [begin, tensorEnd]}, i) => {
    add(names[i], {dtype, shape, bytes: new Uint8Array(data.buffer, data.byteOffset + begin, tensorEnd - begin)});
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

function splitFile(
  bytes: Uint8Array,
  fileName: string,
  opName: string,
): {header: Record<string, unknown>; data: Uint8Array} {
  assert(
    bytes.length >= 8,
    opName,
    () => `${fileName} must begin with the 8 bytes of its header's length, but has ${bytes.length} bytes.`,
  );
  const view = new DataView(bytes.buffer, bytes.byteOffset, 8);
  const headerLength = view.getUint32(0, true) + 2 ** 32 * view.getUint32(4, true);
  assert(
    headerLength <= bytes.length - 8,
    opName,
    () =>
      `${fileName} must have a header of ${headerLength} bytes, as its first 8 bytes say, but has ` +
      `${bytes.length - 8} after them. Is it a whole safetensors file?`,
  );
  assert(
    headerLength <= MAX_HEADER_BYTES,
    opName,
    () => `${fileName} must have a header of at most ${MAX_HEADER_BYTES} bytes, but it has ${headerLength}.`,
  );
  const header = parseJson(bytes.subarray(8, 8 + headerLength));
  assert(
    isRecord(header),
    opName,
    () => `${fileName} must have a header that is a JSON object. Is it a safetensors file?`,
  );
  return {header: header as Record<string, unknown>, data: bytes.subarray(8 + headerLength)};
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
  const expected = numBytesOf(dtype, shape);
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

/** The number of bytes of a tensor; undefined for an unknown dtype. */
function numBytesOf(dtype: string, shape: readonly number[]): number | undefined {
  const bits = bitsOfDtype.get(dtype);
  return bits && (shape.includes(0) ? 0 : shape.reduce((product, length) => product * length, bits / 8));
}

export const readableDtypes: readonly string[] = ['F32', 'F16', 'BF16'];

/**
 * The values of a tensor of readSafetensors as float32. Every F32, F16 and BF16 value is exact.
 *
 * ```js
 * import {safetensorsValues} from 'tfjs-moe/checkpoints';
 * [...safetensorsValues({dtype: 'F16', shape: [2], bytes: Uint8Array.of(0, 0x3c, 0, 0xb8)})]; // => [1, -0.5]
 * ```
 *
 * @param tensor  `{dtype, shape, bytes}`, of dtype F32, F16 or BF16.
 * @returns A new Float32Array, for tf.tensor with the tensor's shape.
 *
 * @throws if the dtype is another, or `bytes` has another length than dtype and shape take.
 */
export function safetensorsValues(tensor: SafetensorsTensor): Float32Array {
  const misfit = misfitOf(tensor);
  assert(misfit == null, 'safetensorsValues', () => `tensor must be ${misfit!.expected}, but is ${misfit!.given}.`);
  const values = new Float32Array((8 * tensor.bytes.length) / bitsOfDtype.get(tensor.dtype)!);
  readValues(tensor, 0, values);
  return values;
}

export type Misfit = {expected: string; given: string};

/** Why the values of `tensor` cannot be read; undefined if they can. */
export function misfitOf(tensor: unknown): Misfit | undefined {
  const {dtype, shape, bytes} = isRecord(tensor) ? tensor : {};
  if (typeof dtype !== 'string' || !areCounts(shape) || !isUint8Array(bytes)) {
    return {expected: 'a dtype, a shape and bytes in a Uint8Array', given: describeValue(tensor)};
  }
  if (!readableDtypes.includes(dtype)) {
    return {expected: readableDtypes.join(' or '), given: shorten(dtype)};
  }
  const numBytes = numBytesOf(dtype, shape);
  return bytes.length === numBytes
    ? undefined
    : {expected: `${numBytes} bytes as ${dtype} ${shortShape(shape)}`, given: `${bytes.length} bytes`};
}

/**
 * Fills `out` with values of the tensor, beginning at number `from`. The dtype must be one of readableDtypes. The host
 * is little-endian, as tfjs's own readers of weights assume.
 */
export function readValues({dtype, bytes}: SafetensorsTensor, from: number, out: Float32Array): void {
  const end = from + out.length;
  if (dtype === 'F32') {
    // Copied as bytes, because the offsets of the tensor and of the file need not be multiples of 4.
    new Uint8Array(out.buffer, out.byteOffset, out.byteLength).set(bytes.subarray(4 * from, 4 * end));
    return;
  }
  const halves = halvesOf(bytes.subarray(2 * from, 2 * end));
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

/** The tensor as 16-bit words. They are copied only if they lie at an odd offset, which writers avoid. */
function halvesOf(bytes: Uint8Array): Uint16Array {
  const {buffer, byteOffset, length} = bytes.byteOffset % 2 === 0 ? bytes : new Uint8Array(bytes);
  return new Uint16Array(buffer, byteOffset, length / 2);
}

let halfValues: Float32Array | undefined;

/** The value of each of the 2^16 float16s. Looking values up is several times faster than decoding their bits. */
function valuesOfHalves(): Float32Array {
  halfValues ??= Float32Array.from({length: 2 ** 16}, (_, half) => valueOfHalf(half));
  return halfValues;
}

function valueOfHalf(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 31) {
    return fraction === 0 ? sign * Infinity : NaN;
  }
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25));
}
