import {engine, env, getBackend, getKernel, type KernelBackend} from '@tensorflow/tfjs-core';
import {lostDeviceOf} from '../contract/devices';
import {MoePermute, MoeUnpermute} from '../contract/kernel_names';

/**
 * Whether moePermute and moeUnpermute run on a backend. The backend must be running, their kernels must be registered
 * for it, and its device must not be lost. A WebGL backend of any name must have WebGL 2. A backend whose WebGL context
 * was lost cannot use that context again, even if it is restored.
 *
 * ```js
 * await tf.ready();
 * tf.moePermuteUnpermuteSupported(); // => true
 * tf.moePermuteUnpermuteSupported('no-such-backend'); // => false
 * ```
 *
 * @param backendName  Default: the current backend. The function never starts a backend: the result is false for a
 *     backend that is not running yet.
 *
 * Source: vLLM `moe_permute_unpermute_supported`.
 */
export function moePermuteUnpermuteSupported(backendName: string | null | undefined = getBackend()): boolean {
  const name = backendName ?? getBackend();
  const backend = name == null ? undefined : engine().registry[name];
  return (
    backend != null &&
    hasUsableDevice(backend) &&
    [MoePermute, MoeUnpermute].every((kernelName) => getKernel(kernelName, name) != null)
  );
}

/** WebGL backends may have any name: their context tells them apart. */
function hasUsableDevice(backend: KernelBackend): boolean {
  const isWebGL = (backend as {gpgpu?: object}).gpgpu != null;
  return lostDeviceOf(backend) == null && (!isWebGL || env().getNumber('WEBGL_VERSION') === 2);
}
