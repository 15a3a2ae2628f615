/** Writes safetensors files. */
import {assert, describeValue} from '../../arguments/checks';
import {bfloat16} from '../../kernels/weight_formats/bfloat16';
import {float16} from '../../kernels/weight_formats/float16';
import {readAllBytes, type Reading} from './checkpoint_file';
import {type CheckpointTensor, isOfGgml, misfitOf, shortName} from './safetensors';

/** The dtypes of float32 weights in files: F16 and BF16 are rounded to the nearest, of two to the even. */
export type FloatDtype = 'F32' | 'F16' | 'BF16';

export const floatDtypes: readonly FloatDtype[] = ['F32', 'F16', 'BF16'];

/** Values in a file, little-endian. */
export function encodeFloats(values: Float32Array, dtype: FloatDtype): Uint8Array {
  if (dtype === 'F32') {
    return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  }
  const {encode} = dtype === 'F16' ? float16 : bfloat16;
  return new Uint8Array(Uint16Array.from(values, (value) => encode(value, 0)).buffer);
}

/** A tensor takes whole 8 bytes of the header before it, so that its values lie at a multiple of their size. */
const ALIGNMENT = 8;

/**
 * A safetensors file of these tensors.
 *
 * ```js
 * import {readSafetensors, safetensorsValues, writeSafetensors} from 'tfjs-moe/checkpoints';
 * const scale = {dtype: 'F32', shape: [2], bytes: new Uint8Array(Float32Array.of(1, -2).buffer)};
 * const file = await writeSafetensors(new Map([['scale', scale]]));
 * const again = (await readSafetensors(file)).get('scale');
 * again && [...await safetensorsValues(again)]; // => [1, -2]
 * ```
 *
 * @param tensors  Names and tensors, as readSafetensors gives them. Parts of Blobs go in without being read.
 * @param options.metadata  Words of the file's `__metadata__`. Default: `{format: 'pt'}`, as transformers writes.
 * @param options.signal  Calls the reading of tensors off.
 * @returns A promise of a Blob.
 *
 * @throws if a tensor has another number of bytes than its dtype and shape take.
 *
 * Source: https://huggingface.co/docs/safetensors, "Format".
 */
export async function writeSafetensors(
  tensors: ReadonlyMap<string, CheckpointTensor>,
  options: {metadata?: {[name: string]: string}; signal?: AbortSignal | null} = {},
): Promise<Blob> {
  const {metadata = {format: 'pt'}, signal} = options;
  return safetensorsBlob(tensors, metadata, {opName: 'writeSafetensors', signal});
}

export async function safetensorsBlob(
  tensors: ReadonlyMap<string, CheckpointTensor>,
  metadata: {[name: string]: string},
  reading: Reading,
): Promise<Blob> {
  // A tensor may have any name.
  const entries: string[] = [`"__metadata__":${JSON.stringify(metadata)}`];
  const parts: BlobPart[] = [];
  let end = 0;
  for (const [name, tensor] of inOrderOfSizes(tensors)) {
    const misfit = misfitOf(tensor, [tensor?.dtype]);
    assert(
      misfit == null && name !== '__metadata__',
      reading.opName,
      () =>
        `tensors['${shortName(name)}'] must be ${misfit?.expected ?? 'named otherwise'}, but is ` +
        `${misfit?.given ?? describeValue(name)}.`,
    );
    assert(
      !isOfGgml(tensor.dtype),
      reading.opName,
      () => `tensors['${shortName(name)}'] must have a dtype of safetensors files, but has ${tensor.dtype}.`,
    );
    const part = await blobPart(tensor, reading);
    const size = part instanceof Blob ? part.size : part.byteLength;
    const {dtype, shape} = tensor;
    entries.push(`${JSON.stringify(name)}:${JSON.stringify({dtype, shape, data_offsets: [end, (end += size)]})}`);
    parts.push(part as BlobPart);
  }
  const json = new TextEncoder().encode(`{${entries.join()}}`);
  const header = new Uint8Array(8 + ALIGNMENT * Math.ceil(json.length / ALIGNMENT)).fill(' '.charCodeAt(0));
  header.set(json, 8);
  new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true);
  return new Blob([header, ...parts]);
}

/** Larger elements first, so that each lies at a multiple of its size; then by name. */
function inOrderOfSizes(tensors: ReadonlyMap<string, CheckpointTensor>): Array<[string, CheckpointTensor]> {
  const bits = ({dtype}: CheckpointTensor) => Number(/\d+/.exec(dtype)?.[0] ?? 8);
  return [...tensors].sort(([a, first], [b, second]) => bits(second) - bits(first) || (a < b ? -1 : 1));
}

async function blobPart({bytes}: CheckpointTensor, reading: Reading): Promise<Blob | Uint8Array> {
  const part = ArrayBuffer.isView(bytes) ? undefined : bytes.slice(0, bytes.size);
  return isPlatformBlob(part) ? part : readAllBytes(bytes, reading);
}

/** Blobs of subclasses, as of @huggingface/hub, are empty for the platform: their own methods download the bytes. */
const isPlatformBlob = (part: unknown): part is Blob =>
  part instanceof Blob && Object.getPrototypeOf(part) === Blob.prototype;
