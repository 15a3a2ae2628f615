/**
 * MoeAlignBlockSize on WebGPU: the stable counting sort of expert_sort/webgpu.ts, then every id is scattered to its
 * place. 1 launch for few assignments, else 3. In the last of them a thread takes an assignment; further workgroups
 * fill the places and blocks of none.
 */
import {MoeAlignBlockSize} from '../../contract/kernel_names';
import {alignSizes} from '../../contract/output_sizes';
import {type MapUse, numKeysOf} from '../expert_sort/plan';
import {sortAssignments, sortScratch} from '../expert_sort/webgpu';
import {LABELS, labelUniforms, mapBuffer, SORT_KEY_OF} from '../expert_sort/webgpu_launch';
import {COUNT_KEYS, oneLaunchConstants} from '../expert_sort/webgpu_one_launch';
import {LAST_START_WGSL} from '../shared/last_start';
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
import {alignPlan} from './plan';

/** Finding the expert of a place takes a search, so each thread fills few. */
const PLACES_PER_THREAD = {oneLaunch: 2, sorted: 1};
const MAX_FILL_WORKGROUPS = 1024;
/** Up to so many workgroups a thread has one place: two searches in a row took 0.25 us more at T = 1 on an H100. */
const FEW_FILL_WORKGROUPS = 4;

/**
 * WGSL: fillPlaces(total, fill, thread), for workgroup `fill` of those that have no assignments: fills places of no
 * assignment, and labels blocks. The page has startOf(expert), the expert's first row; endOf(expert), the row past its
 * last assignment's; blockLabel(expert); and blockTailLabel(), for blocks past the `total` of rows.
 */
const FILL_PLACES = /* wgsl */ `
  ${LAST_START_WGSL}
  fn expertAt(row : u32) -> u32 { return lastStart(row, uniforms.numExperts); }
  fn fillPlaces(total : u32, fill : u32, thread : u32) {
    let start = fill * NUM_THREADS + thread;
    let step = uniforms.numFillWorkgroups * NUM_THREADS;
    for (var s = start; s < uniforms.numSortedIds; s += step) {
      if (s >= total || s >= endOf(expertAt(s))) { sortedTokenIds[s] = uniforms.numAssignments; }
    }
    for (var b = start; b < uniforms.numBlocks; b += step) {
      let row = b * uniforms.blockSize;
      if (row < total) { expertIds[b] = blockLabel(expertAt(row)); } else { expertIds[b] = blockTailLabel(); }
    }
  }`;

const alignInOneWgsl = (mapUse: MapUse): string => /* wgsl */ `
  ${SORT_KEY_OF[mapUse]}
  ${LABELS[mapUse]}
  ${COUNT_KEYS}
  fn startOf(expert : u32) -> u32 { return keyRows[expert]; }
  fn endOf(expert : u32) -> u32 { return keyRows[expert] + atomicLoad(&keyCounts[expert]); }
  fn blockLabel(expert : u32) -> i32 { return labelOf(expert); }
  fn blockTailLabel() -> i32 { return tailLabel(); }
  ${FILL_PLACES}
  ${entryPoint(/* wgsl */ `
    let first = min(group * MAX_OWN, uniforms.numAssignments);
    let end = min(first + MAX_OWN, uniforms.numAssignments);
    countKeys(thread, first, end);

    if (group < uniforms.numAssignmentWorkgroups) {
      if (first + thread < end) {
        let key = ownKeys[thread];
        if (key < uniforms.numExperts) { sortedTokenIds[keyRows[key] + atomicLoad(&ranks[thread])] = first + thread; }
      }
      return;
    }
    let fill = group - uniforms.numAssignmentWorkgroups;
    if (fill >= uniforms.numFillWorkgroups) { return; }
    let total = keyRows[uniforms.numExperts];
    if (fill == 0 && thread == 0) { numTokensPostPad[0] = total; }
    fillPlaces(total, fill, thread);`)}`;

const ALIGN_SORTED = /* wgsl */ `
  fn startOf(expert : u32) -> u32 { return u32(experts[expert].x); }
  fn endOf(expert : u32) -> u32 { return u32(experts[expert].y); }
  fn blockLabel(expert : u32) -> i32 { return experts[expert].w; }
  fn blockTailLabel() -> i32 { return experts[uniforms.numExperts].w; }
  ${FILL_PLACES}
  ${entryPoint(/* wgsl */ `
    if (group < uniforms.numAssignmentWorkgroups) {
      let i = group * NUM_THREADS + thread;
      if (i < uniforms.numAssignments) {
        let key = keys[i];
        if (key < uniforms.numExperts) {
          let position = positions[i / uniforms.tileSize * uniforms.numKeys + key] + ranks[i];
          sortedTokenIds[i32(position) + experts[key].z] = i;
        }
      }
      return;
    }
    let fill = group - uniforms.numAssignmentWorkgroups;
    if (fill >= uniforms.numFillWorkgroups) { return; }
    let total = u32(experts[uniforms.numExperts].x);
    fillPlaces(total, fill, thread);`)}`;

export const moeAlignBlockSizeWebGPU = webgpuKernel(MoeAlignBlockSize, (backend, {topkIds, expertMap}, attrs) => {
  const {blockSize, numExperts} = attrs;
  const {numAssignments, numSortedIds, numBlocks} = alignSizes(topkIds.shape, attrs);
  const plan = alignPlan(numAssignments, expertMap != null, attrs);
  const {mapUse} = plan;
  assertBindable(backend, MoeAlignBlockSize, {
    sortedTokenIds: [numSortedIds],
    ...sortScratch(numAssignments, numExperts, mapUse),
  });

  const sortedTokenIds = newTensor(backend, [numSortedIds], 'int32');
  const expertIds = newTensor(backend, [numBlocks], 'int32');
  const numTokensPostPad = newTensor(backend, [1], 'int32');
  const oneLaunch = oneLaunchConstants(plan, 1);
  const placesPerThread = oneLaunch == null ? PLACES_PER_THREAD.sorted : PLACES_PER_THREAD.oneLaunch;
  const assignmentsPerWorkgroup = oneLaunch?.MAX_OWN ?? WORKGROUP_SIZE;
  const numAssignmentWorkgroups = Math.ceil(numAssignments / assignmentsPerWorkgroup);
  const numFillWorkgroups = Math.min(
    MAX_FILL_WORKGROUPS,
    Math.max(
      1,
      Math.min(FEW_FILL_WORKGROUPS, Math.ceil(numSortedIds / WORKGROUP_SIZE)),
      Math.ceil(numSortedIds / (placesPerThread * WORKGROUP_SIZE)),
    ),
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
    ...labelUniforms(plan.labels),
  };

  if (oneLaunch != null) {
    runWgsl(backend, {
      name: `MoeAlignInOne_${mapUse}`,
      buffers: [
        ...buffers,
        {name: 'numTokensPostPad', type: 'u32', access: 'read_write', tensor: numTokensPostPad},
        {name: 'topkIds', type: 'i32', access: 'read', tensor: topkIds},
        ...mapBuffer(expertMap, mapUse !== 'none'),
      ],
      uniforms,
      constants: oneLaunch,
      numWorkgroups,
      code: () => alignInOneWgsl(mapUse),
    });
  } else {
    const ranks = newTensor(backend, [numAssignments], 'int32');
    const {keys, positions, experts, numKeys, numLocalKeys, tileSize} = sortAssignments(backend, {
      ...plan,
      topkIds,
      expertMap,
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
      uniforms: {...uniforms, numKeys, numExperts: numLocalKeys, tileSize},
      constants: {NUM_THREADS: WORKGROUP_SIZE},
      numWorkgroups,
      code: () => ALIGN_SORTED,
    });
    disposeAll(backend, [keys, ranks, positions, experts]);
  }
  return {sortedTokenIds, expertIds, numTokensPostPad};
});
