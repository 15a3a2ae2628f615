/** GPU time and launches of what tfjs's WebGPU backend is asked to do, by timestamps around its compute passes. */
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import * as tf from '../src/tf';
import type {GpuTime, GpuTimer, LaunchTime} from './gpu_timer';

const MAX_PASSES = 1024;

export class WebGPUTimer implements GpuTimer {
  readonly hasGpuTime = true;
  private readonly device: GPUDevice;
  private readonly querySet: GPUQuerySet;
  private readonly resolved: GPUBuffer;
  private readonly readable: GPUBuffer;
  private isTiming = false;
  private numPasses = 0;
  /** Labels of the pipelines launched, in order. */
  private launches: string[] = [];

  constructor(private readonly backend: WebGPUBackend) {
    const {device} = backend;
    this.device = device;
    this.querySet = device.createQuerySet({type: 'timestamp', count: 2 * MAX_PASSES});
    const size = 16 * MAX_PASSES;
    this.resolved = device.createBuffer({size, usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC});
    this.readable = device.createBuffer({size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST});
    const createCommandEncoder = device.createCommandEncoder.bind(device);
    device.createCommandEncoder = (descriptor) => this.watch(createCommandEncoder(descriptor));
  }

  private watch(encoder: GPUCommandEncoder): GPUCommandEncoder {
    const beginComputePass = encoder.beginComputePass.bind(encoder);
    encoder.beginComputePass = (descriptor) => {
      if (!this.isTiming) {
        return beginComputePass(descriptor);
      }
      if (this.numPasses === MAX_PASSES) {
        throw new Error(`More than ${MAX_PASSES} compute passes: time fewer calls.`);
      }
      const beginningOfPassWriteIndex = 2 * this.numPasses;
      const endOfPassWriteIndex = beginningOfPassWriteIndex + 1;
      this.numPasses++;
      const pass = beginComputePass({
        ...descriptor,
        timestampWrites: {querySet: this.querySet, beginningOfPassWriteIndex, endOfPassWriteIndex},
      });
      let label = '';
      const setPipeline = pass.setPipeline.bind(pass);
      pass.setPipeline = (pipeline) => {
        label = pipeline.label;
        setPipeline(pipeline);
      };
      const dispatchWorkgroups = pass.dispatchWorkgroups.bind(pass);
      pass.dispatchWorkgroups = (x, y, z) => {
        this.launches.push(label);
        dispatchWorkgroups(x, y, z);
      };
      return pass;
    };
    return encoder;
  }

  async workDone(): Promise<void> {
    submitAll(this.backend);
    await this.device.queue.onSubmittedWorkDone();
  }

  /** Runs `work` in as few submissions as it allows, and waits for it. */
  async time(work: () => void, reusesBuffers = false): Promise<GpuTime> {
    const passes = await this.timePasses(() => {
      if (reusesBuffers) {
        reuseBuffers(this.backend);
      }
      work();
    }, 1_000_000);
    return {ms: passes.reduce((sum, ms) => sum + ms, 0), numPasses: passes.length, numLaunches: this.launches.length};
  }

  /** The time of every launch of `work`, each in a compute pass of its own. */
  async timeLaunches(work: () => void): Promise<LaunchTime[]> {
    const passes = await this.timePasses(work, 1);
    return passes.map((ms, i) => ({name: this.launches[i], ms}));
  }

  private async timePasses(work: () => void, launchesPerSubmission: number): Promise<number[]> {
    const batchSize = tf.env().getNumber('WEBGPU_DEFERRED_SUBMIT_BATCH_SIZE');
    submitAll(this.backend);
    tf.env().set('WEBGPU_DEFERRED_SUBMIT_BATCH_SIZE', launchesPerSubmission);
    this.numPasses = 0;
    this.launches = [];
    this.isTiming = true;
    work();
    submitAll(this.backend);
    this.isTiming = false;
    tf.env().set('WEBGPU_DEFERRED_SUBMIT_BATCH_SIZE', batchSize);

    const {numPasses} = this;
    const encoder = this.device.createCommandEncoder();
    encoder.resolveQuerySet(this.querySet, 0, 2 * numPasses, this.resolved, 0);
    encoder.copyBufferToBuffer(this.resolved, 0, this.readable, 0, 16 * numPasses);
    this.device.queue.submit([encoder.finish()]);
    await this.readable.mapAsync(GPUMapMode.READ, 0, 16 * numPasses);
    const stamps = new BigUint64Array(this.readable.getMappedRange(0, 16 * numPasses));
    const times = Array.from({length: numPasses}, (_, pass) => Number(stamps[2 * pass + 1] - stamps[2 * pass]) / 1e6);
    this.readable.unmap();
    return times;
  }
}

/** Submits what the backend holds back to submit in batches. */
function submitAll(backend: WebGPUBackend): void {
  backend.ensureCommandEncoderReady();
  backend.endComputePassEncoder();
  backend.submitQueue();
}

/**
 * Gives what is disposed back to the pool at once, not when its batch is submitted, so that the next call writes into
 * the buffers of this one. Right as long as only launches touch them, because launches run in order. Ends with the
 * next submission.
 */
function reuseBuffers(backend: WebGPUBackend): void {
  const ownsNothing = {add: () => {}, has: () => false};
  (backend as unknown as {commandQueueOwnedIds: typeof ownsNothing}).commandQueueOwnedIds = ownsNothing;
}

/** A plain copy of n vec4, which moves 32 bytes for each: what the bandwidth of the device is measured by. */
export function copyKernel(x: tf.Tensor): tf.Tensor {
  const backend = tf.backend() as WebGPUBackend;
  const numVectors = x.size / 4;
  const program = {
    variableNames: ['x'],
    outputShape: [x.size],
    shaderKey: 'benchCopy',
    workgroupSize: [256, 1, 1] as [number, number, number],
    dispatchLayout: {x: [0]},
    dispatch: [Math.ceil(numVectors / 256), 1, 1] as [number, number, number],
    outputComponent: 4,
    variableComponents: [4],
    size: true,
    getUserCode: () => `
      fn main(index : i32) {
        if (index < uniforms.size) { result[index] = x[index]; }
      }`,
  };
  return tf.engine().makeTensorFromTensorInfo(backend.runWebGPUProgram(program, [x], 'float32'));
}
