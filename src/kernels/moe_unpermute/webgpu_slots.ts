/** What the programs of MoeUnpermute and its gradients have in common: which slot reads which row. */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {StorageBinding} from '../shared/webgpu';

/** WGSL: how many rows slots may read. Indices are u32, so that a negative one is past them. */
export const READABLE_ROWS = /* wgsl */ `
  fn numReadableRows() -> u32 {
    return u32(max(0, min(i32(uniforms.numRows), expertFirstTokenOffset[uniforms.lastOffset])));
  }
`;

export function slotBuffers(invPermutedIdx: TensorInfo, expertFirstTokenOffset: TensorInfo): StorageBinding[] {
  return [
    {name: 'invPermutedIdx', type: 'u32', access: 'read', tensor: invPermutedIdx},
    {name: 'expertFirstTokenOffset', type: 'i32', access: 'read', tensor: expertFirstTokenOffset},
  ];
}
