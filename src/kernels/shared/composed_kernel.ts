/** Kernels that are made of other kernels by name, so that one function serves every backend. */
import {engine, type NamedAttrMap, type NamedTensorInfoMap, type TensorInfo, tidy} from '@tensorflow/tfjs-core';
import type {MoeKernelName, MoeKernels} from '../../contract/kernel_names';
import {inOrder, type MoeKernel, type OutputsAs} from './moe_kernel';

export function composedKernel<K extends MoeKernelName>(
  kernelName: K,
  run: (inputs: MoeKernels[K]['inputs'], attrs: MoeKernels[K]['attrs']) => MoeKernels[K]['outputs'],
): MoeKernel {
  const composed = (inputs: NamedTensorInfoMap, attrs: NamedAttrMap) =>
    run(inputs as unknown as MoeKernels[K]['inputs'], attrs as unknown as MoeKernels[K]['attrs']);
  return {
    kernelName,
    // The scope keeps the name of the op, for errors.
    kernelFunc: ({inputs, attrs}) =>
      inOrder(
        kernelName,
        tidy(engine().state.activeScope?.name ?? kernelName, () => composed(inputs, attrs!)) as OutputsAs<
          K,
          TensorInfo
        >,
      ),
  };
}
