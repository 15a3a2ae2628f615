/** The device that a benchmark runs on: its name, and the errors that it reports. */
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import * as tf from '../src/tf';
import {waitForWebGL} from './webgl_timer';

/** All that an adapter tells of itself; browsers leave out the name of the card unless a flag asks for it. */
export function nameOf({vendor, architecture, device, description}: GPUAdapterInfo): string {
  return [vendor, architecture, device, description].filter((part) => part !== '').join(' ');
}

/** The device of the webgpu backend, if that is the current one. */
export function currentDevice(): GPUDevice | undefined {
  return tf.getBackend() === 'webgpu' ? (tf.backend() as WebGPUBackend).device : undefined;
}

/** Resolves when the current backend's device has done all that it was asked for. */
export async function deviceIsDone(): Promise<void> {
  if (tf.getBackend() === 'webgl') {
    waitForWebGL((tf.backend() as MathBackendWebGL).gpgpu.gl as WebGL2RenderingContext);
  }
  await currentDevice()?.queue.onSubmittedWorkDone();
}

/**
 * Rejects as soon as the device reports an error or is lost, because what was timed would be of work that the device
 * has dropped. The device is by default that of the webgpu backend; without one nothing is watched.
 */
export async function endedByDeviceErrors<Result>(
  run: () => Promise<Result>,
  device: GPUDevice | undefined = currentDevice(),
): Promise<Result> {
  if (device == null) {
    return run();
  }
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
