/** The steps of a kernel on WebGPU: to make tensors, to launch programs on them, and to dispose of them. */
import {type TensorInfo, util} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {noteMade} from './gpu_kernel';
import {Recorder} from './recording';
import {type Launch, recordLaunch} from './webgpu_launch';

export const webgpuRecorder = new Recorder<WebGPUBackend>({
  beforeFree: (backend) => {
    backend.ensureCommandEncoderReady();
    backend.endComputePassEncoder();
    backend.submitQueue();
  },
});

/** A tensor whose elements a program is about to write. */
export function newTensor(backend: WebGPUBackend, shape: number[], dtype: 'int32' | 'float32'): TensorInfo {
  const isEmpty = util.sizeFromShape(shape) === 0;
  const values = isEmpty ? util.getTypedArrayFromDType(dtype, 0) : undefined;
  const making = {run: (on: WebGPUBackend) => noteMade(on.makeTensorInfo(shape, dtype, values))};
  return webgpuRecorder.step(backend, making, [])!;
}

/** Launches a program on these tensors, in binding order. */
export function launchOn(backend: WebGPUBackend, launch: Launch, tensors: readonly TensorInfo[]): void {
  const launching = {
    run: (on: WebGPUBackend, given: readonly TensorInfo[]) => {
      recordLaunch(on, launch, given);
      return undefined;
    },
    free: () => launch.uniforms.destroy(),
  };
  webgpuRecorder.step(backend, launching, tensors);
}

/** Gives back intermediate tensors. What was launched on them runs first: tfjs keeps their memory until then. */
export function disposeAll(backend: WebGPUBackend, tensors: readonly TensorInfo[]): void {
  webgpuRecorder.dispose(backend, tensors);
}
