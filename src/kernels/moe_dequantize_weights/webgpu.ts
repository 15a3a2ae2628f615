/** MoeDequantizeWeights and MoeDequantizeRows on WebGPU: 1 launch, a thread decodes four weights of a row. */
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {TensorInfo} from '@tensorflow/tfjs-core';
import {MoeDequantizeRows, MoeDequantizeWeights} from '../../contract/kernel_names';
import {
  encodingKey,
  numInOf,
  type QuantizedEncoding,
  quantizedShapes,
  type QuantizedTensors,
} from '../../contract/quantized_weights';
import {
  assertBindable,
  chunkOf,
  entryPoint,
  newTensor,
  runWgsl,
  type StorageBinding,
  webgpuKernel,
  WORKGROUP_SIZE,
} from '../shared/webgpu';
import {codeBuffers, rawQuadsWgsl} from '../weight_formats/webgpu';

const WRITE_QUAD = /* wgsl */ `
  fn writeQuad(row : u32, k : u32, quad : vec4<f32>) { weights[(row * uniforms.numIn + k) / 4] = quad; }`;
/** Rows of C = 2 modulo 4, which 16-bit codes may have. */
const WRITE_PAIRS = /* wgsl */ `
  fn writeQuad(row : u32, k : u32, quad : vec4<f32>) {
    for (var i = 0u; i < 4 && k + i < uniforms.numIn; i++) { weights[row * uniforms.numIn + k + i] = quad[i]; }
  }`;

export const moeDequantizeWeightsWebGPU = webgpuKernel(
  MoeDequantizeWeights,
  (backend, tensors, {encoding, firstExpert, numExperts}) => {
    const numOut = tensors.codes.shape[1];
    const shape = [numExperts, numOut, numInOf(tensors.codes, encoding)];
    assertBindable(backend, MoeDequantizeWeights, {result: shape});
    const weights = newTensor(backend, shape, 'float32');
    dequantize(backend, MoeDequantizeWeights, tensors, encoding, weights, numExperts * numOut, {
      buffers: [],
      uniforms: {firstRow: firstExpert * numOut},
      rowOf: /* wgsl */ `fn rowOf(i : u32) -> u32 { return uniforms.firstRow + i; }`,
    });
    return {weights};
  },
);

export const moeDequantizeRowsWebGPU = webgpuKernel(MoeDequantizeRows, (backend, {rows, ...tensors}, {encoding}) => {
  const [numExperts, numOut] = tensors.codes.shape;
  const [numRows] = rows.shape;
  const shape = [numRows, numInOf(tensors.codes, encoding)];
  assertBindable(backend, MoeDequantizeRows, {result: shape});
  const out = newTensor(backend, shape, 'float32');
  if (numRows > 0) {
    dequantize(backend, MoeDequantizeRows, tensors, encoding, out, numRows, {
      buffers: [{name: 'rows', type: 'i32', access: 'read', tensor: rows}],
      uniforms: {lastRow: numExperts * numOut - 1},
      rowOf: /* wgsl */ `fn rowOf(i : u32) -> u32 { return u32(clamp(rows[i], 0, i32(uniforms.lastRow))); }`,
    });
  }
  return {out};
});

/** How a program finds the row of weights for row i of the result. */
type Rows = {
  buffers: StorageBinding[];
  uniforms: Record<string, number>;
  /** WGSL: rowOf(i). */
  rowOf: string;
};

function dequantize(
  backend: WebGPUBackend,
  kernelName: string,
  tensors: QuantizedTensors,
  encoding: QuantizedEncoding,
  weights: TensorInfo,
  numRows: number,
  {buffers, uniforms, rowOf}: Rows,
): void {
  const numIn = numInOf(tensors.codes, encoding);
  const {type} = chunkOf(numIn);
  const quadsPerRow = Math.ceil(numIn / 4);
  const numQuads = numRows * quadsPerRow;
  runWgsl(backend, {
    name: `${kernelName}_${encodingKey(encoding)}`,
    buffers: [{name: 'weights', type, access: 'read_write', tensor: weights}, ...codeBuffers(tensors), ...buffers],
    uniforms: {
      numQuads,
      quadsPerRow,
      ...uniforms,
      numIn,
      wordsPerRow: tensors.codes.shape[2],
      numGroups: quantizedShapes([1, 1, numIn], encoding).numGroups,
    },
    numWorkgroups: Math.ceil(numQuads / WORKGROUP_SIZE),
    code: () => `
      ${rawQuadsWgsl(encoding)}
      ${type === 'f32' ? WRITE_PAIRS : WRITE_QUAD}
      ${rowOf}
      ${entryPoint(`
        let i = group * ${WORKGROUP_SIZE} + thread;
        if (i >= uniforms.numQuads) { return; }
        let k = i % uniforms.quadsPerRow * 4;
        let row = i / uniforms.quadsPerRow;
        writeQuad(row, k, weightsOf(rawQuadAt(rowOf(row), k)));`)}`,
  });
}
