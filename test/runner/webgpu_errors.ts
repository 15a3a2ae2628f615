/**
 * A wrong shader or binding throws nothing in WebGPU: the device reports it later and drops the batch. Here it
 * fails the spec that was running.
 */
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import * as tf from '../../src/tf';

const reported: string[] = [];
const watched = new WeakSet<GPUDevice>();

/** The device of the webgpu backend while that is the current one, its errors watched. */
function watchedDevice(): GPUDevice | undefined {
  if (tf.getBackend() !== 'webgpu') {
    return undefined;
  }
  const {device} = tf.backend() as WebGPUBackend;
  if (!watched.has(device)) {
    watched.add(device);
    device.addEventListener('uncapturederror', (event) => reported.push((event as GPUUncapturedErrorEvent).error.message));
  }
  return device;
}

beforeEach(() => {
  watchedDevice();
});

afterEach(async () => {
  // Errors arrive in order before the work that was submitted last is reported done.
  await watchedDevice()?.queue.onSubmittedWorkDone();
  expect(reported.splice(0)).withContext('errors of the WebGPU device').toEqual([]);
});
