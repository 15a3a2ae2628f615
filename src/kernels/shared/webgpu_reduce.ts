/** WGSL: what the threads of a workgroup compute together. */
import {type ChunkType, WORKGROUP_SIZE} from './webgpu';

const reduction = (name: string, combine: string): string => /* wgsl */ `
  fn ${name}(thread : u32, value : f32) -> f32 {
    shared_[thread] = value;
    workgroupBarrier();
    for (var half = ${WORKGROUP_SIZE / 2}u; half > 0u; half /= 2u) {
      if (thread < half) { shared_[thread] = ${combine}; }
      workgroupBarrier();
    }
    let all = shared_[0];
    workgroupBarrier();
    return all;
  }`;

/** WGSL: the sum and the largest of the values of all threads. Every thread of the workgroup must call them. */
export const REDUCE_WGSL = /* wgsl */ `
  var<workgroup> shared_ : array<f32, ${WORKGROUP_SIZE}>;
  ${reduction('sumOfGroup', 'shared_[thread] + shared_[thread + half]')}
  ${reduction('largestOfGroup', 'max(shared_[thread], shared_[thread + half])')}`;

/** WGSL: the sum of the elements of a chunk. */
export const sumOfChunk = (type: ChunkType): string =>
  `fn sumOfChunk(x : ${type}) -> f32 { return ${type === 'f32' ? 'x' : 'x.x + x.y + x.z + x.w'}; }`;
