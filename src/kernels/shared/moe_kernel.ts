import type {KernelConfig} from '@tensorflow/tfjs-core';
import type {MoeKernelName} from '../../contract/kernel_names';

/** A kernel of one kind of backend, before it is registered under a backend's name. */
export type MoeKernel = {kernelName: MoeKernelName} & Pick<KernelConfig, 'kernelFunc' | 'setupFunc'>;
