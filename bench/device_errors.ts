/** What a device reports ends a benchmark: its results would be of work that the device has dropped. */
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import * as tf from '../src/tf';

/** Rejects as soon as the device of the webgpu backend, if that is the current one, reports an error or is lost. */
export async function endedByDeviceErrors<Result>(run: () => Promise<Result>): Promise<Result> {
  if (tf.getBackend() !== 'webgpu') {
    return run();
  }
  const {device} = tf.backend() as WebGPUBackend;
  const failed = new Promise<never>((_, reject) => {
    device.addEventListener('uncapturederror', (event) => {
      reject(new Error(`The WebGPU device reports: ${(event as GPUUncapturedErrorEvent).error.message}`));
    });
    void device.lost.then(({reason, message}) => {
      if (reason !== 'destroyed') {
        reject(new Error(`The WebGPU device is lost: ${message}`));
      }
    });
  });
  const done = run().then(async (result) => {
    // Errors arrive before the work that was submitted last is reported done.
    await device.queue.onSubmittedWorkDone();
    return result;
  });
  return Promise.race([done, failed]);
}
