/** Writes safetensors files by the format's description, independent of src/. */
export type WrittenTensor = {
  name: string;
  shape: number[];
  /** Each value is written exactly, or the writer throws. */
  values: number[];
  dtype?: 'F32' | 'F16' | 'BF16';
};
/** A tensor of any dtype. */
export type WrittenBytes = {name: string; shape: number[]; bytes: Uint8Array; dtype: string};

const float = new DataView(new ArrayBuffer(4));

function bytesOf(value: number, dtype: 'F32' | 'F16' | 'BF16'): number[] {
  float.setFloat32(0, value);
  const bits = float.getUint32(0);
  if (dtype === 'F32') {
    return [bits & 255, (bits >> 8) & 255, (bits >> 16) & 255, bits >>> 24];
  }
  const keptBits = dtype === 'BF16' ? 16 : 19;
  if (float.getFloat32(0) !== value || bits << keptBits !== 0) {
    throw new Error(`${value} is no ${dtype}.`);
  }
  const exponent = ((bits >> 23) & 255) - 127 + 15;
  const half = value === 0 ? 0 : ((bits >>> 31) << 15) | (exponent << 10) | ((bits >> 13) & 1023);
  const written = dtype === 'BF16' ? bits >>> 16 : half;
  return [written & 255, written >> 8];
}

/** A file of any header and any data. */
export function fileOf(header: string, data: ArrayLike<number> = []): Uint8Array {
  const json = new TextEncoder().encode(header);
  const file = new Uint8Array(8 + json.length + data.length);
  new DataView(file.buffer).setUint32(0, json.length, true);
  file.set(json, 8);
  file.set(data, 8 + json.length);
  return file;
}

export function safetensorsFile(tensors: ReadonlyArray<WrittenTensor | WrittenBytes>): Uint8Array {
  const header: Record<string, object> = {__metadata__: {format: 'pt'}};
  const data: number[] = [];
  for (const tensor of tensors) {
    const begin = data.length;
    if ('bytes' in tensor) {
      tensor.bytes.forEach((byte) => data.push(byte));
    } else {
      tensor.values.forEach((value) => data.push(...bytesOf(value, tensor.dtype ?? 'F32')));
    }
    header[tensor.name] = {dtype: tensor.dtype ?? 'F32', shape: tensor.shape, data_offsets: [begin, data.length]};
  }
  return fileOf(JSON.stringify(header), data);
}
