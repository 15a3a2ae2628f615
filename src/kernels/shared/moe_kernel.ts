import type {KernelConfig} from '@tensorflow/tfjs-core';
import {type MoeKernelName, type MoeKernels, moeKernelOutputNames} from '../../contract/kernel_names';

/** A kernel of one kind of backend, before it is registered under a backend's name. */
export type MoeKernel = {kernelName: MoeKernelName} & Pick<KernelConfig, 'kernelFunc' | 'setupFunc' | 'disposeFunc'>;

/** The outputs of a kernel by name. `Value` is the form that a tensor has on a kind of backend. */
export type OutputsAs<K extends MoeKernelName, Value> = {[Name in keyof MoeKernels[K]['outputs']]: Value};

/** In the order in which tfjs hands them on; one that is not given is left out. */
export function inOrder<K extends MoeKernelName, Value>(kernelName: K, outputs: OutputsAs<K, Value>): Value[] {
  return moeKernelOutputNames[kernelName].flatMap((name) => outputs[name] ?? []) as Value[];
}
