import {engine, getBackend, getKernel} from '@tensorflow/tfjs-core';
import type {MoeDecodingKernelName} from '../contract/kernel_names';

export const hasKernel = (kernelName: MoeDecodingKernelName): boolean => getKernel(kernelName, getBackend()) != null;

/** Whether the backend has the kernel, and no gradient is wanted, which the kernel does not have. */
export const runsWithoutGradient = (kernelName: MoeDecodingKernelName): boolean =>
  engine().state.gradientDepth === 0 && hasKernel(kernelName);
