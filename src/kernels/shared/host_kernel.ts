/**
 * Kernels that compute on the host, with typed arrays. They serve every backend whose tensors the host
 * can read at once and at little cost: cpu, wasm and tensorflow (tfjs-node). Never webgpu, and webgl only for
 * results that its textures cannot hold: there a read waits for the device.
 */
import type {KernelBackend, KernelFunc, TensorInfo, TypedArray} from '@tensorflow/tfjs-core';
import {type HostArray, hostValuesOf} from '../../contract/host_values';
import type {MoeKernelName, MoeKernels} from '../../contract/kernel_names';
import {inOrder, type MoeKernel, type OutputsAs} from './moe_kernel';

export type {HostArray} from '../../contract/host_values';
/** float32 in a Float32Array, else int32 in an Int32Array. */
export type HostTensor = {values: HostArray; shape: number[]};
type HostInputs<Inputs> = {[Name in keyof Inputs]: HostTensor};

export function hostKernel<K extends MoeKernelName>(
  kernelName: K,
  compute: (inputs: HostInputs<MoeKernels[K]['inputs']>, attrs: MoeKernels[K]['attrs']) => OutputsAs<K, HostTensor>,
): MoeKernel {
  const kernelFunc: KernelFunc = ({inputs, attrs, backend}) => {
    const {readSync, write} = backend as KernelBackend;
    const hostInputs: Record<string, HostTensor> = {};
    for (const [name, {dataId, shape, dtype}] of Object.entries(inputs as Record<string, TensorInfo>)) {
      hostInputs[name] = {values: hostValuesOf(readSync.call(backend, dataId) as TypedArray, dtype), shape};
    }
    const outputs = compute(
      hostInputs as HostInputs<MoeKernels[K]['inputs']>,
      attrs as unknown as MoeKernels[K]['attrs'],
    );
    return inOrder(kernelName, outputs).map(({values, shape}): TensorInfo => {
      const dtype = values instanceof Int32Array ? 'int32' : 'float32';
      return {dataId: write.call(backend, values, shape, dtype), shape, dtype};
    });
  };
  return {kernelName, kernelFunc};
}
