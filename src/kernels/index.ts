/** Registers, on import, the kernels of every backend and the gradients. */
import {cpuKernels} from './cpu';
import type {MoeKernel} from './shared/moe_kernel';
import {webglKernels} from './webgl';
import {webgpuKernels} from './webgpu';
import {registerKernels} from './register';

const kernelTables = {cpu: cpuKernels, webgl: webglKernels, webgpu: webgpuKernels} satisfies Record<
  string,
  Record<string, MoeKernel>
>;

/** A backend that this package has kernels for. */
export type MoeBackendName = keyof typeof kernelTables;

/**
 * Registers the kernels of one backend under another backend's name.
 *
 * For a backend that is a known one under a name of its own, such as a second instance made by
 * `tf.registerBackend('my-cpu', …)`. Kernels that the name already has stay as they are.
 *
 * @param backendName  The name that `tf.setBackend` is given.
 * @param like  The backend whose kernels it can run. `'cpu'` stands for every backend whose tensors the host
 *     reads synchronously.
 * @throws if there are no kernels for `like`.
 */
export function registerMoeKernels(backendName: string, like: MoeBackendName): void {
  if (!Object.prototype.hasOwnProperty.call(kernelTables, like)) {
    throw new Error(
      `Error in registerMoeKernels: like must be one of ${Object.keys(kernelTables).join(', ')}, but is '${like}'.`,
    );
  }
  registerKernels(kernelTables[like], backendName);
}
