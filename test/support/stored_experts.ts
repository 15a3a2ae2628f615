/** One expert of a Qwen3-MoE layer, whose projections are stored as a format has them, in a file that is read in slices. */
import type {MoeModelConfig} from '../../src/checkpoints/index';
import {lcg} from './routings';
import {safetensorsFile, type WrittenBytes, type WrittenTensor} from './safetensors';

/** A tensor of a file. */
export type RawTensor = {dtype: string; shape: number[]; bytes: Uint8Array};
/** A matrix: its tensors by what follows the projection's name, such as '.weight_scale'. */
export type StoredLinear = {[suffix: string]: RawTensor};

export const raw = (dtype: string, shape: number[], values: ArrayBufferView): RawTensor => ({
  dtype,
  shape,
  bytes: new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
});

/** [rows, columns] of numbers that are exact in any float format, stored as F32. */
export function plain(rows: number, columns: number, seed = 1): StoredLinear & {'.weight': RawTensor} {
  const next = lcg(seed);
  const values = Float32Array.from({length: rows * columns}, () => Math.floor(17 * next() - 8) / 8);
  return {'.weight': raw('F32', [rows, columns], values)};
}

export const valuesOfPlain = ({'.weight': {bytes}}: {'.weight': RawTensor}): Float32Array =>
  new Float32Array(bytes.slice().buffer);

export type StoredExpert = {gate: StoredLinear; up: StoredLinear; down: StoredLinear};
export type StoredSizes = {hiddenSize: number; intermediateSize: number};

export const experts = 'model.layers.0.mlp.experts';

export function storedConfig(
  numExperts: number,
  {hiddenSize, intermediateSize}: StoredSizes,
  quantization?: {[key: string]: unknown},
): MoeModelConfig {
  return {
    model_type: 'qwen3_moe', hidden_size: hiddenSize, moe_intermediate_size: intermediateSize, num_experts: numExperts,
    num_experts_per_tok: 1, norm_topk_prob: true, hidden_act: 'silu',
    ...(quantization != null && {quantization_config: quantization}),
  };
}

/** The tensors of layer 0. */
export function storedTensors(stored: StoredExpert[], {hiddenSize}: StoredSizes): WrittenBytes[] {
  const router = {name: 'model.layers.0.mlp.gate.weight', ...plain(stored.length, hiddenSize)['.weight']};
  const projections = stored.flatMap(({gate, up, down}, e) =>
    Object.entries({gate, up, down}).flatMap(([part, linear]) =>
      Object.entries(linear).map(([suffix, tensor]) => ({name: `${experts}.${e}.${part}_proj${suffix}`, ...tensor}))),
  );
  return [router, ...projections];
}

/** A Blob, so that its slices are read. */
export const blobOf = (tensors: Array<WrittenTensor | WrittenBytes>): Blob => new Blob([safetensorsFile(tensors) as Uint8Array<ArrayBuffer>]);
