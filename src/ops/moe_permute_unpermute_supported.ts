import {engine, env, getBackend, getKernel, type KernelBackend} from '@tensorflow/tfjs-core';
import {MoePermute, MoeUnpermute} from '../kernel_names';

/**
 * Whether moePermute and moeUnpermute run on a backend: it is running, their kernels are registered for it, and its
 * device has what they need. That is WebGL 2 and a context that is not lost, on a WebGL backend of any name.
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
  const {gpgpu} = backend as {gpgpu?: {gl: WebGLRenderingContext}};
  return gpgpu == null || (env().getNumber('WEBGL_VERSION') === 2 && !gpgpu.gl.isContextLost());
}
