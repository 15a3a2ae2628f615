/**
 * MoeUnpermute and its two gradients on WebGPU, all gathers: every element of a result is summed by one thread, in
 * slot order, so that results do not vary from run to run.
 *
 *   MoeUnpermute                 1 launch: a thread takes a few columns of a token, reads them in each slot's row,
 *                                and adds. (T*K + T)*H*4 bytes.
 *   MoeUnpermuteBackpropRows     3 launches: the first and last slot that read each row and how many do, by integer
 *                                atomics; then a workgroup takes rows. A row that more than two slots read is summed
 *                                by looking through all between; moePermute makes no row that two read.
 *   MoeUnpermuteBackpropWeights  1 launch: a workgroup takes a slot, its threads the columns.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {MoeUnpermute, MoeUnpermuteBackpropRows, MoeUnpermuteBackpropWeights} from '../../kernel_names';
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

/** WGSL: how many rows slots may read. Indices are u32, so that a negative one is past them. */
const readableRows = `
  fn numReadableRows() -> u32 {
    return u32(max(0, min(i32(uniforms.numRows), expertFirstTokenOffset[uniforms.lastOffset])));
  }
`;

function slotBuffers(invPermutedIdx: TensorInfo, expertFirstTokenOffset: TensorInfo): StorageBinding[] {
  return [
    {name: 'invPermutedIdx', type: 'u32', access: 'read', tensor: invPermutedIdx},
    {name: 'expertFirstTokenOffset', type: 'i32', access: 'read', tensor: expertFirstTokenOffset},
  ];
}

/** Slots of a token whose rows are read before the first is added. */
const SLOTS_AT_ONCE = 8;

/**
 * WGSL: adds slots k .. k + count - 1. Their reads go out together, of row 0 where a slot is skipped; nothing of that
 * is used.
 */
function addSlots(count: number): string {
  const forEach = (statement: (u: number) => string) => Array.from({length: count}, (_, u) => statement(u)).join('');
  return `
      ${forEach((u) => `
        let row${u} = invPermutedIdx[firstSlot + k + ${u}];
        let weight${u} = topkWeights[firstSlot + k + ${u}];`)}
      ${forEach((u) => `
        let chunk${u} = rows[select(0, row${u}, row${u} < limit) * uniforms.rowChunks + c];`)}
      ${forEach((u) => `
        if (row${u} < limit) { sum = fma(Chunk(weight${u}), chunk${u}, sum); }`)}`;
}

export const moeUnpermuteWebGPU = webgpuKernel(
  MoeUnpermute,
  (backend, {permutedHiddenStates, topkWeights, invPermutedIdx, expertFirstTokenOffset}) => {
    const [numTokens, topk] = topkWeights.shape;
    const [numRows, hiddenSize] = permutedHiddenStates.shape;
    assertBindable(backend, MoeUnpermute, {
      permutedHiddenStates: permutedHiddenStates.shape,
      topkWeights: topkWeights.shape,
      'the result': [numTokens, hiddenSize],
    });
    const out = newTensor(backend, [numTokens, hiddenSize], 'float32');
    if (numTokens === 0) {
      return [out];
    }
    const {type, rowChunks} = chunkOf(hiddenSize);
    runWgsl(backend, {
      name: 'MoeUnpermute',
      buffers: [
        {name: 'out', type, access: 'read_write', tensor: out},
        {name: 'rows', type, access: 'read', tensor: permutedHiddenStates},
        {name: 'topkWeights', type: 'f32', access: 'read', tensor: topkWeights},
        ...slotBuffers(invPermutedIdx, expertFirstTokenOffset),
      ],
      uniforms: {
        numTokens,
        numRows,
        rowChunks,
        lastOffset: expertFirstTokenOffset.shape[0] - 1,
      },
      constants: {TOPK: topk},
      numWorkgroups: Math.ceil((numTokens * rowChunks) / WORKGROUP_SIZE),
      code: () => `
        alias Chunk = ${type};
        ${readableRows}
        ${entryPoint(`
          let i = group * ${WORKGROUP_SIZE} + thread;
          if (i >= uniforms.numTokens * uniforms.rowChunks) { return; }
          let token = i / uniforms.rowChunks;
          let c = i % uniforms.rowChunks;
          let limit = numReadableRows();
          let firstSlot = token * TOPK;
          var sum = Chunk();
          var k = 0u;
          for (; k + ${SLOTS_AT_ONCE} <= TOPK; k += ${SLOTS_AT_ONCE}) {
            ${addSlots(SLOTS_AT_ONCE)}
          }
          ${addSlots(topk % SLOTS_AT_ONCE)}
          out[i] = sum;`)}`,
    });
    return [out];
  },
);

const NO_SLOT = '0x7fffffffi';
const READER_FIELDS = 3;
/** WGSL: where the record of `row` begins. */
const READER = `${READER_FIELDS} * row`;

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
      return [dRows];
    }
    const readers = countReaders(backend, invPermutedIdx, expertFirstTokenOffset, numTokens * topk, numRows);
    const {type, rowChunks} = chunkOf(hiddenSize);
    const rowsPerWorkgroup = Math.max(1, Math.floor(WORKGROUP_SIZE / Math.min(WORKGROUP_SIZE, rowChunks)));
    runWgsl(backend, {
      name: 'MoeUnpermuteBackpropRows',
      buffers: [
        {name: 'dRows', type, access: 'read_write', tensor: dRows},
        {name: 'dy', type, access: 'read', tensor: dy},
        {name: 'topkWeights', type: 'f32', access: 'read', tensor: topkWeights},
        {name: 'invPermutedIdx', type: 'i32', access: 'read', tensor: invPermutedIdx},
        {name: 'readers', type: 'i32', access: 'read', tensor: readers},
      ],
      uniforms: {topk, numRows, rowChunks, rowsPerWorkgroup},
      numWorkgroups: Math.ceil(numRows / rowsPerWorkgroup),
      code: () => `
        alias Chunk = ${type};
        fn addSlot(sum : Chunk, slot : u32, c : u32) -> Chunk {
          return fma(Chunk(topkWeights[slot]), dy[slot / uniforms.topk * uniforms.rowChunks + c], sum);
        }
        ${entryPoint(`
          let lanes = ${WORKGROUP_SIZE}u / uniforms.rowsPerWorkgroup;
          let row = group * uniforms.rowsPerWorkgroup + thread / lanes;
          if (thread / lanes >= uniforms.rowsPerWorkgroup || row >= uniforms.numRows) { return; }
          let firstSlot = u32(readers[${READER}]);
          let lastSlot = u32(readers[${READER} + 1]);
          let numReaders = readers[${READER} + 2];
          for (var c = thread % lanes; c < uniforms.rowChunks; c += lanes) {
            var sum = Chunk();
            if (numReaders > 0) { sum = addSlot(sum, firstSlot, c); }
            if (numReaders > 2) {
              for (var slot = firstSlot + 1; slot < lastSlot; slot++) {
                if (invPermutedIdx[slot] == i32(row)) { sum = addSlot(sum, slot, c); }
              }
            }
            if (numReaders > 1) { sum = addSlot(sum, lastSlot, c); }
            dRows[row * uniforms.rowChunks + c] = sum;
          }`)}`,
    });
    disposeAll(backend, [readers]);
    return [dRows];
  },
);

/** int32 [R * 3]: of each row, the first slot that reads it, the last, and how many do. */
function countReaders(
  backend: WebGPUBackend,
  invPermutedIdx: TensorInfo,
  expertFirstTokenOffset: TensorInfo,
  numSlots: number,
  numRows: number,
): TensorInfo {
  const readers = newTensor(backend, [numRows * READER_FIELDS], 'int32');
  const buffer: StorageBinding = {name: 'readers', type: 'atomic<i32>', access: 'read_write', tensor: readers};
  runWgsl(backend, {
    name: 'MoeUnpermuteClearReaders',
    buffers: [buffer],
    uniforms: {numRows},
    numWorkgroups: Math.ceil(numRows / WORKGROUP_SIZE),
    code: () => `${entryPoint(`
      let row = group * ${WORKGROUP_SIZE} + thread;
      if (row >= uniforms.numRows) { return; }
      atomicStore(&readers[${READER}], ${NO_SLOT});
      atomicStore(&readers[${READER} + 1], 0);
      atomicStore(&readers[${READER} + 2], 0);`)}`,
  });
  if (numSlots > 0) {
    runWgsl(backend, {
      name: 'MoeUnpermuteCountReaders',
      buffers: [buffer, ...slotBuffers(invPermutedIdx, expertFirstTokenOffset)],
      uniforms: {numSlots, numRows, lastOffset: expertFirstTokenOffset.shape[0] - 1},
      numWorkgroups: Math.ceil(numSlots / WORKGROUP_SIZE),
      code: () => `${readableRows} ${entryPoint(`
        let slot = group * ${WORKGROUP_SIZE} + thread;
        if (slot >= uniforms.numSlots) { return; }
        let row = invPermutedIdx[slot];
        if (row >= numReadableRows()) { return; }
        atomicMin(&readers[${READER}], i32(slot));
        atomicMax(&readers[${READER} + 1], i32(slot));
        atomicAdd(&readers[${READER} + 2], 1);`)}`,
    });
  }
  return readers;
}

const DOT_THREADS = 64;

export const moeUnpermuteBackpropWeightsWebGPU = webgpuKernel(
  MoeUnpermuteBackpropWeights,
  (backend, {dy, permutedHiddenStates, invPermutedIdx, expertFirstTokenOffset}) => {
    const [numTokens, topk] = invPermutedIdx.shape;
    const [numRows, hiddenSize] = permutedHiddenStates.shape;
    assertBindable(backend, MoeUnpermuteBackpropWeights, {
      dy: dy.shape,
      permutedHiddenStates: permutedHiddenStates.shape,
      'the result': [numTokens, topk],
    });
    const dWeights = newTensor(backend, [numTokens, topk], 'float32');
    if (numTokens === 0) {
      return [dWeights];
    }
    const {type, rowChunks} = chunkOf(hiddenSize);
    runWgsl(backend, {
      name: 'MoeUnpermuteBackpropWeights',
      buffers: [
        {name: 'dWeights', type: 'f32', access: 'read_write', tensor: dWeights},
        {name: 'dy', type, access: 'read', tensor: dy},
        {name: 'rows', type, access: 'read', tensor: permutedHiddenStates},
        ...slotBuffers(invPermutedIdx, expertFirstTokenOffset),
      ],
      uniforms: {numSlots: numTokens * topk, topk, numRows, rowChunks, lastOffset: expertFirstTokenOffset.shape[0] - 1},
      numWorkgroups: numTokens * topk,
      code: () => `
        alias Chunk = ${type};
        var<workgroup> sums : array<f32, ${DOT_THREADS}>;
        ${readableRows}
        ${entryPoint(
          `
          if (group >= uniforms.numSlots) { return; }
          let row = invPermutedIdx[group];
          var products = Chunk();
          if (row < numReadableRows()) {
            let dyRow = group / uniforms.topk;
            for (var c = thread; c < uniforms.rowChunks; c += ${DOT_THREADS}) {
              products += rows[row * uniforms.rowChunks + c] * dy[dyRow * uniforms.rowChunks + c];
            }
          }
          sums[thread] = ${type === 'f32' ? 'products' : 'dot(products, Chunk(1))'};
          for (var width = ${DOT_THREADS / 2}u; width > 0; width /= 2) {
            workgroupBarrier();
            if (thread < width) { sums[thread] += sums[thread + width]; }
          }
          if (thread == 0) { dWeights[group] = sums[0]; }`,
          DOT_THREADS,
        )}`,
    });
    return [dWeights];
  },
);
