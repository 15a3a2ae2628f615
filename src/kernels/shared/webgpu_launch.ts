/**
 * Launches of this package in the command batch of tfjs's WebGPU backend.
 *
 * A launch takes the place of tfjs's runWebGPUProgram, which makes a key, a uniform buffer and a bind group for every
 * call: these take longer than a launch itself. What a launch can know before its buffers is made once.
 */
import {env, type TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';

/** What a launch needs besides its buffers. */
export type Launch = {
  /** Labels its time in tf.profile. */
  name: string;
  pipeline: GPUComputePipeline;
  layout: GPUBindGroupLayout;
  uniforms: GPUBuffer;
  dispatch: [number, number, number];
  bindGroups: BindGroups;
  numBindGroups: number;
};

/** Bind groups by the buffers in them, one after the other: a group goes with any of its buffers. */
type BindGroups = {next: WeakMap<GPUBuffer, BindGroups>; group?: GPUBindGroup};

/** Buffers come back from tfjs's pool in so many combinations at most, before all groups of a launch are made anew. */
const MAX_BIND_GROUPS = 256;

/** What tfjs's backend does not declare as public. */
type CommandBatch = {
  activeTimers?: Array<{name: string; query: Promise<number>}>;
  commandEncoder?: GPUCommandEncoder;
  computePassEncoder?: GPUComputePassEncoder;
  commandQueueOwnedIds: WeakSet<object>;
  dispatchCountInPass: number;
  querySet?: GPUQuerySet;
  querySetCount: number;
  supportTimestampQuery: boolean;
};

const emptyBindGroups = (): BindGroups => ({next: new WeakMap()});

export function makeLaunch(
  device: GPUDevice,
  name: string,
  pipeline: GPUComputePipeline,
  uniforms: readonly number[],
  numWorkgroups: number,
): Launch {
  return {
    name,
    pipeline,
    layout: pipeline.getBindGroupLayout(0),
    uniforms: uniformBuffer(device, uniforms),
    dispatch: foldedDispatch(device, numWorkgroups),
    bindGroups: emptyBindGroups(),
    numBindGroups: 0,
  };
}

function uniformBuffer(device: GPUDevice, values: readonly number[]): GPUBuffer {
  const buffer = device.createBuffer({size: 4 * values.length, usage: GPUBufferUsage.UNIFORM, mappedAtCreation: true});
  new Int32Array(buffer.getMappedRange()).set(values);
  buffer.unmap();
  return buffer;
}

/** In one dimension, or where that is past the device's limit in two or three; entryPoint unfolds it. */
function foldedDispatch({limits}: GPUDevice, numWorkgroups: number): [number, number, number] {
  const limit = limits.maxComputeWorkgroupsPerDimension;
  if (numWorkgroups <= limit) {
    return [numWorkgroups, 1, 1];
  }
  const side = Math.ceil(Math.sqrt(numWorkgroups));
  if (side <= limit) {
    return [side, side, 1];
  }
  const edge = Math.ceil(Math.cbrt(numWorkgroups));
  return [edge, edge, edge];
}

/** Records the launch, with these tensors in binding order. */
export function recordLaunch(backend: WebGPUBackend, launch: Launch, tensors: readonly TensorInfo[]): void {
  const batch = backend as unknown as CommandBatch;
  let bindGroups = launch.bindGroups;
  for (const {dataId} of tensors) {
    backend.uploadToGPU(dataId);
    batch.commandQueueOwnedIds.add(dataId);
    bindGroups = bindGroupsOfNext(bindGroups, bufferOf(backend, dataId));
  }
  bindGroups.group ??= makeBindGroup(backend, launch, tensors);

  const isTimed = batch.activeTimers != null;
  const pass = isTimed ? beginTimedPass(backend) : passOf(backend);
  pass.setPipeline(launch.pipeline);
  pass.setBindGroup(0, bindGroups.group);
  pass.dispatchWorkgroups(...launch.dispatch);
  batch.dispatchCountInPass++;
  if (isTimed) {
    backend.endComputePassEncoder();
    batch.activeTimers!.push({name: launch.name, query: backend.getQueryTime()});
  } else if (env().getNumber('WEBGPU_DEFERRED_SUBMIT_BATCH_SIZE') <= batch.dispatchCountInPass) {
    backend.endComputePassEncoder();
    backend.submitQueue();
  }
}

const bufferOf = (backend: WebGPUBackend, dataId: TensorInfo['dataId']) =>
  backend.tensorMap.get(dataId).resource as GPUBuffer;

function bindGroupsOfNext({next}: BindGroups, buffer: GPUBuffer): BindGroups {
  let found = next.get(buffer);
  if (found == null) {
    found = emptyBindGroups();
    next.set(buffer, found);
  }
  return found;
}

function makeBindGroup(backend: WebGPUBackend, launch: Launch, tensors: readonly TensorInfo[]): GPUBindGroup {
  launch.numBindGroups++;
  if (launch.numBindGroups > MAX_BIND_GROUPS) {
    launch.bindGroups = emptyBindGroups();
    launch.numBindGroups = 0;
  }
  const buffers = [...tensors.map(({dataId}) => bufferOf(backend, dataId)), launch.uniforms];
  return backend.device.createBindGroup({
    layout: launch.layout,
    entries: buffers.map((buffer, binding) => ({binding, resource: {buffer}})),
  });
}

/** The pass that the batch is in. */
function passOf(backend: WebGPUBackend): GPUComputePassEncoder {
  const batch = backend as unknown as CommandBatch;
  backend.ensureCommandEncoderReady();
  batch.computePassEncoder ??= batch.commandEncoder!.beginComputePass();
  return batch.computePassEncoder;
}

/** A pass of its own, between two timestamps where the device has them, as tfjs times its programs. */
function beginTimedPass(backend: WebGPUBackend): GPUComputePassEncoder {
  const batch = backend as unknown as CommandBatch;
  backend.ensureCommandEncoderReady();
  if (!batch.supportTimestampQuery) {
    return passOf(backend);
  }
  backend.endComputePassEncoder();
  batch.querySet ??= backend.device.createQuerySet({type: 'timestamp', count: batch.querySetCount});
  batch.computePassEncoder = batch.commandEncoder!.beginComputePass({
    timestampWrites: {querySet: batch.querySet, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1},
  });
  return batch.computePassEncoder;
}
