import {engine, env, getBackend, getKernel, type KernelBackend} from '@tensorflow/tfjs-core';
import {lostDeviceOf} from '../contract/devices';
import {MoePermute, MoeUnpermute} from '../contract/kernel_names';

/**
 * Whether moePermute and moeUnpermute run on a backend: it is running, their kernels are registered for it, and its
 * device has what they need: it is not lost, and on a WebGL backend of any name it has WebGL 2. A WebGL context that
 * was lost and restored is lost to the backend that used it.
 *
 * ```js
 * await tf.ready();
 * tf.moePermuteUnpermuteSupported(); // => true
 * tf.moePermuteUnpermuteSupported('no-such-backend'); // => false
 * ```
 *
 * @param backendName  Default: the current backend. It is never started for the answer: false for one that is
 *     not running yet.
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

/** A WebGL backend is known by its context. */
function hasUsableDevice(backend: KernelBackend): boolean {
  const isWebGL = (backend as {gpgpu?: object}).gpgpu != null;
  return lostDeviceOf(backend) == null && (!isWebGL || env().getNumber('WEBGL_VERSION') === 2);
}
