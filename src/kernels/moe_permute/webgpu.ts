/**
 * MoePermute on WebGPU: a stable counting sort of the assignments by expert, then every row is pushed: the
 * workgroup of a token reads its row once and writes its K copies. Rows move as u32, so that every bit survives.
 *
 * Launches: 1 for few assignments, else 3 (expert_sort/webgpu.ts); 1 more for a gathered scale.
 * In the last of them the first workgroups take tokens, one or more each; the others fill rows of no assignment.
 * Each element of every output is written by one workgroup, whatever its buffer held.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {MoePermute} from '../../contract/kernel_names';
import {permuteSizes} from '../../contract/output_sizes';
import {type MapUse, numKeysOf} from '../expert_sort/plan';
import {sortAssignments, sortScratch} from '../expert_sort/webgpu';
import {LABELS, labelUniforms, mapBuffer, SORT_KEY_OF} from '../expert_sort/webgpu_launch';
import {COUNT_KEYS, oneLaunchConstants, RANKED_AT_ONCE} from '../expert_sort/webgpu_one_launch';
import {
  assertBindable,
  disposeAll,
  entryPoint,
  newTensor,
  runWgsl,
  type StorageBinding,
  webgpuKernel,
  WORKGROUP_SIZE,
} from '../shared/webgpu';
import {permutePlan} from './plan';

/** WGSL that both ways share. A Chunk is what a thread moves at a time. */
const MOVE_ROWS = /* wgsl */ `
  const NO_ROW = 0xffffffffu;
  // The row of each assignment of the workgroup's tokens, NO_ROW where it has none.
  var<workgroup> rowOf : array<u32, MAX_OWN>;

  // The index that assignments without a row share where rows are aligned.
  fn sharedIndex(numLocalRows : u32) -> u32 {
    return select(numLocalRows, uniforms.numRows, uniforms.padsWithLastToken == 1);
  }

  fn place(i : u32, row : u32, label : i32) {
    inverse[i] = row;
    permutedIdx[row] = i;
    if (uniforms.isAligned == 1) { mIndices[row] = label; }
  }

  // Where rows are not aligned they all have one label, so that it does not matter who writes which.
  fn labelUnaligned(i : u32) {
    if (uniforms.isAligned == 0) { mIndices[i] = bitcast<i32>(uniforms.fillLabel); }
  }

  // A thread reads its first chunk before its rows are known, because both take long.
  var<private> firstChunk : Chunk;
  fn readAhead(thread : u32, firstToken : u32) {
    let lanes = NUM_THREADS / uniforms.tokensPerWorkgroup;
    let token = firstToken + thread / lanes;
    let c = thread % lanes;
    if (token < uniforms.numTokens && c < uniforms.rowChunks) {
      firstChunk = hiddenStates[token * uniforms.rowChunks + c];
    }
  }

  // Copies the rows of the workgroup's tokens to numSlots of their assignments.
  fn pushRows(thread : u32, firstToken : u32, numSlots : u32) {
    let lanes = NUM_THREADS / uniforms.tokensPerWorkgroup;
    let t = thread / lanes;
    if (t >= uniforms.tokensPerWorkgroup || firstToken + t >= uniforms.numTokens) { return; }
    let source = (firstToken + t) * uniforms.rowChunks;
    var chunk = firstChunk;
    for (var c = thread % lanes; c < uniforms.rowChunks; c += lanes) {
      var nextChunk = chunk;
      if (c + lanes < uniforms.rowChunks) { nextChunk = hiddenStates[source + c + lanes]; }
      for (var s = 0u; s < numSlots; s++) {
        let row = rowOf[t * numSlots + s];
        if (row != NO_ROW) { rows[row * uniforms.rowChunks + c] = chunk; }
      }
      chunk = nextChunk;
    }
  }

  // Fills rows first..end-1, of no assignment; a thread takes start, start + step, ...
  fn fillRows(first : u32, end : u32, label : i32, start : u32, step : u32) {
    if (first >= end) { return; }
    for (var r = first + start; r < end; r += step) {
      permutedIdx[r] = uniforms.padIdx;
      if (uniforms.isAligned == 1) { mIndices[r] = label; }
    }
    let begin = first * uniforms.rowChunks;
    for (var c = start; c < (end - first) * uniforms.rowChunks; c += step) {
      if (uniforms.padsWithLastToken == 1 && uniforms.numTokens > 0) {
        rows[begin + c] = hiddenStates[(uniforms.numTokens - 1) * uniforms.rowChunks + c % uniforms.rowChunks];
      } else {
        rows[begin + c] = Chunk();
      }
    }
  }`;

const permuteInOneWgsl = (chunkType: string, mapUse: MapUse): string => /* wgsl */ `
  alias Chunk = ${chunkType};
  ${SORT_KEY_OF[mapUse]}
  ${LABELS[mapUse]}
  ${COUNT_KEYS}
  ${MOVE_ROWS}
  ${entryPoint(/* wgsl */ `
    let firstToken = min(group * uniforms.tokensPerWorkgroup, uniforms.numTokens);
    let first = firstToken * uniforms.topk;
    let end = min(first + uniforms.tokensPerWorkgroup * uniforms.topk, uniforms.numAssignments);
    readAhead(thread, firstToken);
    countKeys(thread, first, end);
    let numLocalRows = keyRows[uniforms.numLocalExperts];

    if (group < uniforms.numTokenWorkgroups) {
      let i = first + thread;
      if (i < end) {
        let key = ownKeys[thread];
        let row = keyRows[key] + atomicLoad(&ranks[thread]);
        let isLocal = key < uniforms.numLocalExperts;
        labelUnaligned(i);
        if (isLocal) {
          place(i, row, labelOf(key));
        } else {
          inverse[i] = select(row, sharedIndex(numLocalRows), uniforms.isAligned == 1);
        }
        rowOf[thread] = select(NO_ROW, row, isLocal);
      }
      workgroupBarrier();
      pushRows(thread, firstToken, uniforms.topk);
      return;
    }

    let fill = group - uniforms.numTokenWorkgroups;
    if (fill >= uniforms.numFillWorkgroups) { return; }
    if (fill == 0) {
      for (var e = thread; e <= uniforms.numLocalExperts; e += NUM_THREADS) { offsets[e] = keyRows[e]; }
    }
    if (uniforms.isAligned == 1) {
      for (var e = fill; e < uniforms.numLocalExperts; e += uniforms.numFillWorkgroups) {
        fillRows(
            keyRows[e] + atomicLoad(&keyCounts[e]), keyRows[e + 1], labelOf(e), thread, NUM_THREADS);
      }
    }
    fillRows(
        numLocalRows, uniforms.numRows, tailLabel(),
        fill * NUM_THREADS + thread, uniforms.numFillWorkgroups * NUM_THREADS);`)}`;

const permuteSortedWgsl = (chunkType: string): string => /* wgsl */ `
  alias Chunk = ${chunkType};
  ${MOVE_ROWS}
  ${entryPoint(/* wgsl */ `
    let afterLast = experts[uniforms.numLocalExperts];
    let numLocalRows = u32(afterLast.x);

    if (group < uniforms.numTokenWorkgroups) {
      let firstToken = group * uniforms.tokensPerWorkgroup;
      // One turn, unless a token has more experts than the workgroup has threads.
      for (var firstSlot = 0u; firstSlot < uniforms.topk; firstSlot += NUM_THREADS / uniforms.tokensPerWorkgroup) {
        let numSlots = min(NUM_THREADS / uniforms.tokensPerWorkgroup, uniforms.topk - firstSlot);
        readAhead(thread, firstToken);
        let token = firstToken + thread / numSlots;
        if (thread < uniforms.tokensPerWorkgroup * numSlots && token < uniforms.numTokens) {
          let i = token * uniforms.topk + firstSlot + thread % numSlots;
          let key = keys[i];
          let position = positions[i / uniforms.tileSize * uniforms.numKeys + key] + inverse[i];
          rowOf[thread] = NO_ROW;
          labelUnaligned(i);
          if (key < uniforms.numLocalExperts) {
            let expert = experts[key];
            let row = u32(i32(position) + expert.z);
            place(i, row, expert.w);
            rowOf[thread] = row;
          } else {
            inverse[i] = select(position, sharedIndex(numLocalRows), uniforms.isAligned == 1);
          }
        }
        workgroupBarrier();
        pushRows(thread, firstToken, numSlots);
        workgroupBarrier();
      }
      return;
    }

    let fill = group - uniforms.numTokenWorkgroups;
    if (fill >= uniforms.numFillWorkgroups) { return; }
    if (uniforms.isAligned == 1) {
      for (var e = fill; e < uniforms.numLocalExperts; e += uniforms.numFillWorkgroups) {
        let expert = experts[e];
        fillRows(u32(expert.y), u32(experts[e + 1].x), expert.w, thread, NUM_THREADS);
      }
    }
    fillRows(
        numLocalRows, uniforms.numRows, afterLast.w,
        fill * NUM_THREADS + thread, uniforms.numFillWorkgroups * NUM_THREADS);`)}`;

/** Workgroups for rows of no assignment: few where none are expected, since each has to find out. */
function fillWorkgroups(numRows: number, numAssignments: number, isAligned: boolean, hasMap: boolean): number {
  const expectedRows = isAligned ? numRows - numAssignments : hasMap ? numAssignments : numAssignments / 16;
  return Math.min(256, Math.max(1, Math.ceil(expectedRows / 16)));
}

export const moePermuteWebGPU = webgpuKernel(MoePermute, (backend, inputs, attrs) => {
  const {hiddenStates, topkIds, expertMap, a1qScale} = inputs;
  const {numExperts, numLocalExperts, alignBlockSize} = attrs;
  const {numAssignments, numRows} = permuteSizes(topkIds.shape, attrs);
  const [numTokens, topk] = topkIds.shape;
  const hiddenSize = hiddenStates.shape[1];
  const scaleShape = [numRows, ...(a1qScale?.shape.slice(1) ?? [])];
  const isAligned = alignBlockSize > 0;
  const padsWithLastToken = attrs.padding === 'lastToken';
  const plan = permutePlan(numAssignments, expertMap != null, attrs);
  const {mapUse} = plan;
  assertBindable(backend, MoePermute, {
    permutedHiddenStates: [numRows, hiddenSize],
    expertFirstTokenOffset: [numLocalExperts + 1],
    ...(a1qScale == null ? {} : {a1qScale: scaleShape}),
    ...sortScratch(numAssignments, numExperts, mapUse),
  });

  const rows = newTensor(backend, [numRows, hiddenSize], hiddenStates.dtype as 'float32' | 'int32');
  const offsets = newTensor(backend, [numLocalExperts + 1], 'int32');
  const inverse = newTensor(backend, [numAssignments], 'int32');
  const mIndices = newTensor(backend, [numRows], 'int32');
  const permutedIdx = newTensor(backend, [numRows], 'int32');

  const chunk = hiddenSize % 4 === 0 ? {type: 'vec4<u32>', size: 4} : {type: 'u32', size: 1};
  const rowChunks = hiddenSize / chunk.size;
  const oneLaunch = oneLaunchConstants(plan, topk);
  const assignmentsPerWorkgroup = oneLaunch == null ? WORKGROUP_SIZE : RANKED_AT_ONCE;
  const tokensPerWorkgroup = Math.max(
    1,
    Math.min(Math.floor(assignmentsPerWorkgroup / topk), Math.floor(WORKGROUP_SIZE / rowChunks)),
  );
  const numTokenWorkgroups = Math.ceil(numTokens / tokensPerWorkgroup);
  const numFillWorkgroups = fillWorkgroups(numRows, numAssignments, isAligned, mapUse === 'local');

  const rowBuffers: StorageBinding[] = [
    {name: 'rows', type: chunk.type, access: 'read_write', tensor: rows},
    {name: 'inverse', type: 'u32', access: 'read_write', tensor: inverse},
    {name: 'mIndices', type: 'i32', access: 'read_write', tensor: mIndices},
    {name: 'permutedIdx', type: 'u32', access: 'read_write', tensor: permutedIdx},
    {name: 'hiddenStates', type: chunk.type, access: 'read', tensor: hiddenStates},
  ];
  const rowUniforms = {
    numTokens,
    topk,
    numAssignments,
    numExperts,
    numLocalExperts,
    numKeys: numKeysOf(numExperts, mapUse),
    blockSize: Math.max(1, alignBlockSize),
    numRows,
    rowChunks,
    numTokenWorkgroups,
    numFillWorkgroups,
    ...labelUniforms(plan.labels),
    tokensPerWorkgroup,
    isAligned: Number(isAligned),
    padsWithLastToken: Number(padsWithLastToken),
    padIdx: padsWithLastToken ? Math.max(0, numAssignments - 1) : numAssignments,
  };
  const numWorkgroups = numTokenWorkgroups + numFillWorkgroups;

  if (oneLaunch != null) {
    runWgsl(backend, {
      name: `MoePermuteInOne_${mapUse}`,
      buffers: [
        ...rowBuffers,
        {name: 'offsets', type: 'u32', access: 'read_write', tensor: offsets},
        {name: 'topkIds', type: 'i32', access: 'read', tensor: topkIds},
        ...mapBuffer(expertMap, mapUse !== 'none'),
      ],
      uniforms: rowUniforms,
      constants: oneLaunch,
      numWorkgroups,
      code: () => permuteInOneWgsl(chunk.type, mapUse),
    });
  } else {
    const {keys, positions, experts, numKeys, numLocalKeys, tileSize} = sortAssignments(backend, {
      ...plan,
      topkIds,
      expertMap,
      ranks: inverse,
      rowCounts: {offsets},
    });
    runWgsl(backend, {
      name: 'MoePermuteSorted',
      buffers: [
        ...rowBuffers,
        {name: 'keys', type: 'u32', access: 'read', tensor: keys},
        {name: 'positions', type: 'u32', access: 'read', tensor: positions},
        {name: 'experts', type: 'vec4<i32>', access: 'read', tensor: experts},
      ],
      uniforms: {...rowUniforms, numKeys, numLocalExperts: numLocalKeys, tileSize},
      constants: {NUM_THREADS: WORKGROUP_SIZE, MAX_OWN: WORKGROUP_SIZE},
      numWorkgroups,
      code: () => permuteSortedWgsl(chunk.type),
    });
    disposeAll(backend, [keys, positions, experts]);
  }

  return {
    permutedHiddenStates: rows,
    expertFirstTokenOffset: offsets,
    invPermutedIdx: inverse,
    mIndices,
    permutedIdx,
    a1qScale: a1qScale && gatherScale(backend, a1qScale, permutedIdx, scaleShape, numAssignments, topk),
  };
});

const GATHER_SCALE = entryPoint(/* wgsl */ `
    let i = group * NUM_THREADS + thread;
    if (i >= uniforms.size) { return; }
    if (uniforms.numAssignments == 0) {
      scaleRows[i] = 0;
      return;
    }
    let token = min(permutedIdx[i / uniforms.rowSize], uniforms.numAssignments - 1) / uniforms.topk;
    scaleRows[i] = scale[token * uniforms.rowSize + i % uniforms.rowSize];`);

/** out[r] = scale[token of permutedIdx[r]], the last token's where the row is of no assignment. */
function gatherScale(
  backend: WebGPUBackend,
  scale: TensorInfo,
  permutedIdx: TensorInfo,
  shape: number[],
  numAssignments: number,
  topk: number,
): TensorInfo {
  const out = newTensor(backend, shape, scale.dtype as 'float32' | 'int32');
  const [numRows, ...rest] = shape;
  const rowSize = rest.reduce((size, dim) => size * dim, 1);
  if (numRows === 0) {
    return out;
  }
  runWgsl(backend, {
    name: 'MoePermuteScale',
    buffers: [
      {name: 'scaleRows', type: 'u32', access: 'read_write', tensor: {...out, shape: [numRows, rowSize]}},
      {name: 'scale', type: 'u32', access: 'read', tensor: scale},
      {name: 'permutedIdx', type: 'u32', access: 'read', tensor: permutedIdx},
    ],
    uniforms: {size: numRows * rowSize, rowSize, numAssignments, topk},
    constants: {NUM_THREADS: WORKGROUP_SIZE},
    numWorkgroups: Math.ceil((numRows * rowSize) / WORKGROUP_SIZE),
    code: () => GATHER_SCALE,
  });
  return out;
}
