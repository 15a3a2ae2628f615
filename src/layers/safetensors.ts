/** The safetensors format: 8 bytes of little-endian header length, a JSON header, then the tensors' bytes. */
import {assert} from '../ops/checks';

export type SafetensorsBytes = ArrayBuffer | Uint8Array;

/** One tensor as the file has it; `bytes` is a view of the file, not a copy. */
export type SafetensorsTensor = {
  dtype: string;
  shape: number[];
  bytes: Uint8Array;
};

/** By name. */
export type SafetensorsTensors = Map<string, SafetensorsTensor>;

type TensorHeader = {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
};

/** Dtypes of newer versions of the format are taken as they come: their sizes are not checked. */
const bytesOfDtype: {[dtype: string]: number | undefined} = {
  BOOL: 1, U8: 1, I8: 1, F8_E4M3: 1, F8_E5M2: 1, F8_E8M0: 1,
  U16: 2, I16: 2, F16: 2, BF16: 2,
  U32: 4, I32: 4, F32: 4,
  U64: 8, I64: 8, F64: 8,
};

/**
 * The tensors of one safetensors file, or of all shards of a checkpoint, by name. Nothing is copied.
 *
 * ```js
 * import {readSafetensors, safetensorsValues} from 'tfjs-moe/layers';
 * // Yours is fetched: new Uint8Array(await (await fetch(url)).arrayBuffer())
 * const header = new TextEncoder().encode('{"scale":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]}}');
 * const file = Uint8Array.of(header.length, 0, 0, 0, 0, 0, 0, 0, ...header, 0x80, 0x3f, 0, 0xc0);
 * const scale = readSafetensors(file).get('scale');
 * scale.shape; // => [1, 2]
 * [...safetensorsValues(scale)]; // => [1, -2]
 * ```
 *
 * @param files  The bytes of one file, or a list of those of several.
 * @returns A Map from names to `{dtype, shape, bytes}`, `bytes` being views of the files.
 *
 * @throws if a header is not as the format has it; if a tensor's bytes are not as many as its dtype and shape take,
 *     overlap, leave a gap or pass the end of the file; if two files have a tensor of the same name.
 *
 * Source: https://huggingface.co/docs/safetensors, "Format", and the checks of its Rust crate.
 */
export function readSafetensors(files: SafetensorsBytes | readonly SafetensorsBytes[]): SafetensorsTensors {
  return parseSafetensors(files, 'readSafetensors');
}

/** readSafetensors in the name of the function that was called. */
export function parseSafetensors(
  files: SafetensorsBytes | readonly SafetensorsBytes[],
  opName: string,
): SafetensorsTensors {
  const given: readonly SafetensorsBytes[] = Array.isArray(files) ? files : [files];
  assert(given.length > 0, opName, () => 'files must have at least one file, but is empty.');
  const tensors: SafetensorsTensors = new Map();
  const fileOf = new Map<string, string>();
  given.forEach((file, f) => {
    const fileName = `files[${f}]`;
    for (const [name, tensor] of tensorsOfFile(asBytes(file, fileName, opName), fileName, opName)) {
      assert(
        !tensors.has(name),
        opName,
        () => `tensor '${name}' must be in one file, but is in ${fileOf.get(name)} and in ${fileName}.`,
      );
      tensors.set(name, tensor);
      fileOf.set(name, fileName);
    }
  });
  return tensors;
}

function asBytes(file: SafetensorsBytes, fileName: string, opName: string): Uint8Array {
  if (ArrayBuffer.isView(file)) {
    return new Uint8Array(file.buffer, file.byteOffset, file.byteLength);
  }
  assert(
    isArrayBuffer(file),
    opName,
    () => `${fileName} must be an ArrayBuffer or a Uint8Array, but is ${describe(file)}.`,
  );
  return new Uint8Array(file);
}

/** Of another window too, whose classes are not these. */
function isArrayBuffer(value: unknown): value is ArrayBuffer {
  return ['[object ArrayBuffer]', '[object SharedArrayBuffer]'].includes(Object.prototype.toString.call(value));
}

function describe(value: unknown): string {
  const isObject = typeof value === 'object' && value != null;
  return isObject ? Object.prototype.toString.call(value).slice(8, -1) : String(value);
}

function tensorsOfFile(bytes: Uint8Array, fileName: string, opName: string): Array<[string, SafetensorsTensor]> {
  const {header, data} = splitFile(bytes, fileName, opName);
  const entries = Object.entries(header)
    .filter(([name]) => name !== '__metadata__')
    .map(([name, entry]): [string, TensorHeader] => {
      assertTensorHeader(entry, `tensor '${name}' of ${fileName}`, opName);
      return [name, entry];
    })
    .sort(([, {data_offsets: a}], [, {data_offsets: b}]) => a[0] - b[0] || a[1] - b[1]);

  let end = 0;
  for (const [name, {data_offsets: offsets}] of entries) {
    const expectedBegin = end;
    assert(
      offsets[0] === expectedBegin,
      opName,
      () =>
        `tensor '${name}' of ${fileName} must begin at byte ${expectedBegin} of the data, where the one before it ` +
        `ends, but its data_offsets are [${offsets}].`,
    );
    end = offsets[1];
  }
  assert(
    end === data.length,
    opName,
    () => `${fileName} must have ${end} bytes of data, where its last tensor ends, but has ${data.length}.`,
  );
  return entries.map(([name, {dtype, shape, data_offsets: offsets}]) => [
    name,
    {dtype, shape, bytes: data.subarray(offsets[0], offsets[1])},
  ]);
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
      `${fileName} must have a header of ${headerLength} bytes, as its first 8 say, but has ${bytes.length - 8} after ` +
      `them. Is it a whole safetensors file?`,
  );
  const header = parseJson(new TextDecoder().decode(bytes.subarray(8, 8 + headerLength)));
  assert(
    isRecord(header),
    opName,
    () => `${fileName} must have a header that is a JSON object. Is it a safetensors file?`,
  );
  return {header: header as Record<string, unknown>, data: bytes.subarray(8 + headerLength)};
}

/** undefined where the text is no JSON. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const areCounts = (values: unknown): values is number[] =>
  Array.isArray(values) && values.every((value) => Number.isSafeInteger(value) && value >= 0);

function assertTensorHeader(entry: unknown, what: string, opName: string): asserts entry is TensorHeader {
  const {dtype, shape, data_offsets: offsets} = isRecord(entry) ? entry : {};
  const areOffsets = areCounts(offsets) && offsets.length === 2 && offsets[0] <= offsets[1];
  if (typeof dtype !== 'string' || !areCounts(shape) || !areOffsets) {
    throw new Error(
      `Error in ${opName}: ${what} must have a dtype, a shape and two ascending data_offsets, but is ` +
        `${JSON.stringify(entry)}.`,
    );
  }
  const bytesPerValue = bytesOfDtype[dtype];
  const numBytes = offsets[1] - offsets[0];
  const expected = shape.reduce((product, length) => product * length, bytesPerValue ?? 1);
  assert(
    bytesPerValue == null || numBytes === expected,
    opName,
    () => `${what} must take ${expected} bytes as ${dtype} [${shape}], but its data_offsets [${offsets}] span ${numBytes}.`,
  );
}

export const readableDtypes: readonly string[] = ['F32', 'F16', 'BF16'];

/**
 * The values of a tensor of readSafetensors as float32: every F32, F16 and BF16 value exactly.
 *
 * ```js
 * import {safetensorsValues} from 'tfjs-moe/layers';
 * [...safetensorsValues({dtype: 'F16', shape: [2], bytes: Uint8Array.of(0, 0x3c, 0, 0xb8)})]; // => [1, -0.5]
 * ```
 *
 * @param tensor  `{dtype, shape, bytes}`, of dtype F32, F16 or BF16.
 * @returns A Float32Array of its own, as tf.tensor takes it with the tensor's shape.
 *
 * @throws if the dtype is another, or `bytes` are not as many as dtype and shape take.
 */
export function safetensorsValues(tensor: SafetensorsTensor): Float32Array {
  const opName = 'safetensorsValues';
  const {dtype, shape, bytes} = tensor;
  assert(
    readableDtypes.includes(dtype),
    opName,
    () => `the tensor's dtype must be ${readableDtypes.join(' or ')}, but is ${dtype}.`,
  );
  const size = shape.reduce((product, length) => product * length, 1);
  const numBytes = size * bytesOfDtype[dtype]!;
  assert(
    bytes.length === numBytes,
    opName,
    () => `the tensor must have ${numBytes} bytes as ${dtype} [${shape}], but has ${bytes.length}.`,
  );
  const values = new Float32Array(size);
  readValues(tensor, 0, values);
  return values;
}

/**
 * Fills `out` with the values of the tensor from the `from`-th on; its dtype is one of readableDtypes. The host is
 * little-endian, as tfjs's own readers of weights take it to be.
 */
export function readValues({dtype, bytes}: SafetensorsTensor, from: number, out: Float32Array): void {
  const end = from + out.length;
  if (dtype === 'F32') {
    // As bytes, for neither the tensor's place in the file nor the file's in its buffer need be a multiple of 4.
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

/** 16 bits each; copied only where the file has them at an odd place, which writers avoid. */
function halvesOf(bytes: Uint8Array): Uint16Array {
  const {buffer, byteOffset, length} = bytes.byteOffset % 2 === 0 ? bytes : new Uint8Array(bytes);
  return new Uint16Array(buffer, byteOffset, length / 2);
}

let halfValues: Float32Array | undefined;

/** The value of each of the 2^16 float16s: looking them up is several times faster than taking them apart. */
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
