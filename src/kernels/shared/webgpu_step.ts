/**
 * A step of a model on WebGPU as a list of launches, which are encoded again for each run, as CUDA graphs are.
 *
 * tfjs takes buffers for the step's tensors from a pool, and gives them back to it. A recorded step keeps its buffers:
 * its bind groups name them.
 */
import {env, keep, type Tensor} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {RecordedOutput} from '../../contract/step_recorders';
import {webgpuRecorder} from './webgpu_steps';

type BufferManager = WebGPUBackend['bufferManager'];
type TensorData = ReturnType<WebGPUBackend['tensorMap']['get']>;

/** What tfjs's backend does not declare as public. */
type CommandBatch = {
  activeTimers?: unknown[];
  commandEncoder: GPUCommandEncoder | null;
  computePassEncoder: PassEncoder | null;
};

/** What launches call of a pass. */
type PassEncoder = Pick<GPUComputePassEncoder, 'setPipeline' | 'setBindGroup' | 'dispatchWorkgroups' | 'end'>;

type Launch = {pipeline: GPUComputePipeline; bindGroup: GPUBindGroup; dispatch: [number, number, number]};

/** A {@link StepRecorder}. */
export function recordWebGPUStep<Output extends Tensor>(
  backend: WebGPUBackend,
  inputs: readonly Tensor[],
  step: () => Output,
): RecordedOutput<Output> {
  const batch = backend as unknown as CommandBatch;
  // A timed launch has a pass of its own.
  const canRepeat = () => batch.activeTimers == null && !env().getBool('WEBGPU_ENGINE_COMPILE_ONLY');
  if (!canRepeat()) {
    return {output: step()};
  }
  inputs.forEach(({dataId}) => backend.uploadToGPU(dataId));
  const {numFreed} = webgpuRecorder;
  const buffers = new StepBuffers(backend);
  const {output, launches} = buffers.hold(() => noteLaunches(backend, step));
  if (launches == null) {
    buffers.dispose();
    return {output};
  }
  keep(output);
  inputs.forEach(({dataId}) => readAnew(backend.tensorMap.get(dataId)));
  buffers.tensorData().forEach(readAnew);
  const inputBuffers = inputs.map(({dataId}) => backend.tensorMap.get(dataId).resource as GPUBuffer);
  return {
    output,
    recorded: {
      isCurrent: () => canRepeat() && webgpuRecorder.numFreed === numFreed,
      run: (inputValues) => {
        submit(backend);
        const {device, queue} = backend;
        inputBuffers.forEach((buffer, i) => queue.writeBuffer(buffer, 0, inputValues[i] as Int32Array<ArrayBuffer>));
        const encoder = device.createCommandEncoder();
        encode(encoder.beginComputePass(), launches);
        queue.submit([encoder.finish()]);
      },
      dispose: () => {
        output.dispose();
        submit(backend);
        buffers.dispose();
      },
    },
  };
}

/** Has tfjs read these values from the device each time: it would keep what it has read, and each run changes them. */
function readAnew(data: TensorData): void {
  Object.defineProperty(data, 'values', {get: () => null, set: () => {}});
}

/** Runs a step in one pass. `launches` is undefined if there was more than launches. */
function noteLaunches<Output>(backend: WebGPUBackend, step: () => Output): {output: Output; launches?: Launch[]} {
  const batch = backend as unknown as CommandBatch;
  const launches: Launch[] = [];
  const batchSize = env().getNumber('WEBGPU_DEFERRED_SUBMIT_BATCH_SIZE');
  submit(backend);
  backend.ensureCommandEncoderReady();
  const pass = notingPass(batch.commandEncoder!.beginComputePass(), launches);
  batch.computePassEncoder = pass;
  // A submit would end the pass, and give uniform buffers of the step to its later launches.
  env().set('WEBGPU_DEFERRED_SUBMIT_BATCH_SIZE', Infinity);
  try {
    const output = step();
    return batch.computePassEncoder === pass ? {output, launches} : {output};
  } finally {
    env().set('WEBGPU_DEFERRED_SUBMIT_BATCH_SIZE', batchSize);
    submit(backend);
  }
}

/** Submits what waits in tfjs's batch. */
function submit(backend: WebGPUBackend): void {
  backend.ensureCommandEncoderReady();
  backend.endComputePassEncoder();
  backend.submitQueue();
}

/** A pass that notes its launches. */
function notingPass(pass: GPUComputePassEncoder, launches: Launch[]): PassEncoder {
  let pipeline: GPUComputePipeline;
  let bindGroup: GPUBindGroup;
  return {
    setPipeline: (given) => {
      pipeline = given;
      return pass.setPipeline(given);
    },
    setBindGroup: (index: number, given: GPUBindGroup) => {
      bindGroup = given;
      return pass.setBindGroup(index, given);
    },
    dispatchWorkgroups: (x, y = 1, z = 1) => {
      launches.push({pipeline, bindGroup, dispatch: [x, y, z]});
      return pass.dispatchWorkgroups(x, y, z);
    },
    end: () => pass.end(),
  } as PassEncoder;
}

function encode(pass: GPUComputePassEncoder, launches: readonly Launch[]): void {
  for (const {pipeline, bindGroup, dispatch} of launches) {
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, bindGroup);
    pass.dispatchWorkgroups(dispatch[0], dispatch[1], dispatch[2]);
  }
  pass.end();
}

/**
 * Buffers that stay out of the pool: `released` if their tensors have given them back, and `outlived` if the step is
 * gone before.
 */
type HeldBuffers = Map<GPUBuffer, 'in use' | 'released' | 'outlived'>;

const heldBuffers = new WeakMap<BufferManager, HeldBuffers>();

/** The buffers of a recorded step, which no other tensor gets. */
class StepBuffers {
  private readonly buffers: GPUBuffer[] = [];
  private readonly dataIds = new Set<object>();
  private readonly manager: BufferManager;
  private readonly held: HeldBuffers;

  constructor(private readonly backend: WebGPUBackend) {
    this.manager = backend.bufferManager;
    this.held = heldBuffersOf(this.manager);
  }

  /** Holds every buffer that `run` asks for. Each is a new one: tfjs writes constants into it without a copy. */
  hold<Result>(run: () => Result): Result {
    const {backend, manager, buffers, dataIds, held} = this;
    const acquire = manager.acquireBuffer.bind(manager);
    const upload = backend.uploadToGPU.bind(backend);
    manager.acquireBuffer = (size, usage, mappedAtCreation) => {
      const buffer = acquire(size, usage, mappedAtCreation, false);
      buffers.push(buffer);
      held.set(buffer, 'in use');
      return buffer;
    };
    backend.uploadToGPU = (dataId) => {
      upload(dataId);
      dataIds.add(dataId);
    };
    try {
      return run();
    } catch (error) {
      this.dispose();
      throw error;
    } finally {
      manager.acquireBuffer = acquire;
      backend.uploadToGPU = upload;
    }
  }

  /** The data of tensors of the step that are still there: its result, and what others have kept of it. */
  tensorData(): TensorData[] {
    const {tensorMap} = this.backend;
    const existing = [...this.dataIds].filter((dataId) => tensorMap.has(dataId)).map((dataId) => tensorMap.get(dataId));
    return existing.filter(({resource}) => this.buffers.includes(resource as GPUBuffer));
  }

  /** Destroys the buffers. A buffer whose tensor is still there is destroyed with it. */
  dispose(): void {
    for (const buffer of this.buffers.splice(0)) {
      const isReleased = this.held.get(buffer) === 'released';
      this.held.set(buffer, 'outlived');
      if (isReleased) {
        this.manager.releaseBuffer(buffer);
      }
    }
  }
}

/** Those of a pool, which tells from now on what is given back to it. */
function heldBuffersOf(manager: BufferManager): HeldBuffers {
  const known = heldBuffers.get(manager);
  if (known != null) {
    return known;
  }
  const held: HeldBuffers = new Map();
  heldBuffers.set(manager, held);
  const release = manager.releaseBuffer.bind(manager);
  manager.releaseBuffer = (buffer, reuse) => {
    const state = held.get(buffer);
    if (state === 'in use') {
      held.set(buffer, 'released');
      return;
    }
    held.delete(buffer);
    release(buffer, state == null && reuse);
  };
  return held;
}
