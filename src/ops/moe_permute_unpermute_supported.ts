import {engine, getBackend, getKernel} from '@tensorflow/tfjs-core';
import {MoePermute, MoeUnpermute} from '../kernel_names';

/**
 * Whether moePermute and moeUnpermute run on a backend: it is running, and their kernels are registered for it.
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
  return (
    name != null &&
    engine().registry[name] != null &&
    [MoePermute, MoeUnpermute].every((kernelName) => getKernel(kernelName, name) != null)
  );
}
