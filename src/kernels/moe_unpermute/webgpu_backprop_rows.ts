/**
 * MoeUnpermuteBackpropRows on WebGPU, 4 launches: the slots that read a row become a list, by integer atomics; its
 * order, which varies, becomes that of the slots; then a workgroup takes rows. Each element of the result is summed by
 * one thread, in slot order, so that results do not vary from run to run. moePermute makes no row that two slots read:
 * with permutedIdx, which names the slot of each row, there is 1 launch.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {MoeUnpermuteBackpropRows} from '../../contract/kernel_names';
import {CHAIN_TERMS, LONG_SUM_UNIFORMS, longSumWgsl} from '../shared/long_sums';
import {
  assertBindable,
  chunkOf,
  type ChunkType,
  disposeAll,
  entryPoint,
  newTensor,
  runWgsl,
  type StorageBinding,
  webgpuKernel,
  WORKGROUP_SIZE,
} from '../shared/webgpu';
import {READABLE_ROWS, slotBuffers} from './webgpu_slots';

/** The WGSL has these as `const` by the same names. READERS_AT_ONCE tokens are read before the first is added. */
const CONSTANTS = {NUM_THREADS: WORKGROUP_SIZE, READER_FIELDS: 3};
const ROWS_CONSTANTS = {...CONSTANTS, READERS_AT_ONCE: 8, CHAIN_TERMS};

/** WGSL: the fields of a row's record among the readers. */
const READER_RECORD = /* wgsl */ `
  // The first slot that reads the row, the number of such slots, and a slot that begins a list of them.
  const FIRST = 0u;
  const COUNT = 1u;
  const LISTED = 2u;
`;

const CLEAR_READERS = /* wgsl */ `
  const NO_SLOT = 0x7fffffffi;
  ${READER_RECORD}

  ${entryPoint(/* wgsl */ `
    let row = group * NUM_THREADS + thread;
    if (row >= uniforms.numRows) { return; }
    atomicStore(&readers[READER_FIELDS * row + FIRST], NO_SLOT);
    atomicStore(&readers[READER_FIELDS * row + COUNT], 0);`)}`;

const LIST_READERS = /* wgsl */ `
  ${READER_RECORD}
  ${READABLE_ROWS}

  ${entryPoint(/* wgsl */ `
    let slot = group * NUM_THREADS + thread;
    if (slot >= uniforms.numSlots) { return; }
    let row = invPermutedIdx[slot];
    if (row >= numReadableRows()) { return; }
    atomicMin(&readers[READER_FIELDS * row + FIRST], i32(slot));
    atomicAdd(&readers[READER_FIELDS * row + COUNT], 1);
    listed[slot] = atomicExchange(&readers[READER_FIELDS * row + LISTED], i32(slot));`)}`;

/** The list of n readers has n entries, and the next is N/n slots away on average: the shorter way is taken. */
const ORDER_READERS = /* wgsl */ `
  ${READER_RECORD}
  ${READABLE_ROWS}

  ${entryPoint(/* wgsl */ `
    let slot = group * NUM_THREADS + thread;
    if (slot >= uniforms.numSlots) { return; }
    let row = invPermutedIdx[slot];
    if (row >= numReadableRows()) { return; }
    let numReaders = readers[READER_FIELDS * row + COUNT];
    if (numReaders == 1) { return; }
    var next = uniforms.numSlots;
    if (numReaders <= uniforms.numSlots / numReaders) {
      var other = readers[READER_FIELDS * row + LISTED];
      for (var i = 1u; i <= numReaders; i++) {
        if (other > slot) { next = min(next, other); }
        if (i < numReaders) { other = listed[other]; }
      }
    } else {
      next = slot + 1;
      while (next < uniforms.numSlots && invPermutedIdx[next] != row) { next++; }
    }
    nextReaders[slot] = next;`)}`;

const rowsGradientWgsl = (type: ChunkType): string => /* wgsl */ `
  alias Chunk = ${type};
  ${READER_RECORD}
  ${longSumWgsl(type)}

  fn addReader(sum : Chunk, slot : u32, c : u32) -> Chunk {
    return fma(Chunk(topkWeights[slot]), dy[slot / uniforms.topk * uniforms.rowChunks + c], sum);
  }

  ${entryPoint(/* wgsl */ `
    let lanes = NUM_THREADS / uniforms.rowsPerWorkgroup;
    let row = group * uniforms.rowsPerWorkgroup + thread / lanes;
    if (thread / lanes >= uniforms.rowsPerWorkgroup || row >= uniforms.numRows) { return; }
    let firstReader = u32(readers[READER_FIELDS * row + FIRST]);
    let numReaders = u32(readers[READER_FIELDS * row + COUNT]);
    for (var c = thread % lanes; c < uniforms.rowChunks; c += lanes) {
      var sum = LongSum();
      if (numReaders == 1) { sum.value = addReader(Chunk(), firstReader, c); }
      var reader = firstReader;
      for (var first = 0u; numReaders > 1 && first < numReaders; first += CHAIN_TERMS) {
        var chain = Chunk();
        for (var i = first; i < min(first + CHAIN_TERMS, numReaders); i += READERS_AT_ONCE) {
          // Past the last reader the last one is read again; it is not added.
          var slots : array<u32, READERS_AT_ONCE>;
          for (var u = 0u; u < READERS_AT_ONCE; u++) {
            slots[u] = reader;
            reader = select(reader, nextReaders[reader], i + u + 1 < numReaders);
          }
          for (var u = 0u; u < READERS_AT_ONCE; u++) {
            chain = select(chain, addReader(chain, slots[u], c), i + u < numReaders);
          }
        }
        sum = addChain(sum, chain);
      }
      dRows[row * uniforms.rowChunks + c] = sum.value;
    }`)}`;

const rowsOfSlotsWgsl = (type: ChunkType): string => /* wgsl */ `
  alias Chunk = ${type};

  ${entryPoint(/* wgsl */ `
    let lanes = NUM_THREADS / uniforms.rowsPerWorkgroup;
    let row = group * uniforms.rowsPerWorkgroup + thread / lanes;
    if (thread / lanes >= uniforms.rowsPerWorkgroup || row >= uniforms.numRows) { return; }
    let slot = permutedIdx[row];
    for (var c = thread % lanes; c < uniforms.rowChunks; c += lanes) {
      var value = Chunk();
      if (slot < uniforms.numSlots) {
        value = topkWeights[slot] * dy[slot / uniforms.topk * uniforms.rowChunks + c];
      }
      dRows[row * uniforms.rowChunks + c] = value;
    }`)}`;

export const moeUnpermuteBackpropRowsWebGPU = webgpuKernel(
  MoeUnpermuteBackpropRows,
  (backend, {dy, topkWeights, invPermutedIdx, expertFirstTokenOffset, permutedIdx}, {numRows}) => {
    const [numTokens, topk] = topkWeights.shape;
    const hiddenSize = dy.shape[1];
    assertBindable(backend, MoeUnpermuteBackpropRows, {
      dy: dy.shape,
      topkWeights: topkWeights.shape,
      'the result': [numRows, hiddenSize],
      ...(permutedIdx == null && {'the readers of rows': [numRows, CONSTANTS.READER_FIELDS]}),
    });
    const dRows = newTensor(backend, [numRows, hiddenSize], 'float32');
    if (numRows === 0) {
      return {dRows};
    }
    const numSlots = numTokens * topk;
    const {type, rowChunks} = chunkOf(hiddenSize);
    const rowsPerWorkgroup = Math.max(1, Math.floor(WORKGROUP_SIZE / Math.min(WORKGROUP_SIZE, rowChunks)));
    const buffers: StorageBinding[] = [
      {name: 'dRows', type, access: 'read_write', tensor: dRows},
      {name: 'dy', type, access: 'read', tensor: dy},
      {name: 'topkWeights', type: 'f32', access: 'read', tensor: topkWeights},
    ];
    if (permutedIdx != null) {
      runWgsl(backend, {
        name: 'MoeUnpermuteRowsOfSlots',
        buffers: [...buffers, {name: 'permutedIdx', type: 'u32', access: 'read', tensor: permutedIdx}],
        uniforms: {topk, numRows, numSlots, rowChunks, rowsPerWorkgroup},
        numWorkgroups: Math.ceil(numRows / rowsPerWorkgroup),
        constants: CONSTANTS,
        code: () => rowsOfSlotsWgsl(type),
      });
      return {dRows};
    }
    const {readers, nextReaders} = readersOfRows(backend, invPermutedIdx, expertFirstTokenOffset, numSlots, numRows);
    runWgsl(backend, {
      name: 'MoeUnpermuteBackpropRows',
      buffers: [
        ...buffers,
        {name: 'readers', type: 'i32', access: 'read', tensor: readers},
        {name: 'nextReaders', type: 'u32', access: 'read', tensor: nextReaders},
      ],
      uniforms: {topk, numRows, rowChunks, rowsPerWorkgroup, ...LONG_SUM_UNIFORMS},
      numWorkgroups: Math.ceil(numRows / rowsPerWorkgroup),
      constants: ROWS_CONSTANTS,
      code: () => rowsGradientWgsl(type),
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
  const readers = newTensor(backend, [numRows * CONSTANTS.READER_FIELDS], 'int32');
  const nextReaders = newTensor(backend, [numSlots], 'int32');
  const buffer: StorageBinding = {name: 'readers', type: 'atomic<i32>', access: 'read_write', tensor: readers};
  runWgsl(backend, {
    name: 'MoeUnpermuteClearReaders',
    buffers: [buffer],
    uniforms: {numRows},
    numWorkgroups: Math.ceil(numRows / WORKGROUP_SIZE),
    constants: CONSTANTS,
    code: () => CLEAR_READERS,
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
    constants: CONSTANTS,
    code: () => LIST_READERS,
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
    constants: CONSTANTS,
    code: () => ORDER_READERS,
  });
  disposeAll(backend, [listed]);
  return {readers, nextReaders};
}
