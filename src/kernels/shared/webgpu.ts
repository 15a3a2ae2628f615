/**
 * Runs WGSL of this package inside tfjs's WebGPU backend: in its command batch, with its buffers and its timers.
 *
 * tfjs generates a prologue for every program that has one output and hides the builtins in private variables, after
 * which no workgroup may leave before a barrier. So pipelines are made here, from WGSL that is complete as written.
 */
import {env, type TensorInfo, util} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {assertBindable as assertDeviceBinds} from '../../contract/devices';
import type {MoeKernelName, MoeKernels} from '../../contract/kernel_names';
import {runningOpName} from '../../contract/op_name';
import {gpuKernel} from './gpu_kernel';
import type {MoeKernel, OutputsAs} from './moe_kernel';
import {makeLaunch} from './webgpu_launch';
import {disposeAll, launchOn, newTensor, webgpuRecorder} from './webgpu_steps';
import {printOnRequest, reportCompileErrors} from './wgsl_source';

export {disposeAll, newTensor} from './webgpu_steps';

/** Threads of a workgroup: the most that every WebGPU device has. */
export const WORKGROUP_SIZE = 256;

export type StorageBinding = {
  /** Its name in the WGSL. */
  name: string;
  /** The WGSL type of an element: `u32`, `i32`, `f32`, `vec4<u32>`, `vec4<f32>`, or an atomic. */
  type: string;
  access: 'read' | 'read_write';
  tensor: TensorInfo;
};

export type WgslProgram = {
  /** The name of the launch, which labels its pipeline and its time in tf.profile. */
  name: string;
  /** Storage buffers in binding order, none of them empty, the first one written to. All must be used. */
  buffers: StorageBinding[];
  /** Members of `uniforms`, in order, u32; a negative value arrives as its bits. One at least must be used. */
  uniforms: Record<string, number>;
  /** `const` u32 values in the code. */
  constants?: Record<string, number>;
  /**
   * WGSL with the entry point `main`; buffers, `uniforms` and constants are declared already. It is asked for
   * once a pipeline, so it may depend on nothing but the name, the buffers and the constants.
   */
  code: () => string;
  numWorkgroups: number;
};

/** A kernel of the webgpu backend, typed by its name. */
export function webgpuKernel<K extends MoeKernelName>(
  kernelName: K,
  run: (
    backend: WebGPUBackend,
    inputs: MoeKernels[K]['inputs'],
    attrs: MoeKernels[K]['attrs'],
  ) => OutputsAs<K, TensorInfo>,
): MoeKernel {
  return gpuKernel<WebGPUBackend, K>(kernelName, (backend, inputs, attrs) => {
    const assertInputsBind = () => {
      const given = Object.entries(inputs as Record<string, TensorInfo>);
      const shapes = given.map(([name, {shape}]) => [argumentName(name, inputs), shape]);
      assertBindable(backend, kernelName, Object.fromEntries(shapes) as Record<string, number[]>);
    };
    const runOn = (floats: MoeKernels[K]['inputs']) => {
      const runKernel = () => {
        assertInputsBind();
        return run(backend, floats, attrs);
      };
      // Without launches there is nothing to repeat.
      return isCompileOnly() ? runKernel() : webgpuRecorder.run(backend, kernelName, floats, attrs, runKernel);
    };
    const isInteger = ({dataId, dtype}: TensorInfo) =>
      dtype === 'float32' && backend.tensorMap.get(dataId).dtype !== 'float32';
    const integers = Object.entries(inputs as Record<string, TensorInfo>).filter(([, input]) => isInteger(input));
    if (integers.length === 0) {
      return runOn(inputs);
    }
    assertInputsBind();
    const converted = integers.map(([name, input]): [string, TensorInfo] => [name, integersAsFloats(backend, input)]);
    const outputs = runOn({...inputs, ...Object.fromEntries(converted)});
    disposeAll(
      backend,
      converted.map(([, floats]) => floats),
    );
    return outputs;
  });
}

/** The name that the op's caller knows an input by: `weights1` is weights[1] of a list; `weights0` alone is weights. */
function argumentName(inputName: string, inputs: object): string {
  const [, list, index] = /^(\D+)(\d+)$/.exec(inputName) ?? [];
  return list == null ? inputName : `${list}1` in inputs ? `${list}[${index}]` : list;
}

/** tf.cast makes float32 of integers in name only: the buffer holds integers still, which tfjs's own programs know. */
function integersAsFloats(backend: WebGPUBackend, integers: TensorInfo): TensorInfo {
  const size = util.sizeFromShape(integers.shape);
  const floats = newTensor(backend, integers.shape, 'float32');
  if (size > 0) {
    runWgsl(backend, {
      name: 'MoeIntegersAsFloats',
      buffers: [
        {name: 'floats', type: 'f32', access: 'read_write', tensor: floats},
        {name: 'integers', type: 'i32', access: 'read', tensor: integers},
      ],
      uniforms: {size},
      code: () =>
        entryPoint(`
          let i = group * ${WORKGROUP_SIZE}u + thread;
          if (i < uniforms.size) { floats[i] = f32(integers[i]); }`),
      numWorkgroups: Math.ceil(size / WORKGROUP_SIZE),
    });
  }
  return floats;
}

export function runWgsl(backend: WebGPUBackend, program: WgslProgram): void {
  const {name, buffers, uniforms, numWorkgroups} = program;
  // For the tensors that the kernel itself has not checked.
  assertBindable(backend, name, Object.fromEntries(buffers.map((buffer) => [buffer.name, buffer.tensor.shape])));
  // WebGPU cannot bind an empty buffer; the code, whose loops do not reach it, gets one of 16 bytes.
  const standIns: TensorInfo[] = [];
  const bindable = (tensor: TensorInfo) => {
    if (util.sizeFromShape(tensor.shape) > 0) {
      return tensor;
    }
    standIns.push(newTensor(backend, [4], 'int32'));
    return standIns[standIns.length - 1];
  };
  const tensors = buffers.map(({tensor}) => bindable(tensor));
  if (isCompileOnly()) {
    tensors.forEach(({dataId}) => backend.uploadToGPU(dataId));
    compileAhead(backend, program);
  } else {
    const pipeline = pipelineOf(backend.device, program);
    launchOn(backend, makeLaunch(backend.device, name, pipeline, Object.values(uniforms), numWorkgroups), tensors);
  }
  disposeAll(backend, standIns);
}

/** Whether tfjs compiles programs and runs none. */
const isCompileOnly = (): boolean => env().getBool('WEBGPU_ENGINE_COMPILE_ONLY');

/** Pipelines outlive a backend as long as its device, which another backend may use. */
const pipelines = new WeakMap<GPUDevice, Map<string, GPUComputePipeline>>();

function pipelinesOf(device: GPUDevice): Map<string, GPUComputePipeline> {
  const ofDevice = pipelines.get(device) ?? new Map<string, GPUComputePipeline>();
  pipelines.set(device, ofDevice);
  return ofDevice;
}

function pipelineOf(device: GPUDevice, program: WgslProgram): GPUComputePipeline {
  const key = pipelineKey(program);
  const ofDevice = pipelinesOf(device);
  const pipeline = ofDevice.get(key) ?? device.createComputePipeline(describePipeline(device, key, program));
  ofDevice.set(key, pipeline);
  return pipeline;
}

/** Compiles a pipeline beside others. It is among tfjs's, for whose end checkCompileCompletionAsync waits. */
function compileAhead(backend: WebGPUBackend, program: WgslProgram): void {
  const {device} = backend;
  const {pipelineCache} = backend as unknown as {pipelineCache: Record<string, unknown>};
  const key = pipelineKey(program);
  const ofDevice = pipelinesOf(device);
  if (!ofDevice.has(key) && !(key in pipelineCache)) {
    const compiled = device.createComputePipelineAsync(describePipeline(device, key, program));
    pipelineCache[key] = compiled.then(
      (pipeline) => {
        ofDevice.set(key, pipeline);
        return pipeline;
      },
      (error: unknown) => {
        // tfjs would wait for it, and fail, each time.
        delete pipelineCache[key];
        throw error;
      },
    );
  }
}

function pipelineKey({name, buffers, constants = {}}: WgslProgram): string {
  const buffersKey = buffers.map((buffer) => `${buffer.name}:${buffer.type}:${buffer.access}`).join();
  const constantsKey = Object.entries(constants).join(';');
  return `tfjs-moe ${name} ${buffersKey} ${constantsKey}`;
}

function describePipeline(device: GPUDevice, key: string, program: WgslProgram): GPUComputePipelineDescriptor {
  const {name, buffers, uniforms, constants = {}, code} = program;
  const wgsl = [
    ...Object.entries(constants).map(([constant, value]) => `const ${constant} = ${value}u;`),
    `struct Uniforms { ${Object.keys(uniforms)
      .map((member) => `${member} : u32`)
      .join(', ')} }`,
    ...buffers.map(
      ({name: buffer, type, access}, i) =>
        `@group(0) @binding(${i}) var<storage, ${access}> ${buffer} : array<${type}>;`,
    ),
    `@group(0) @binding(${buffers.length}) var<uniform> uniforms : Uniforms;`,
    code(),
  ].join('\n');
  printOnRequest(key, wgsl);
  const module = device.createShaderModule({label: name, code: wgsl});
  // A device that is lost reports nothing; the next call of a kernel says so.
  reportCompileErrors(name, module, wgsl).catch(() => undefined);
  return {label: name, layout: 'auto', compute: {module, entryPoint: 'main'}};
}

/**
 * WGSL: the entry point. In its body `thread` is the invocation in the workgroup, and `group` the workgroup in the
 * launch, which may be folded into two or three dimensions; there may be more groups than asked for. The size of a
 * workgroup is a number, or a constant of the program.
 */
export function entryPoint(body: string, workgroupSize: number | string = WORKGROUP_SIZE): string {
  return `
  @compute @workgroup_size(${workgroupSize})
  fn main(
      @builtin(workgroup_id) id : vec3<u32>,
      @builtin(num_workgroups) count : vec3<u32>,
      @builtin(local_invocation_index) thread : u32) {
    let group = (id.z * count.y + id.y) * count.x + id.x;
    ${body}
  }`;
}

export type ChunkType = 'vec4<f32>' | 'f32';

/** The columns that one thread reads at a time: 4 where the row size allows it. */
export function chunkOf(hiddenSize: number): {type: ChunkType; rowChunks: number} {
  return hiddenSize % 4 === 0 ? {type: 'vec4<f32>', rowChunks: hiddenSize / 4} : {type: 'f32', rowChunks: hiddenSize};
}

/**
 * Asserts that the device can bind every tensor of a kernel whole, in the name of the op that runs it. webgpuKernel
 * asks for inputs; a kernel asks for what it makes, before its first launch.
 */
export function assertBindable(backend: WebGPUBackend, kernelName: string, tensors: Record<string, number[]>): void {
  assertDeviceBinds(backend, runningOpName(kernelName), tensors);
}
