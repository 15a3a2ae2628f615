/**
 * MoeGroupedMatMul and its gradients on WebGPU, float32 throughout: which program runs, and its launch. A launch is
 * sized by shapes alone. A workgroup finds its expert and rows on the device, by a binary search over the offsets, and
 * returns where there are no rows.
 *
 *   MoeGroupedMatMul, many rows an expert   1 launch for each part of the weights, webgpu_tiles.ts
 *   MoeGroupedMatMul, few rows an expert    1 launch for each part of the weights, webgpu_stream.ts
 *   MoeExpertsUp                            the same, of rows that are read through the permutation
 *   MoeActivate                             1 launch, a thread an output
 *   MoeGroupedMatMulBackpropActivation      1 launch, a thread an output
 *   MoeGroupedMatMulBackpropWeights         1 launch, webgpu_outer_products.ts
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {columnsOf, partsOf} from '../../contract/expert_weights';
import {
  MoeActivate,
  type MoeActivationAttrs,
  type MoeExpertRowsInputs,
  MoeExpertsUp,
  MoeGroupedMatMul,
  type MoeGroupedMatMulAttrs,
  MoeGroupedMatMulBackpropActivation,
  type MoeGroupedMatMulInputs,
  type MoeKernelName,
} from '../../contract/kernel_names';
import {
  assertBindable,
  entryPoint,
  newTensor,
  runWgsl,
  type StorageBinding,
  webgpuKernel,
  WORKGROUP_SIZE,
} from '../shared/webgpu';
import {ACTIVATION_DERIVATIVES_WGSL, ACTIVATIONS_WGSL, activationUniforms, gateColumns} from './activations';
import {weightReader} from './weights/index';
import type {Launch} from './webgpu_program';
import {runStream} from './webgpu_stream';
import {runTiles} from './webgpu_tiles';

/**
 * Weights are streamed up to so many rows an expert on average. TFLOP/s of w1 on an H100, streamed and in tiles: 8.0
 * and 6.9 for OLMoE at 8 rows, 9.7 and 10.2 at 12 rows; for Granite at 12 rows 7.4 and 9.1.
 */
const STREAM_ROWS = 10;

export const moeGroupedMatMulWebGPU = webgpuKernel(MoeGroupedMatMul, (backend, inputs, attrs) =>
  multiply(backend, MoeGroupedMatMul, inputs, attrs),
);

export const moeExpertsUpWebGPU = webgpuKernel(MoeExpertsUp, (backend, inputs, attrs) =>
  multiply(backend, MoeExpertsUp, inputs, attrs, inputs),
);

/** The product, of rows of x, or of tokens x where `slots` are given. */
function multiply(
  backend: WebGPUBackend,
  kernelName: MoeKernelName,
  inputs: MoeGroupedMatMulInputs,
  attrs: MoeGroupedMatMulAttrs,
  slots?: MoeExpertRowsInputs,
): {out: TensorInfo} {
  const {x, expertFirstTokenOffset: offset, bias} = inputs;
  const numIn = x.shape[1];
  const [numRows] = (slots?.permutedIdx ?? x).shape;
  const numExperts = offset.shape[0] - 1;
  const parts = partsOf(inputs, attrs);
  const {numColumns, numOutputs} = columnsOf(parts[0].weights, attrs);
  const named = parts.map(({weights}, p): [string, number[]] => [
    parts.length === 1 ? 'weights' : `weights[${p}]`,
    weights.shape,
  ]);
  assertBindable(backend, kernelName, {
    x: x.shape,
    ...Object.fromEntries(named),
    'the result': [numRows, numOutputs],
  });
  const out = newTensor(backend, [numRows, numOutputs], 'float32');
  if (numRows === 0) {
    return {out};
  }
  const isConcatenated = attrs.gated && attrs.gateUp === 'concatenated';
  const inQuads = numIn % 4 === 0 && numColumns % 4 === 0 && (!isConcatenated || numOutputs % 4 === 0);
  const quads = inQuads ? 'vec4<f32>' : 'f32';
  const launch: Launch = {
    backend,
    x,
    offset,
    bias: bias ?? x,
    permutedIdx: slots?.permutedIdx,
    out,
    attrs,
    quads,
    weights: weightReader(attrs, parts[0], quads),
    uniforms: {
      numRows,
      numIn,
      numColumns,
      numOutputs,
      numExperts,
      hasBias: bias == null ? 0 : 1,
      isGated: attrs.gated ? 1 : 0,
      isConcatenated: isConcatenated ? 1 : 0,
      ...(slots == null ? {} : {topk: slots.invPermutedIdx.shape[1]}),
      ...activationUniforms(attrs),
    },
  };
  const run = numRows > STREAM_ROWS * numExperts ? runTiles : runStream;
  for (const part of parts) {
    run(launch, part);
  }
  return {out};
}

type ActivationPage = {name: string; buffers: StorageBinding[]; functions: string; body: string};

/** A launch with a thread for each output i of an activation. The gate of the output is element gateOf(i) of z. */
function runActivation(
  backend: WebGPUBackend,
  attrs: MoeActivationAttrs,
  [numRows, numOutputs, numColumns]: [numRows: number, numOutputs: number, numColumns: number],
  {name, buffers, functions, body}: ActivationPage,
): void {
  runWgsl(backend, {
    name,
    buffers,
    uniforms: {
      size: numRows * numOutputs,
      numOutputs,
      numColumns,
      isGated: attrs.gated ? 1 : 0,
      ...gateColumns(attrs, numOutputs),
      ...activationUniforms(attrs),
    },
    numWorkgroups: Math.ceil((numRows * numOutputs) / WORKGROUP_SIZE),
    constants: {NUM_THREADS: WORKGROUP_SIZE},
    code: () => /* wgsl */ `
      ${functions}
      fn gateOf(i : u32) -> u32 {
        return i / uniforms.numOutputs * uniforms.numColumns + i % uniforms.numOutputs * uniforms.gateStep;
      }
      ${entryPoint(/* wgsl */ `
      let i = group * NUM_THREADS + thread;
      if (i >= uniforms.size) { return; }
      ${body}`)}`,
  });
}

export const moeActivateWebGPU = webgpuKernel(MoeActivate, (backend, {z}, attrs) => {
  const [numRows, numColumns] = z.shape;
  const numOutputs = attrs.gated ? numColumns / 2 : numColumns;
  assertBindable(backend, MoeActivate, {z: z.shape});
  const out = newTensor(backend, [numRows, numOutputs], 'float32');
  if (numRows === 0) {
    return {out};
  }
  runActivation(backend, attrs, [numRows, numOutputs, numColumns], {
    name: 'MoeActivate',
    buffers: [
      {name: 'out', type: 'f32', access: 'read_write', tensor: out},
      {name: 'z', type: 'f32', access: 'read', tensor: z},
    ],
    functions: ACTIVATIONS_WGSL,
    body: /* wgsl */ `
      if (uniforms.isGated == 0) {
        out[i] = activate(z[i]);
        return;
      }
      let gate = gateOf(i);
      out[i] = activate(clampedGate(z[gate])) * clampedUp(z[gate + uniforms.upStep]);`,
  });
  return {out};
});

export const moeGroupedMatMulBackpropActivationWebGPU = webgpuKernel(
  MoeGroupedMatMulBackpropActivation,
  (backend, {dy, z}, attrs) => {
    const [numRows, numColumns] = z.shape;
    const numOutputs = dy.shape[1];
    assertBindable(backend, MoeGroupedMatMulBackpropActivation, {z: z.shape});
    const dz = newTensor(backend, [numRows, numColumns], 'float32');
    if (numRows === 0) {
      return {dz};
    }
    runActivation(backend, attrs, [numRows, numOutputs, numColumns], {
      name: 'MoeGroupedMatMulBackpropActivation',
      buffers: [
        {name: 'dz', type: 'f32', access: 'read_write', tensor: dz},
        {name: 'dy', type: 'f32', access: 'read', tensor: dy},
        {name: 'z', type: 'f32', access: 'read', tensor: z},
      ],
      functions: ACTIVATIONS_WGSL + ACTIVATION_DERIVATIVES_WGSL,
      body: /* wgsl */ `
        if (uniforms.isGated == 0) {
          dz[i] = dy[i] * activateDerivative(z[i]);
          return;
        }
        let gate = gateOf(i);
        let up = gate + uniforms.upStep;
        dz[gate] = dy[i] * gatedDerivativeByGate(z[gate], z[up]);
        dz[up] = dy[i] * gatedDerivativeByUp(z[gate], z[up]);`,
    });
    return {dz};
  },
);
