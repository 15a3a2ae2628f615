/** Kernels of both GPU backends: they check their device, and they leave nothing behind when they throw. */
import {type KernelBackend, type TensorInfo, util} from '@tensorflow/tfjs-core';
import {lostDeviceOf, watchDevice} from '../../contract/devices';
import type {MoeKernelName, MoeKernels} from '../../contract/kernel_names';
import {runningOpName} from '../../contract/op_name';
import {inOrder, type MoeKernel, type OutputsAs} from './moe_kernel';

type DataId = TensorInfo['dataId'];

/** The tensors that the running kernel has made and not given back. */
let made: Set<DataId> | undefined;

/** Notes a tensor that the running kernel has made: it is freed if the kernel throws. */
export function noteMade(tensor: TensorInfo): TensorInfo {
  made?.add(tensor.dataId);
  return tensor;
}

/** Gives back intermediate tensors. What was recorded to use them runs first: tfjs keeps their memory until then. */
export function disposeAll(backend: KernelBackend, tensors: readonly TensorInfo[]): void {
  for (const {dataId} of tensors) {
    made?.delete(dataId);
    backend.disposeData(dataId);
  }
}

/** A kernel of a GPU backend, typed by its name. */
export function gpuKernel<Backend extends KernelBackend, K extends MoeKernelName>(
  kernelName: K,
  run: (backend: Backend, inputs: MoeKernels[K]['inputs'], attrs: MoeKernels[K]['attrs']) => OutputsAs<K, TensorInfo>,
): MoeKernel {
  return {
    kernelName,
    setupFunc: (backend) => watchDevice(backend as KernelBackend),
    kernelFunc: ({inputs, attrs, backend}) => {
      const gpu = backend as Backend;
      assertNotLost(gpu, kernelName);
      made = new Set();
      try {
        const given = inputs as unknown as MoeKernels[K]['inputs'];
        return inOrder(kernelName, run(gpu, given, attrs as unknown as MoeKernels[K]['attrs']));
      } catch (error) {
        made.forEach((dataId) => gpu.disposeData(dataId));
        throw error;
      } finally {
        made = undefined;
      }
    },
  };
}

function assertNotLost(backend: KernelBackend, kernelName: string): void {
  const device = lostDeviceOf(backend);
  util.assert(
    device == null,
    () =>
      `Error in ${runningOpName(kernelName)}: the ${device} is lost, and with it every tensor that it held. Remove the ` +
      'backend and register it again.',
  );
}
