/** Writes GGUF files of version 3 by the format's description, and reads their headers as users do. */
import {gguf} from '@huggingface/gguf';

export type GgufTensor = {
  name: string;
  /** The inputs last, unlike in the file. */
  shape: number[];
  /** ggml's number of the type. */
  type: number;
  bytes: Uint8Array;
};

const ALIGNMENT = 32;
const aligned = (length: number) => Math.ceil(length / ALIGNMENT) * ALIGNMENT;

export function ggufFile(tensors: GgufTensor[]): Uint8Array<ArrayBuffer> {
  const bytes: number[] = [];
  const integer = (value: number, size: number) => {
    for (let i = 0; i < size; i++) {
      bytes.push(Math.floor(value / 256 ** i) % 256);
    }
  };
  const text = (value: string) => {
    const encoded = new TextEncoder().encode(value);
    integer(encoded.length, 8);
    bytes.push(...encoded);
  };
  bytes.push(...new TextEncoder().encode('GGUF'));
  integer(3, 4);
  integer(tensors.length, 8);
  integer(1, 8);
  text('general.architecture');
  integer(8, 4);
  text('qwen3moe');
  let offset = 0;
  const offsets = tensors.map((tensor) => {
    const begin = offset;
    offset += aligned(tensor.bytes.length);
    return begin;
  });
  tensors.forEach(({name, shape, type}, t) => {
    text(name);
    integer(shape.length, 4);
    [...shape].reverse().forEach((length) => integer(length, 8));
    integer(type, 4);
    integer(offsets[t], 8);
  });
  const dataOffset = aligned(bytes.length);
  const file = new Uint8Array(dataOffset + offset);
  file.set(bytes);
  tensors.forEach((tensor, t) => file.set(tensor.bytes, dataOffset + offsets[t]));
  return file;
}

/** The header by @huggingface/gguf, which asks for ranges. */
export const headerOf = (file: Uint8Array<ArrayBuffer>) =>
  gguf('https://example.com/model.gguf', {
    fetch: async (_, init) => {
      const [begin, end] = new Headers(init?.headers).get('range')!.match(/\d+/g)!.map(Number);
      return new Response(file.slice(begin, end + 1), {status: 206});
    },
  });
