/** What runs on the current WebGPU backend, as its device sees it: programs of tfjs and of this package alike. */
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import * as tf from '../../src/tf';

/** A launch: the label of its pipeline, and the bytes of each storage buffer that it binds. */
export type SeenLaunch = {label: string; bufferSizes: number[]};

/** Calls back before each launch, until the result is called. */
export function onLaunch(announce: (launch: SeenLaunch) => void): () => void {
  const backend = tf.backend() as WebGPUBackend;
  const {device} = backend;
  let isOn = true;
  const sizesOf = new WeakMap<GPUBindGroup, number[]>();
  const createBindGroup = device.createBindGroup.bind(device);
  device.createBindGroup = (descriptor) => {
    const group = createBindGroup(descriptor);
    const buffers = Array.from(descriptor.entries, ({resource}) => (resource as GPUBufferBinding).buffer);
    sizesOf.set(group, buffers.filter(({usage}) => (usage & GPUBufferUsage.STORAGE) !== 0).map(({size}) => size));
    return group;
  };
  const createCommandEncoder = device.createCommandEncoder.bind(device);
  device.createCommandEncoder = (descriptor) => {
    const encoder = createCommandEncoder(descriptor);
    const beginComputePass = encoder.beginComputePass.bind(encoder);
    encoder.beginComputePass = (passDescriptor) => {
      const pass = beginComputePass(passDescriptor);
      const seen: SeenLaunch = {label: '', bufferSizes: []};
      const setPipeline = pass.setPipeline.bind(pass);
      pass.setPipeline = (pipeline) => {
        seen.label = pipeline.label;
        setPipeline(pipeline);
      };
      const setBindGroup = pass.setBindGroup.bind(pass) as (index: number, group: GPUBindGroup) => void;
      pass.setBindGroup = ((index: number, group: GPUBindGroup) => {
        seen.bufferSizes = sizesOf.get(group) ?? [];
        setBindGroup(index, group);
      }) as GPUComputePassEncoder['setBindGroup'];
      const dispatchWorkgroups = pass.dispatchWorkgroups.bind(pass);
      pass.dispatchWorkgroups = (x, y, z) => {
        if (isOn) {
          announce({...seen});
        }
        dispatchWorkgroups(x, y, z);
      };
      return pass;
    };
    return encoder;
  };
  // What is recorded already has an encoder that is not watched.
  backend.ensureCommandEncoderReady();
  backend.endComputePassEncoder();
  backend.submitQueue();
  return () => {
    isOn = false;
    delete (device as Partial<GPUDevice>).createBindGroup;
    delete (device as Partial<GPUDevice>).createCommandEncoder;
  };
}

export const isOwn = ({label}: SeenLaunch) => label.startsWith('Moe');

/** How many programs run. */
export function countLaunches(run: () => void): number {
  let numLaunches = 0;
  const undo = onLaunch(() => numLaunches++);
  try {
    run();
  } finally {
    undo();
  }
  return numLaunches;
}
