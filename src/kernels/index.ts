/** Registers, on import, the kernels of every backend and the gradients. */
import {cpuKernels} from './cpu';
import {webglKernels} from './webgl';
import {registerWebGPUKernels} from './webgpu';
import {registerKernels} from './register';

const registrations = {
  cpu: (backendName: string) => registerKernels(cpuKernels, backendName),
  webgl: (backendName: string) => registerKernels(webglKernels, backendName),
  webgpu: registerWebGPUKernels,
};

/** A backend that this package has kernels for. */
export type MoeBackendName = keyof typeof registrations;

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
  if (!Object.prototype.hasOwnProperty.call(registrations, like)) {
    throw new Error(
      `Error in registerMoeKernels: like must be one of ${Object.keys(registrations).join(', ')}, but is '${like}'.`,
    );
  }
  registrations[like](backendName);
}
