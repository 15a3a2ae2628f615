/**
 * One WebGPU device for all specs: tfjs makes every backend anew for each group of specs, and software GPUs take
 * seconds to compile our pipelines. They stay with the device.
 */
import {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {findBackendFactory, registerBackend, removeBackend} from '@tensorflow/tfjs-core';
import {keepPolling} from './firefox_polling';

let device: Promise<{device: GPUDevice; info: GPUAdapterInfo}> | undefined;
/** Of that device: tfjs's own pipelines would go with the backend. */
const pipelineCache: Record<string, GPUComputePipeline> = {};

async function requestDevice(): Promise<{device: GPUDevice; info: GPUAdapterInfo}> {
  const adapter = await navigator.gpu.requestAdapter();
  if (adapter == null) {
    throw new Error('There is no WebGPU adapter.');
  }
  // What tfjs's own registration asks for that the specs use; in particular, 8 storage buffers.
  const {maxComputeInvocationsPerWorkgroup, maxComputeWorkgroupSizeX} = adapter.limits;
  const requiredLimits = {maxComputeInvocationsPerWorkgroup, maxComputeWorkgroupSizeX};
  const device = await adapter.requestDevice({requiredLimits});
  keepPolling(device);
  return {device, info: adapter.info};
}

/** Registers tfjs's WebGPU backend on that device. */
export function registerSharedDevice(): void {
  if (findBackendFactory('webgpu') != null) {
    removeBackend('webgpu');
  }
  registerBackend('webgpu', async () => {
    device ??= requestDevice();
    const shared = await device;
    return Object.assign(new WebGPUBackend(shared.device, shared.info), {pipelineCache}) as WebGPUBackend;
  });
}

registerSharedDevice();
