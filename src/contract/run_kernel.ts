/** How ops and gradients run a kernel of the contract. */
import {
  backend,
  engine,
  getBackend,
  getKernel,
  type NamedAttrMap,
  type NamedTensorMap,
  type Tensor,
  type TensorInfo,
  util,
} from '@tensorflow/tfjs-core';
import {type MoeKernelName, type MoeKernels, moeKernelOutputNames} from './kernel_names';
import {runningOpName} from './op_name';

/**
 * An array whose keys are names. tfjs saves all inputs of a kernel for its gradient (saveAllInputs) only if they are an
 * array.
 */
function namedInputs(inputs: Record<string, TensorInfo | undefined>): NamedTensorMap {
  const named: TensorInfo[] = [];
  for (const [name, value] of Object.entries(inputs)) {
    // An absent optional input must not be a key: backprop reads the id of every input it finds.
    if (value != null) {
      // Not an assignment, which would fail for `values` where Array.prototype is frozen.
      Object.defineProperty(named, name, {value, enumerable: true, configurable: true, writable: true});
    }
  }
  return named as unknown as NamedTensorMap;
}

function assertRegistered(kernelName: MoeKernelName): void {
  // Starts a backend where none runs yet, as every op of tfjs does.
  backend();
  const backendName = getBackend();
  util.assert(
    getKernel(kernelName, backendName) != null,
    () =>
      `Error in ${runningOpName(kernelName)}: the backend '${backendName}' has no kernel ${kernelName} of tfjs-moe. ` +
      `Register all of them by registerMoeKernels('${backendName}', like), or for cpu, webgl and webgpu by importing ` +
      'tfjs-moe/kernels/….',
  );
}

/** Runs the kernel of that name on the current backend, on the tape like any op of tfjs: its outputs by name. */
export function runMoeKernel<K extends MoeKernelName>(
  kernelName: K,
  inputs: MoeKernels[K]['inputs'],
  attrs: MoeKernels[K]['attrs'],
): MoeKernels[K]['outputs'] {
  assertRegistered(kernelName);
  const outputs = engine().runKernel<Tensor | Tensor[]>(
    kernelName,
    namedInputs(inputs),
    attrs as unknown as NamedAttrMap,
  );
  return byName(
    moeKernelOutputNames[kernelName],
    Array.isArray(outputs) ? outputs : [outputs],
  ) as MoeKernels[K]['outputs'];
}

/** An object of `values`, each under its name; a name past them is absent. */
export function byName<Value>(names: readonly string[], values: readonly Value[]): Record<string, Value> {
  const named: Record<string, Value> = {};
  values.forEach((value, i) => {
    named[names[i]] = value;
  });
  return named;
}
