import {getGradient, getKernel, type GradConfig, registerGradient, registerKernel} from '@tensorflow/tfjs-core';
import type {MoeKernel} from './shared/moe_kernel';

/**
 * Registers kernels under a backend's name. A kernel that is there already stays: tfjs's registry is one for
 * the page, so a second copy of this package, or a hot reload, changes nothing and prints nothing.
 */
export function registerKernels(kernels: Record<string, MoeKernel>, backendName: string): void {
  for (const kernel of Object.values(kernels)) {
    if (getKernel(kernel.kernelName, backendName) == null) {
      registerKernel({...kernel, backendName});
    }
  }
}

/** Registers gradients, by the same rule. */
export function registerGradients(gradients: Record<string, GradConfig>): void {
  for (const gradient of Object.values(gradients)) {
    if (getGradient(gradient.kernelName) == null) {
      registerGradient(gradient);
    }
  }
}
