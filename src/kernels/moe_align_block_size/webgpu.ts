/**
 * MoeAlignBlockSize on WebGPU: the stable counting sort of shared/webgpu_sort.ts, then every id is scattered to its
 * place. 1 launch for few assignments, else 3. In the last of them a thread takes an assignment; further workgroups
 * fill the places and blocks of none.
 */
import {MoeAlignBlockSize} from '../../kernel_names';
import {alignSizes} from '../../kernel_shapes';
import {
  assertBindable,
  disposeAll,
  flatIndex,
  newTensor,
  runWgsl,
  type StorageBinding,
  webgpuKernel,
  WORKGROUP_SIZE,
} from '../shared/webgpu';
import {
  countKeys,
  keyOfId,
  labelFunctions,
  labelUniforms,
  type Labels,
  mapBuffer,
  type MapUse,
  numKeysOf,
  sortInTiles,
  sortsInOneLaunch,
} from '../shared/webgpu_sort';

/** Each fills at least this many places, so that few of them count keys for little. */
const PLACES_PER_FILL_WORKGROUP = 2048;
const MAX_FILL_WORKGROUPS = 256;

export const moeAlignBlockSizeWebGPU = webgpuKernel(
  MoeAlignBlockSize,
  (backend, {topkIds, expertMap}, {blockSize, numExperts, padSortedIds, ignoreInvalidExperts}) => {
    const {numAssignments, numSortedIds, numBlocks} = alignSizes(topkIds.shape, {blockSize, numExperts, padSortedIds});
    assertBindable(backend, MoeAlignBlockSize, {sortedTokenIds: [numSortedIds]});
    const mapUse: MapUse = expertMap == null ? 'none' : ignoreInvalidExperts ? 'merge' : 'label';
    const labels: Labels = {experts: 'own', tail: ignoreInvalidExperts ? 'fill' : 'expertZero', fill: -1};
    const sizes = {numAssignments, numExperts, numLocalExperts: numExperts, blockSize};

    const sortedTokenIds = newTensor(backend, [numSortedIds], 'int32');
    const expertIds = newTensor(backend, [numBlocks], 'int32');
    const numTokensPostPad = newTensor(backend, [1], 'int32');
    const numAssignmentWorkgroups = Math.ceil(numAssignments / WORKGROUP_SIZE);
    const numFillWorkgroups = Math.min(
      MAX_FILL_WORKGROUPS,
      Math.max(1, Math.ceil(numSortedIds / PLACES_PER_FILL_WORKGROUP)),
    );
    const numWorkgroups = numAssignmentWorkgroups + numFillWorkgroups;
    const buffers: StorageBinding[] = [
      {name: 'sortedTokenIds', type: 'u32', access: 'read_write', tensor: sortedTokenIds},
      {name: 'expertIds', type: 'i32', access: 'read_write', tensor: expertIds},
    ];
    const uniforms = {
      numAssignments,
      numExperts,
      numLocalExperts: numExperts,
      numKeys: numKeysOf(numExperts, mapUse),
      blockSize,
      numSortedIds,
      numBlocks,
      numAssignmentWorkgroups,
      numFillWorkgroups,
      ...labelUniforms(labels),
    };

    if (sortsInOneLaunch(sizes, mapUse)) {
      runWgsl(backend, {
        name: `MoeAlignInOne_${mapUse}`,
        buffers: [
          ...buffers,
          {name: 'numTokensPostPad', type: 'u32', access: 'read_write', tensor: numTokensPostPad},
          {name: 'topkIds', type: 'i32', access: 'read', tensor: topkIds},
          ...mapBuffer(expertMap, mapUse !== 'none'),
        ],
        uniforms,
        numWorkgroups,
        code: () => `${flatIndex} ${keyOfId(mapUse)} ${labelFunctions(mapUse)} ${countKeys} ${fillBlocks}
          ${alignInOne}`,
      });
    } else {
      const ranks = newTensor(backend, [numAssignments], 'int32');
      const {keys, positions, experts, numTiles, tileSize} = sortInTiles(backend, {
        topkIds,
        expertMap,
        mapUse,
        sizes,
        labels,
        ranks,
        rowCounts: {total: numTokensPostPad},
      });
      runWgsl(backend, {
        name: 'MoeAlignSorted',
        buffers: [
          ...buffers,
          {name: 'keys', type: 'u32', access: 'read', tensor: keys},
          {name: 'ranks', type: 'u32', access: 'read', tensor: ranks},
          {name: 'positions', type: 'u32', access: 'read', tensor: positions},
          {name: 'experts', type: 'vec4<i32>', access: 'read', tensor: experts},
        ],
        uniforms: {...uniforms, numTiles, tileSize},
        numWorkgroups,
        code: () => `${flatIndex} ${fillBlocks} ${alignSorted}`,
      });
      disposeAll(backend, [keys, ranks, positions, experts]);
    }
    return [sortedTokenIds, expertIds, numTokensPostPad];
  },
);

/** WGSL that both ways share; a thread takes start, start + step, ... */
const fillBlocks = `
  fn fillPadding(first : u32, end : u32, start : u32, step : u32) {
    for (var s = first + start; s < end; s += step) { sortedTokenIds[s] = uniforms.numAssignments; }
  }
  fn labelBlocks(firstRow : u32, endRow : u32, label : i32, start : u32, step : u32) {
    for (var b = firstRow / uniforms.blockSize + start; b < endRow / uniforms.blockSize; b += step) {
      expertIds[b] = label;
    }
  }
  fn fillTail(first : u32, label : i32, start : u32, step : u32) {
    fillPadding(first, uniforms.numSortedIds, start, step);
    for (var b = first / uniforms.blockSize + start; b < uniforms.numBlocks; b += step) { expertIds[b] = label; }
  }
`;

const alignInOne = `
  @compute @workgroup_size(${WORKGROUP_SIZE})
  fn main(
      @builtin(workgroup_id) id : vec3<u32>,
      @builtin(num_workgroups) count : vec3<u32>,
      @builtin(local_invocation_index) thread : u32) {
    let group = flatIndex(id, count);
    let first = min(group * ${WORKGROUP_SIZE}, uniforms.numAssignments);
    let end = min(first + ${WORKGROUP_SIZE}, uniforms.numAssignments);
    countKeys(thread, first, end);

    if (group < uniforms.numAssignmentWorkgroups) {
      if (first + thread < end) {
        let key = ownKeys[thread];
        if (key < uniforms.numExperts) { sortedTokenIds[keyRows[key] + ranks[thread]] = first + thread; }
      }
      return;
    }
    let fill = group - uniforms.numAssignmentWorkgroups;
    if (fill >= uniforms.numFillWorkgroups) { return; }
    let total = keyRows[uniforms.numExperts];
    if (fill == 0 && thread == 0) { numTokensPostPad[0] = total; }
    for (var e = fill; e < uniforms.numExperts; e += uniforms.numFillWorkgroups) {
      let next = keyRows[e + 1];
      fillPadding(keyRows[e] + atomicLoad(&keyCounts[e]), next, thread, ${WORKGROUP_SIZE});
      labelBlocks(keyRows[e], next, labelOf(e), thread, ${WORKGROUP_SIZE});
    }
    fillTail(
        total, tailLabel(), fill * ${WORKGROUP_SIZE} + thread, uniforms.numFillWorkgroups * ${WORKGROUP_SIZE});
  }
`;

const alignSorted = `
  @compute @workgroup_size(${WORKGROUP_SIZE})
  fn main(
      @builtin(workgroup_id) id : vec3<u32>,
      @builtin(num_workgroups) count : vec3<u32>,
      @builtin(local_invocation_index) thread : u32) {
    let group = flatIndex(id, count);
    if (group < uniforms.numAssignmentWorkgroups) {
      let i = group * ${WORKGROUP_SIZE} + thread;
      if (i < uniforms.numAssignments) {
        let key = keys[i];
        if (key < uniforms.numExperts) {
          let position = positions[key * uniforms.numTiles + i / uniforms.tileSize] + ranks[i];
          sortedTokenIds[i32(position) + experts[key].z] = i;
        }
      }
      return;
    }
    let fill = group - uniforms.numAssignmentWorkgroups;
    if (fill >= uniforms.numFillWorkgroups) { return; }
    for (var e = fill; e < uniforms.numExperts; e += uniforms.numFillWorkgroups) {
      let expert = experts[e];
      let next = u32(experts[e + 1].x);
      fillPadding(u32(expert.y), next, thread, ${WORKGROUP_SIZE});
      labelBlocks(u32(expert.x), next, expert.w, thread, ${WORKGROUP_SIZE});
    }
    let afterLast = experts[uniforms.numExperts];
    fillTail(
        u32(afterLast.x), afterLast.w,
        fill * ${WORKGROUP_SIZE} + thread, uniforms.numFillWorkgroups * ${WORKGROUP_SIZE});
  }
`;
