/**
 * MoeUnpermuteBackpropRows on WebGPU, 4 launches: the slots that read a row become a list, by integer atomics; its
 * order, which varies, becomes that of the slots; then a workgroup takes rows. Each element of the result is summed by
 * one thread, in slot order, so that results do not vary from run to run. moePermute makes no row that two slots read.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {MoeUnpermuteBackpropRows} from '../../contract/kernel_names';
import {CHAIN_TERMS, LONG_SUM_UNIFORMS, longSumWgsl} from '../shared/long_sums';
import {
  assertBindable,
  chunkOf,
  disposeAll,
  entryPoint,
  newTensor,
  runWgsl,
  type StorageBinding,
  webgpuKernel,
  WORKGROUP_SIZE,
} from '../shared/webgpu';
import {readableRows, slotBuffers} from './webgpu_slots';

const NO_SLOT = '0x7fffffffi';
/** Each row has: the first slot that reads it, the number of such slots, and a slot that begins a list of them. */
const READER_FIELDS = 3;
/** WGSL: where the record of `row` begins. */
const READER = `${READER_FIELDS} * row`;

/** Readers of a row whose tokens are read before the first is added. */
const READERS_AT_ONCE = 8;
const forEachReader = (statement: (u: number) => string) =>
  Array.from({length: READERS_AT_ONCE}, (_, u) => statement(u)).join('');

export const moeUnpermuteBackpropRowsWebGPU = webgpuKernel(
  MoeUnpermuteBackpropRows,
  (backend, {dy, topkWeights, invPermutedIdx, expertFirstTokenOffset}, {numRows}) => {
    const [numTokens, topk] = topkWeights.shape;
    const hiddenSize = dy.shape[1];
    assertBindable(backend, MoeUnpermuteBackpropRows, {
      dy: dy.shape,
      topkWeights: topkWeights.shape,
      'the result': [numRows, hiddenSize],
      'the readers of rows': [numRows, READER_FIELDS],
    });
    const dRows = newTensor(backend, [numRows, hiddenSize], 'float32');
    if (numRows === 0) {
      return {dRows};
    }
    const numSlots = numTokens * topk;
    const {readers, nextReaders} = readersOfRows(backend, invPermutedIdx, expertFirstTokenOffset, numSlots, numRows);
    const {type, rowChunks} = chunkOf(hiddenSize);
    const rowsPerWorkgroup = Math.max(1, Math.floor(WORKGROUP_SIZE / Math.min(WORKGROUP_SIZE, rowChunks)));
    runWgsl(backend, {
      name: 'MoeUnpermuteBackpropRows',
      buffers: [
        {name: 'dRows', type, access: 'read_write', tensor: dRows},
        {name: 'dy', type, access: 'read', tensor: dy},
        {name: 'topkWeights', type: 'f32', access: 'read', tensor: topkWeights},
        {name: 'readers', type: 'i32', access: 'read', tensor: readers},
        {name: 'nextReaders', type: 'u32', access: 'read', tensor: nextReaders},
      ],
      uniforms: {topk, numRows, rowChunks, rowsPerWorkgroup, ...LONG_SUM_UNIFORMS},
      numWorkgroups: Math.ceil(numRows / rowsPerWorkgroup),
      code: () => `
        alias Chunk = ${type};
        ${longSumWgsl(type)}
        fn addReader(sum : Chunk, slot : u32, c : u32) -> Chunk {
          return fma(Chunk(topkWeights[slot]), dy[slot / uniforms.topk * uniforms.rowChunks + c], sum);
        }
        ${entryPoint(`
          let lanes = ${WORKGROUP_SIZE}u / uniforms.rowsPerWorkgroup;
          let row = group * uniforms.rowsPerWorkgroup + thread / lanes;
          if (thread / lanes >= uniforms.rowsPerWorkgroup || row >= uniforms.numRows) { return; }
          let firstReader = u32(readers[${READER}]);
          let numReaders = u32(readers[${READER} + 1]);
          for (var c = thread % lanes; c < uniforms.rowChunks; c += lanes) {
            var sum = LongSum();
            if (numReaders == 1) { sum.value = addReader(Chunk(), firstReader, c); }
            var reader = firstReader;
            for (var first = 0u; numReaders > 1 && first < numReaders; first += ${CHAIN_TERMS}) {
              var chain = Chunk();
              for (var i = first; i < min(first + ${CHAIN_TERMS}, numReaders); i += ${READERS_AT_ONCE}) {
                // Past the last reader the last one is read again; it is not added.
                ${forEachReader(
                  (u) => `
                let reader${u} = reader;
                reader = select(reader, nextReaders[reader], i + ${u + 1} < numReaders);`,
                )}
                ${forEachReader(
                  (u) => `
                chain = select(chain, addReader(chain, reader${u}, c), i + ${u} < numReaders);`,
                )}
              }
              sum = addChain(sum, chain);
            }
            dRows[row * uniforms.rowChunks + c] = sum.value;
          }`)}`,
    });
    disposeAll(backend, [readers, nextReaders]);
    return {dRows};
  },
);

type Readers = {
  /** int32 [R * 3]: of each row, the first slot that reads it, how many do, and what no longer counts. */
  readers: TensorInfo;
  /** int32 [N]: of each slot, the next one that reads the same row, where there is one. */
  nextReaders: TensorInfo;
};

function readersOfRows(
  backend: WebGPUBackend,
  invPermutedIdx: TensorInfo,
  expertFirstTokenOffset: TensorInfo,
  numSlots: number,
  numRows: number,
): Readers {
  const readers = newTensor(backend, [numRows * READER_FIELDS], 'int32');
  const nextReaders = newTensor(backend, [numSlots], 'int32');
  const buffer: StorageBinding = {name: 'readers', type: 'atomic<i32>', access: 'read_write', tensor: readers};
  runWgsl(backend, {
    name: 'MoeUnpermuteClearReaders',
    buffers: [buffer],
    uniforms: {numRows},
    numWorkgroups: Math.ceil(numRows / WORKGROUP_SIZE),
    code: () =>
      `${entryPoint(`
      let row = group * ${WORKGROUP_SIZE} + thread;
      if (row >= uniforms.numRows) { return; }
      atomicStore(&readers[${READER}], ${NO_SLOT});
      atomicStore(&readers[${READER} + 1], 0);`)}`,
  });
  if (numSlots === 0) {
    return {readers, nextReaders};
  }
  const listed = newTensor(backend, [numSlots], 'int32');
  const uniforms = {numSlots, numRows, lastOffset: expertFirstTokenOffset.shape[0] - 1};
  const slots = slotBuffers(invPermutedIdx, expertFirstTokenOffset);
  const numWorkgroups = Math.ceil(numSlots / WORKGROUP_SIZE);
  runWgsl(backend, {
    name: 'MoeUnpermuteListReaders',
    buffers: [buffer, {name: 'listed', type: 'i32', access: 'read_write', tensor: listed}, ...slots],
    uniforms,
    numWorkgroups,
    code: () =>
      `${readableRows} ${entryPoint(`
      let slot = group * ${WORKGROUP_SIZE} + thread;
      if (slot >= uniforms.numSlots) { return; }
      let row = invPermutedIdx[slot];
      if (row >= numReadableRows()) { return; }
      atomicMin(&readers[${READER}], i32(slot));
      atomicAdd(&readers[${READER} + 1], 1);
      listed[slot] = atomicExchange(&readers[${READER} + 2], i32(slot));`)}`,
  });
  runWgsl(backend, {
    name: 'MoeUnpermuteOrderReaders',
    buffers: [
      {name: 'nextReaders', type: 'u32', access: 'read_write', tensor: nextReaders},
      {name: 'readers', type: 'u32', access: 'read', tensor: readers},
      {name: 'listed', type: 'u32', access: 'read', tensor: listed},
      ...slots,
    ],
    uniforms,
    numWorkgroups,
    // The list of n readers has n entries, and the next is N/n slots away on average: the shorter way is taken.
    code: () =>
      `${readableRows} ${entryPoint(`
      let slot = group * ${WORKGROUP_SIZE} + thread;
      if (slot >= uniforms.numSlots) { return; }
      let row = invPermutedIdx[slot];
      if (row >= numReadableRows()) { return; }
      let numReaders = readers[${READER} + 1];
      if (numReaders == 1) { return; }
      var next = uniforms.numSlots;
      if (numReaders <= uniforms.numSlots / numReaders) {
        var other = readers[${READER} + 2];
        for (var i = 1u; i <= numReaders; i++) {
          if (other > slot) { next = min(next, other); }
          if (i < numReaders) { other = listed[other]; }
        }
      } else {
        next = slot + 1;
        while (next < uniforms.numSlots && invPermutedIdx[next] != row) { next++; }
      }
      nextReaders[slot] = next;`)}`,
  });
  disposeAll(backend, [listed]);
  return {readers, nextReaders};
}
