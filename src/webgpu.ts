/**
 * `tfjs-moe/webgpu`: tfjs's WebGPU backend on a device with every useful feature and limit of the adapter.
 *
 * @module tfjs-moe/webgpu
 */
import {findBackendFactory, registerBackend, removeBackend} from '@tensorflow/tfjs-core';
import {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {watchDevice} from './contract/devices';

export type WebGPUBackendOptions = {
  /** The source of devices. Default: `navigator.gpu`. In Node.js: `create([])` of the npm package `webgpu`. */
  gpu?: GPU | null;
  /** The adapter to prefer, as in navigator.gpu.requestAdapter. Default: `'high-performance'`. */
  powerPreference?: GPUPowerPreference | null;
};

const USEFUL_FEATURES = ['subgroups', 'shader-f16', 'timestamp-query', 'bgra8unorm-storage'];
const USEFUL_LIMITS = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeWorkgroupStorageSize',
  'maxComputeWorkgroupsPerDimension',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupSizeX',
  'maxComputeWorkgroupSizeY',
  'maxComputeWorkgroupSizeZ',
] as const;
/** The priority of tfjs's own registration: before webgl and cpu if no backend is named. */
const PRIORITY = 3;
/** In Firefox, between two empty submits while a read waits. */
const SUBMIT_MS = 2;

/**
 * Registers tfjs's backend `webgpu` on a device with every useful feature and limit of the adapter. Use it in Node.js,
 * where tfjs does not register the backend, or to choose the source of the device. tfjs's own registration asks for
 * timestamps and the sizes of buffers. This one also asks for subgroups, shader-f16 and more storage buffers per stage,
 * for kernels of your own; the kernels of this package need none of these. In Firefox `data()` takes some milliseconds
 * on this backend, and 100 on tfjs's own: Firefox looks for what a GPU has done every 100 ms and after each submit, so
 * that the backend submits nothing again and again while a read waits. A running backend of that name is removed, and
 * its tensors with it.
 *
 *     await registerWebGPUBackend();
 *     await tf.setBackend('webgpu');
 *
 * In Node.js, with the npm package `webgpu`, whose globals tfjs needs:
 *
 *     import {create, globals} from 'webgpu';
 *     Object.assign(globalThis, globals);
 *     await registerWebGPUBackend({gpu: create([])});
 *
 * @param options.gpu  The source of devices. Default: `navigator.gpu`.
 * @param options.powerPreference  The adapter to prefer. Default: `'high-performance'`.
 * @throws if there is no WebGPU, no adapter, or in Node.js the globals are missing. Nothing is registered then.
 */
export async function registerWebGPUBackend(options?: WebGPUBackendOptions | null): Promise<void> {
  const gpu = options?.gpu ?? (globalThis as {navigator?: {gpu?: GPU}}).navigator?.gpu;
  if (gpu == null) {
    throw new Error(
      'Error in registerWebGPUBackend: there is no WebGPU here (navigator.gpu). A page needs https or localhost, and ' +
        'a browser that has WebGPU. In Node.js, pass the gpu of the npm package webgpu.',
    );
  }
  if (typeof GPUBufferUsage === 'undefined') {
    throw new Error(
      'Error in registerWebGPUBackend: the globals of WebGPU are missing. In Node.js, call Object.assign(globalThis, ' +
        'globals) with the globals of the npm package webgpu first.',
    );
  }
  const requestAdapter = async () => {
    const adapter = await gpu.requestAdapter({powerPreference: options?.powerPreference ?? 'high-performance'});
    if (adapter == null) {
      throw new Error(
        'Error in registerWebGPUBackend: WebGPU has no adapter here. It needs a GPU with a driver for Vulkan, Metal ' +
          'or Direct3D 12, or a software GPU: on Linux, VK_ICD_FILENAMES names the driver for Node.js, such as the ' +
          'vk_swiftshader_icd.json of Chromium. Chromium on Linux may need --enable-unsafe-webgpu, and chrome://gpu ' +
          'says what is missing.',
      );
    }
    return adapter;
  };
  await requestAdapter();
  makeGlobal(gpu);

  if (findBackendFactory('webgpu') != null) {
    removeBackend('webgpu');
  }
  const makeBackend = async () => {
    // An adapter gives one device only, and after a reset tfjs makes the backend again: each time with a new adapter.
    const adapter = await requestAdapter();
    const device = await adapter.requestDevice({
      requiredFeatures: USEFUL_FEATURES.filter((feature) => adapter.features.has(feature)) as GPUFeatureName[],
      requiredLimits: Object.fromEntries(USEFUL_LIMITS.map((limit) => [limit, adapter.limits[limit]])),
    });
    const backend = new WebGPUBackend(device, adapter.info);
    watchDevice(backend);
    if (navigator.userAgent?.includes('Firefox')) {
      hastenReads(backend);
    }
    return backend;
  };
  registerBackend('webgpu', makeBackend, PRIORITY);
}

/** Submits nothing, so that Firefox looks for what the GPU has done, as long as a read waits. */
function hastenReads(backend: WebGPUBackend): void {
  const read = backend.getBufferData.bind(backend);
  let numWaiting = 0;
  let timer: ReturnType<typeof setInterval> | undefined;
  backend.getBufferData = async (buffer) => {
    numWaiting++;
    timer ??= setInterval(() => backend.queue.submit([]), SUBMIT_MS);
    try {
      return await read(buffer);
    } finally {
      numWaiting--;
      if (numWaiting === 0) {
        clearInterval(timer);
        timer = undefined;
      }
    }
  };
}

/** tfjs looks for WebGPU in navigator.gpu, which Node.js lacks. */
function makeGlobal(gpu: GPU): void {
  const {navigator} = globalThis as {navigator?: {gpu?: GPU}};
  if (navigator == null) {
    Object.defineProperty(globalThis, 'navigator', {value: {gpu}, configurable: true, writable: true});
  } else if (navigator.gpu == null) {
    Object.defineProperty(navigator, 'gpu', {value: gpu, configurable: true});
  }
}
