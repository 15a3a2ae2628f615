/** How many assignments each expert has. */
import {slice, sub, type Tensor1D, type Tensor2D, zeros} from '@tensorflow/tfjs-core';
import {moePermute} from './moe_permute';

export function differencesOf(offsets: Tensor1D): Tensor1D {
  const numExperts = offsets.size - 1;
  return sub(slice(offsets, 1, numExperts), slice(offsets, 0, numExperts));
}

export const offsetsOf = (topkIds: Tensor2D, numExperts: number): Tensor1D =>
  moePermute(zeros([topkIds.shape[0], 1]), topkIds, numExperts).expertFirstTokenOffset;
/** int32 [E]: how many assignments each expert has. */
export function loadOf(topkIds: Tensor2D, numExperts: number): Tensor1D {
  return differencesOf(offsetsOf(topkIds, numExperts));
}
