/** How gradients are written: the saved tensors and the incoming gradients have the names of the contract. */
import type {GradConfig, Tensor} from '@tensorflow/tfjs-core';
import {type MoeKernelName, type MoeKernels, moeKernelOutputNames} from '../contract/kernel_names';
import {byName} from '../contract/run_kernel';

type InputName<K extends MoeKernelName> = keyof MoeKernels[K]['inputs'] & string;
type OutputName<K extends MoeKernelName> = keyof MoeKernels[K]['outputs'] & string;

type Saves<K extends MoeKernelName, Inputs extends InputName<K>, Outputs extends OutputName<K>> = {
  inputs: readonly Inputs[];
  outputs?: readonly Outputs[];
};

/**
 * The gradient of a kernel to its inputs, from the gradients of its outputs and from the tensors that `saves` names.
 */
export function gradConfig<K extends MoeKernelName, Inputs extends InputName<K>, Outputs extends OutputName<K> = never>(
  kernelName: K,
  {inputs, outputs = []}: Saves<K, Inputs, Outputs>,
  gradients: (
    dOutputs: MoeKernels[K]['outputs'],
    saved: {[Name in Inputs]: Tensor} & Pick<MoeKernels[K]['outputs'], Outputs>,
    attrs: MoeKernels[K]['attrs'],
  ) => {[Name in InputName<K>]?: () => Tensor},
): GradConfig {
  const names: readonly string[] = moeKernelOutputNames[kernelName];
  const isSaved = names.map((name) => (outputs as readonly string[]).includes(name));
  const savedNames = [...inputs, ...names.filter((_, i) => isSaved[i])];
  return {
    kernelName,
    inputsToSave: [...inputs],
    outputsToSave: isSaved,
    gradFunc: (dys, saved, attrs) =>
      gradients(
        byName(names, Array.isArray(dys) ? dys : [dys]) as MoeKernels[K]['outputs'],
        byName(savedNames, saved as Tensor[]) as {[Name in Inputs]: Tensor} & Pick<MoeKernels[K]['outputs'], Outputs>,
        attrs as unknown as MoeKernels[K]['attrs'],
      ) as Record<string, () => Tensor>,
  };
}
