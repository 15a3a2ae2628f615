/** How many assignments each expert has. */
import {slice, sub, type Tensor1D, type Tensor2D, zeros} from '@tensorflow/tfjs-core';
import {MoePermute} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';

/** int32 [E]. Ids that name no expert are not counted. */
export function expertCounts(topkIds: Tensor2D, numExperts: number): Tensor1D {
  return differencesOf(offsetsOf(topkIds, numExperts));
}

/** int32 [E+1]: the first assignment of each expert in the order of experts, then the number of assignments. */
export function offsetsOf(topkIds: Tensor2D, numExperts: number): Tensor1D {
  const {expertFirstTokenOffset} = runMoeKernel(
    MoePermute,
    // Rows without columns, because only the offsets are used.
    {hiddenStates: zeros([topkIds.shape[0], 0]), topkIds},
    {numExperts, numLocalExperts: numExperts, alignBlockSize: 0, fillInvalidExpert: -1, padding: 'zero'},
  );
  return expertFirstTokenOffset;
}

export function differencesOf(offsets: Tensor1D): Tensor1D {
  const numExperts = offsets.size - 1;
  return sub(slice(offsets, 1, numExperts), slice(offsets, 0, numExperts));
}
