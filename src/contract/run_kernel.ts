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
      // An assignment would fail for the name `values` if Array.prototype is frozen.
      Object.defineProperty(named, name, {value, enumerable: true, configurable: true, writable: true});
    }
  }
  return named as unknown as NamedTensorMap;
}

function assertRegistered(kernelName: MoeKernelName): void {
  // Starts a backend if none runs yet, as every op of tfjs does.
  backend();
  const backendName = getBackend();
  util.assert(
    getKernel(kernelName, backendName) != null,
    () =>
      `Error in ${runningOpName(kernelName)}: the backend '${backendName}' has no kernel ${kernelName} of tfjs-moe. ` +
      `Call registerMoeKernels('${backendName}', like) to register all kernels; for cpu, webgl and webgpu, importing ` +
      'tfjs-moe/kernels/… does so too.',
  );
}

/**
 * Runs the kernel on the current backend and records it on the tape like any op of tfjs. Returns its outputs by name.
 */
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

/** An object with each of `values` under its name. Names without a value are absent. */
export function byName<Value>(names: readonly string[], values: readonly Value[]): Record<string, Value> {
  const named: Record<string, Value> = {};
  values.forEach((value, i) => {
    named[names[i]] = value;
  });
  return named;
}
