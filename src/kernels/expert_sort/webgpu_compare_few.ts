/**
 * The sort of few assignments of many keys, in place of launches 1 and 2: one workgroup compares all assignments with
 * each other. It numbers the keys of experts in use: those of local experts from 0 in ascending order, the others, in
 * ascending order too, from as many as there can be of the former.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {disposeAll, entryPoint, newTensor, runWgsl, WORKGROUP_SIZE} from '../shared/webgpu';
import type {MapUse} from './plan';
import {LABELS, labelUniforms, mapBuffer, SORT_KEY_OF, type Sorted, type SortInputs} from './webgpu_launch';

/** Up to here assignments are compared with each other where one launch does not do all: their keys take 8 KiB. */
export const FEW_ASSIGNMENTS = 1024;
/** The WGSL has these as `const` by the same names. */
const CONSTANTS = {FEW_ASSIGNMENTS, NUM_THREADS: WORKGROUP_SIZE};

/** What `rows` gets: of each sorted position the expert and its first row, and after the last the rows in use. */
const WRITE_ROWS = /* wgsl */ `
  fn writeRow(position : u32, expert : u32, row : u32) { rows[position] = vec2<u32>(expert, row); }
  fn writeTotal(total : u32) { rows[uniforms.numAssignments] = vec2<u32>(0xffffffffu, total); }`;
/** The same where the op wants no offsets: the number of rows in use alone. */
const WRITE_TOTAL = /* wgsl */ `
  fn writeRow(position : u32, expert : u32, row : u32) {}
  fn writeTotal(total : u32) { rows[0] = total; }`;

const compareFewWgsl = (mapUse: MapUse, hasOffsets: boolean): string => /* wgsl */ `
  ${SORT_KEY_OF[mapUse]}
  ${LABELS[mapUse]}
  ${hasOffsets ? WRITE_ROWS : WRITE_TOTAL}
  var<workgroup> expertOf : array<u32, FEW_ASSIGNMENTS>;
  // The first assignment of each expert has the expert's count, every other assignment 0.
  var<workgroup> counts : array<u32, FEW_ASSIGNMENTS>;

  fn isLocal(expert : u32) -> bool { return expert < uniforms.numLocalExperts; }
  fn paddedRows(expert : u32, count : u32) -> u32 {
    return select(0, (count + uniforms.blockSize - 1) / uniforms.blockSize * uniforms.blockSize, isLocal(expert));
  }

  @compute @workgroup_size(NUM_THREADS)
  fn main(@builtin(local_invocation_index) thread : u32) {
    for (var i = thread; i < uniforms.numAssignments; i += NUM_THREADS) { expertOf[i] = sortKeyOf(topkIds[i]); }
    workgroupBarrier();
    for (var i = thread; i < uniforms.numAssignments; i += NUM_THREADS) {
      var rank = 0u;
      var count = 0u;
      for (var j = 0u; j < uniforms.numAssignments; j++) {
        let isSame = expertOf[j] == expertOf[i];
        count += u32(isSame);
        rank += u32(isSame && j < i);
      }
      ranks[i] = rank;
      counts[i] = select(0, count, rank == 0);
    }
    workgroupBarrier();
    for (var i = thread; i < uniforms.numAssignments; i += NUM_THREADS) {
      let expert = expertOf[i];
      var numBefore = 0u;
      var numLocalBefore = 0u;
      var position = 0u;
      var row = 0u;
      for (var j = 0u; j < uniforms.numAssignments; j++) {
        if (counts[j] > 0 && expertOf[j] < expert) {
          numBefore++;
          numLocalBefore += u32(isLocal(expertOf[j]));
          position += counts[j];
          row += paddedRows(expertOf[j], counts[j]);
        }
      }
      let key = select(uniforms.numLocalKeys + numBefore - numLocalBefore, numLocalBefore, isLocal(expert));
      keys[i] = key;
      writeRow(position + ranks[i], expert, row);
      if (counts[i] > 0) {
        positions[key] = position;
        if (isLocal(expert)) {
          experts[key] = vec4<i32>(i32(row), i32(row + counts[i]), i32(row) - i32(position), labelOf(expert));
        }
      }
    }
    var numLocal = 0u;
    var total = 0u;
    for (var j = 0u; j < uniforms.numAssignments; j++) {
      numLocal += u32(counts[j] > 0 && isLocal(expertOf[j]));
      total += paddedRows(expertOf[j], counts[j]);
    }
    for (var key = numLocal + thread; key <= uniforms.numLocalKeys; key += NUM_THREADS) {
      experts[key] = vec4<i32>(i32(total), i32(total), 0, tailLabel());
    }
    if (thread == 0) { writeTotal(total); }
  }`;

export function compareFew(
  backend: WebGPUBackend,
  {topkIds, expertMap, mapUse, sizes, labels, ranks, rowCounts}: SortInputs,
): Sorted {
  const {numAssignments, numExperts, numLocalExperts, blockSize} = sizes;
  const numLocalKeys = Math.min(numAssignments, numLocalExperts);
  const numKeys = numLocalKeys + numAssignments;
  const keys = newTensor(backend, [numAssignments], 'int32');
  const positions = newTensor(backend, [numKeys], 'int32');
  const experts = newTensor(backend, [(numLocalKeys + 1) * 4], 'int32');
  const hasOffsets = 'offsets' in rowCounts;
  const rows = hasOffsets ? newTensor(backend, [(numAssignments + 1) * 2], 'int32') : rowCounts.total;
  runWgsl(backend, {
    name: `MoeCompareFew_${mapUse}_${hasOffsets ? 'offsets' : 'total'}`,
    buffers: [
      {name: 'keys', type: 'u32', access: 'read_write', tensor: keys},
      {name: 'ranks', type: 'u32', access: 'read_write', tensor: ranks},
      {name: 'positions', type: 'u32', access: 'read_write', tensor: positions},
      {name: 'experts', type: 'vec4<i32>', access: 'read_write', tensor: experts},
      {name: 'rows', type: hasOffsets ? 'vec2<u32>' : 'u32', access: 'read_write', tensor: rows},
      {name: 'topkIds', type: 'i32', access: 'read', tensor: topkIds},
      ...mapBuffer(expertMap, mapUse !== 'none'),
    ],
    uniforms: {
      numAssignments,
      numExperts,
      numLocalExperts,
      numLocalKeys,
      blockSize: Math.max(1, blockSize),
      ...labelUniforms(labels),
    },
    constants: CONSTANTS,
    numWorkgroups: 1,
    code: () => compareFewWgsl(mapUse, hasOffsets),
  });
  if (hasOffsets) {
    findOffsets(backend, rows, rowCounts.offsets, numAssignments);
    disposeAll(backend, [rows]);
  }
  return {keys, positions, experts, numKeys, numLocalKeys, tileSize: Math.max(1, numAssignments)};
}

/** The first row of each expert: that of the first assignment of it or of a later one. */
const OFFSETS_OF_FEW = entryPoint(/* wgsl */ `
    let expert = group * NUM_THREADS + thread;
    if (expert >= uniforms.numOffsets) { return; }
    var low = 0u;
    var high = uniforms.numAssignments;
    while (low < high) {
      let middle = (low + high) / 2;
      if (rows[middle].x < expert) { low = middle + 1; } else { high = middle; }
    }
    offsets[expert] = rows[low].y;`);

function findOffsets(backend: WebGPUBackend, rows: TensorInfo, offsets: TensorInfo, numAssignments: number): void {
  const [numOffsets] = offsets.shape;
  runWgsl(backend, {
    name: 'MoeOffsetsOfFew',
    buffers: [
      {name: 'offsets', type: 'u32', access: 'read_write', tensor: offsets},
      {name: 'rows', type: 'vec2<u32>', access: 'read', tensor: rows},
    ],
    uniforms: {numOffsets, numAssignments},
    constants: {NUM_THREADS: WORKGROUP_SIZE},
    numWorkgroups: Math.ceil(numOffsets / WORKGROUP_SIZE),
    code: () => OFFSETS_OF_FEW,
  });
}
