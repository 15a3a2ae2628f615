/**
 * The stable counting sort of N assignments by key that moePermute and moeAlignBlockSize share, in WGSL.
 *
 * Assignments are cut into at most MAX_TILES tiles of consecutive ids, a workgroup each.
 *   launch 1, tiles   keys[i]; ranks[i], how many of the same key come before i in its tile;
 *                     counts[key][tile]
 *   launch 2, scan    one workgroup: counts becomes its exclusive prefix sum, so that counts[key][tile] +
 *                     ranks[i] is the sorted position of i; experts[e] is the record of local expert e
 *   launch 3          is the op's own: it moves rows, or ids, to where they belong
 * For few assignments one launch does all of it: each workgroup counts all keys for itself.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {roundUp} from '../../kernel_shapes';
import {newTensor, runWgsl, type StorageBinding, WORKGROUP_SIZE} from './webgpu';

const MAX_TILES = 128;
const MIN_TILES = 16;
/** Counts that the one workgroup of the second launch scans at once. */
const SCANNED_AT_ONCE = 16384;

export type SortSizes = {
  numAssignments: number;
  numExperts: number;
  /** L: keys below it are local experts, and only these get rows. */
  numLocalExperts: number;
  /** B, 0 for no alignment. */
  blockSize: number;
};

/**
 * What a map of experts does. 'local': its entries are the local experts; the others sort after them, by
 * global id. 'merge': its entries are the experts, the others are dropped. 'label': it only names experts.
 */
export type MapUse = 'none' | 'local' | 'merge' | 'label';

export function numKeysOf(numExperts: number, mapUse: MapUse): number {
  return mapUse === 'local' ? 2 * numExperts + 1 : numExperts + 1;
}

/** WGSL: the sort key of an assignment; the last key is that of an id that is no expert. */
export function keyOfId(mapUse: MapUse): string {
  const isExpert = 'id >= 0 && id < i32(uniforms.numExperts)';
  if (mapUse === 'local') {
    return `
      fn keyOf(id : i32) -> u32 {
        if (!(${isExpert})) { return 2 * uniforms.numExperts; }
        let local = expertMap[id];
        if (local >= 0 && local < i32(uniforms.numLocalExperts)) { return u32(local); }
        return uniforms.numExperts + u32(id);
      }`;
  }
  if (mapUse === 'merge') {
    return `
      fn keyOf(id : i32) -> u32 {
        if (!(${isExpert})) { return uniforms.numExperts; }
        let expert = expertMap[id];
        if (expert >= 0 && expert < i32(uniforms.numExperts)) { return u32(expert); }
        return uniforms.numExperts;
      }`;
  }
  return `
    fn keyOf(id : i32) -> u32 {
      if (${isExpert}) { return u32(id); }
      return uniforms.numExperts;
    }`;
}

/**
 * WGSL: exclusiveScan(thread, value, width), the sum of the values of the threads before this one, and `scanTotal`,
 * the sum of all. Only the first `width` threads may have other values than 0. Every thread of the workgroup must
 * call it.
 */
export function exclusiveScan(workgroupSize: number): string {
  return `
  var<workgroup> scanSums : array<u32, ${2 * workgroupSize}>;
  fn exclusiveScan(thread : u32, value : u32, width : u32) -> u32 {
    var offset = 0u;
    scanSums[thread] = value;
    workgroupBarrier();
    for (var step = 1u; step < width; step *= 2) {
      let next = ${workgroupSize}u - offset;
      var sum = scanSums[offset + thread];
      if (thread >= step) { sum += scanSums[offset + thread - step]; }
      scanSums[next + thread] = sum;
      offset = next;
      workgroupBarrier();
    }
    let inclusive = scanSums[offset + thread];
    scanTotal = scanSums[offset + width - 1];
    workgroupBarrier();
    return inclusive - value;
  }
  var<private> scanTotal : u32;`;
}

/** The label of each expert's rows, its own index or name or `fill`; and that of rows past the last expert's. */
export type Labels = {experts: 'own' | 'fill'; tail: 'expertZero' | 'fill'; fill: number};

/** The uniforms that labelFunctions reads. */
export function labelUniforms({experts, tail, fill}: Labels): Record<string, number> {
  return {hasOwnLabels: Number(experts === 'own'), hasTailOfExpertZero: Number(tail === 'expertZero'), fillLabel: fill};
}

/** WGSL: labelOf(expert) and tailLabel(). */
export function labelFunctions(mapUse: MapUse): string {
  const own = mapUse === 'label' ? 'expertMap[expert]' : 'i32(expert)';
  return `
    fn labelOf(expert : u32) -> i32 {
      if (uniforms.hasOwnLabels == 1) { return ${own}; }
      return bitcast<i32>(uniforms.fillLabel);
    }
    fn tailLabel() -> i32 {
      if (uniforms.hasTailOfExpertZero == 1) { return labelOf(0); }
      return bitcast<i32>(uniforms.fillLabel);
    }`;
}

export type SortInputs = {
  topkIds: TensorInfo;
  expertMap?: TensorInfo;
  mapUse: MapUse;
  sizes: SortSizes;
  labels: Labels;
  /** Gets the ranks: int32 [N]. */
  ranks: TensorInfo;
  /** Gets the first row of each local expert and the number of rows in use, int32 [L+1]; or the latter, int32 [1]. */
  rowCounts: {offsets: TensorInfo} | {total: TensorInfo};
};

export type SortedTiles = {
  /** int32 [N]: the sort key of each assignment. */
  keys: TensorInfo;
  /** int32 [numKeys * numTiles]: the sorted position of the first assignment of each key in each tile. */
  positions: TensorInfo;
  /** int32 [(L+1) * 4]: of each local expert, first row, row past its last, first row less sorted position, label. */
  experts: TensorInfo;
  numTiles: number;
  tileSize: number;
};

/** The first two launches. The caller disposes what it returns. */
export function sortInTiles(backend: WebGPUBackend, inputs: SortInputs): SortedTiles {
  const {keys, counts, numTiles, tileSize} = countTiles(backend, inputs);
  const experts = scanTiles(backend, inputs, counts, numTiles);
  return {keys, positions: counts, experts, numTiles, tileSize};
}

/** The buffer of the map, for a launch that reads it. */
export function mapBuffer(expertMap: TensorInfo | undefined, isRead: boolean): StorageBinding[] {
  return expertMap != null && isRead ? [{name: 'expertMap', type: 'i32', access: 'read', tensor: expertMap}] : [];
}

function tilesOf(numAssignments: number, numKeys: number): {tileSize: number; numTiles: number} {
  const maxTiles = Math.min(MAX_TILES, Math.max(MIN_TILES, Math.floor(SCANNED_AT_ONCE / numKeys)));
  const tileSize = WORKGROUP_SIZE * Math.max(1, Math.ceil(numAssignments / (WORKGROUP_SIZE * maxTiles)));
  return {tileSize, numTiles: Math.max(1, Math.ceil(numAssignments / tileSize))};
}

/** Shapes of the intermediates that grow with the number of experts, for assertBindable. */
export function sortScratch(numAssignments: number, numExperts: number, mapUse: MapUse): Record<string, number[]> {
  const numKeys = numKeysOf(numExperts, mapUse);
  const {numTiles} = tilesOf(numAssignments, numKeys);
  return {'the counts of experts in tiles': [numKeys, numTiles], 'the records of experts': [numExperts + 1, 4]};
}

const TILE_KEYS = 256;

/** Launch 1. A tile is read a chunk of 256 ids at a time; bit t of masks[key] says that thread t's id has it. */
function countTiles(
  backend: WebGPUBackend,
  {topkIds, expertMap, mapUse, sizes, ranks}: SortInputs,
): {keys: TensorInfo; counts: TensorInfo; numTiles: number; tileSize: number} {
  const {numAssignments, numExperts, numLocalExperts} = sizes;
  const numKeys = numKeysOf(numExperts, mapUse);
  const {tileSize, numTiles} = tilesOf(numAssignments, numKeys);
  const keys = newTensor(backend, [numAssignments], 'int32');
  // Whole vec4, which the next launch reads.
  const counts = newTensor(backend, [roundUp(numKeys * numTiles, 4)], 'int32');
  const buffers: StorageBinding[] = [
    {name: 'keys', type: 'u32', access: 'read_write', tensor: keys},
    {name: 'ranks', type: 'u32', access: 'read_write', tensor: ranks},
    {name: 'counts', type: 'u32', access: 'read_write', tensor: counts},
    {name: 'topkIds', type: 'i32', access: 'read', tensor: topkIds},
    ...mapBuffer(expertMap, mapUse === 'local' || mapUse === 'merge'),
  ];
  runWgsl(backend, {
    name: `MoeCountTiles_${mapUse === 'label' ? 'none' : mapUse}`,
    buffers,
    uniforms: {numAssignments, numExperts, numLocalExperts, numKeys, tileSize, numTiles},
    numWorkgroups: numTiles,
    code: () => `
      const MASK_WORDS = ${WORKGROUP_SIZE / 32}u;
      var<workgroup> masks : array<atomic<u32>, ${(TILE_KEYS * WORKGROUP_SIZE) / 32}>;
      var<workgroup> keyCounts : array<u32, ${TILE_KEYS}>;
      ${keyOfId(mapUse)}

      @compute @workgroup_size(${WORKGROUP_SIZE})
      fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) thread : u32) {
        let tile = group.x;
        let first = tile * uniforms.tileSize;
        let end = min(first + uniforms.tileSize, uniforms.numAssignments);
        let word = thread / 32;
        let bit = thread % 32;
        // Where there are more keys than the masks hold, the tile is read again for each range of them.
        for (var firstKey = 0u; firstKey < uniforms.numKeys; firstKey += ${TILE_KEYS}) {
          for (var chunk = first; chunk < end; chunk += ${WORKGROUP_SIZE}) {
            let i = chunk + thread;
            var key = 0u;
            var counted = false;
            if (i < end) {
              key = keyOf(topkIds[i]);
              counted = key >= firstKey && key < firstKey + ${TILE_KEYS};
            }
            let row = (key - firstKey) * MASK_WORDS;
            if (counted) { atomicOr(&masks[row + word], 1u << bit); }
            workgroupBarrier();
            var before = 0u;
            var total = 0u;
            var previous = 0u;
            if (counted) {
              for (var w = 0u; w < MASK_WORDS; w++) {
                let mask = atomicLoad(&masks[row + w]);
                total += countOneBits(mask);
                if (w < word) { before += countOneBits(mask); }
                if (w == word) { before += countOneBits(mask & ((1u << bit) - 1)); }
              }
              previous = keyCounts[key - firstKey];
            }
            workgroupBarrier();
            if (counted) {
              keys[i] = key;
              ranks[i] = previous + before;
              if (before == total - 1) { keyCounts[key - firstKey] = previous + total; }
              atomicStore(&masks[row + word], 0);
            }
            workgroupBarrier();
          }
          if (firstKey + thread < uniforms.numKeys) {
            counts[(firstKey + thread) * uniforms.numTiles + tile] = keyCounts[thread];
          }
          // WGSL gives workgroup memory as zeros; each chunk leaves the masks so.
          keyCounts[thread] = 0;
          workgroupBarrier();
        }
      }`,
  });
  return {keys, counts, numTiles, tileSize};
}

const VECTORS_PER_THREAD = 4;
/** Starts of this many keys stay in workgroup memory; later ones are read back from the counts. */
const KEPT_KEYS = 1024;

/** Launch 2, one workgroup: each thread sums a run of counts, and the sums are scanned. */
function scanTiles(
  backend: WebGPUBackend,
  {expertMap, mapUse, sizes, labels, rowCounts}: SortInputs,
  counts: TensorInfo,
  numTiles: number,
): TensorInfo {
  const {numExperts, numLocalExperts, blockSize} = sizes;
  const experts = newTensor(backend, [(numLocalExperts + 1) * 4], 'int32');
  const hasOffsets = 'offsets' in rowCounts;
  const buffers: StorageBinding[] = [
    {name: 'counts', type: 'vec4<u32>', access: 'read_write', tensor: counts},
    {name: 'experts', type: 'vec4<i32>', access: 'read_write', tensor: experts},
    {
      name: 'rowCounts',
      type: 'u32',
      access: 'read_write',
      tensor: hasOffsets ? rowCounts.offsets : rowCounts.total,
    },
    ...mapBuffer(expertMap, mapUse === 'label'),
  ];
  const {maxComputeInvocationsPerWorkgroup, maxComputeWorkgroupSizeX} = backend.device.limits;
  const numCounts = numKeysOf(numExperts, mapUse) * numTiles;
  const workgroupSize =
    numCounts <= 4 * VECTORS_PER_THREAD * WORKGROUP_SIZE
      ? WORKGROUP_SIZE
      : Math.min(1024, maxComputeInvocationsPerWorkgroup, maxComputeWorkgroupSizeX);
  runWgsl(backend, {
    name: `MoeScanTiles_${mapUse === 'label' ? 'label' : 'none'}_${hasOffsets ? 'offsets' : 'total'}`,
    buffers,
    uniforms: {
      numCounts,
      numTiles,
      numLocalExperts,
      blockSize: Math.max(1, blockSize),
      ...labelUniforms(labels),
    },
    constants: {WORKGROUP_SIZE: workgroupSize, RUN: VECTORS_PER_THREAD},
    numWorkgroups: 1,
    code: () => `
      ${exclusiveScan(workgroupSize)}
      ${labelFunctions(mapUse)}

      // The counts of a vector; nothing has written those past the last.
      fn countsAt(v : u32) -> vec4<u32> {
        if (4 * v >= uniforms.numCounts) { return vec4<u32>(); }
        let isCount = vec4<u32>(4 * v) + vec4<u32>(0, 1, 2, 3) < vec4<u32>(uniforms.numCounts);
        return select(vec4<u32>(), counts[v], isCount);
      }
      var<workgroup> keyStarts : array<u32, ${KEPT_KEYS}>;
      // The sorted position of the first assignment of a key.
      fn keyStart(key : u32) -> u32 {
        if (key < ${KEPT_KEYS}) { return keyStarts[key]; }
        let c = key * uniforms.numTiles;
        return counts[c / 4][c % 4];
      }
      fn keepStart(c : u32, sumBefore : u32) {
        let key = c / uniforms.numTiles;
        if (key < ${KEPT_KEYS} && key * uniforms.numTiles == c) { keyStarts[key] = sumBefore; }
      }

      @compute @workgroup_size(WORKGROUP_SIZE)
      fn main(@builtin(local_invocation_index) thread : u32) {
        var carry = 0u;
        let numVectors = (uniforms.numCounts + 3) / 4;
        for (var first = 0u; first < numVectors; first += WORKGROUP_SIZE * RUN) {
          // The run of this thread; its reads go out together.
          var run : array<vec4<u32>, RUN>;
          var sum = 0u;
          for (var v = 0u; v < RUN; v++) { run[v] = countsAt(first + thread * RUN + v); }
          for (var v = 0u; v < RUN; v++) { sum += dot(run[v], vec4<u32>(1)); }
          let numThreads = min(WORKGROUP_SIZE, (numVectors - first + RUN - 1) / RUN);
          var before = carry + exclusiveScan(thread, sum, numThreads);
          carry += scanTotal;
          for (var v = 0u; v < RUN; v++) {
            let y = before + run[v].x;
            let z = y + run[v].y;
            let w = z + run[v].z;
            let vector = first + thread * RUN + v;
            if (vector < numVectors) {
              counts[vector] = vec4<u32>(before, y, z, w);
              keepStart(4 * vector, before);
              keepStart(4 * vector + 1, y);
              keepStart(4 * vector + 2, z);
              keepStart(4 * vector + 3, w);
            }
            before = w + run[v].w;
          }
        }
        workgroupBarrier();
        storageBarrier();

        carry = 0;
        for (var firstExpert = 0u; firstExpert < uniforms.numLocalExperts; firstExpert += WORKGROUP_SIZE) {
          let expert = firstExpert + thread;
          var sorted = 0u;
          var count = 0u;
          if (expert < uniforms.numLocalExperts) {
            sorted = keyStart(expert);
            count = keyStart(expert + 1) - sorted;
          }
          var start = sorted;
          if (uniforms.blockSize > 1) {
            let rows = (count + uniforms.blockSize - 1) / uniforms.blockSize * uniforms.blockSize;
            start = carry + exclusiveScan(thread, rows, min(WORKGROUP_SIZE, uniforms.numLocalExperts - firstExpert));
            carry += scanTotal;
          }
          if (expert < uniforms.numLocalExperts) {
            experts[expert] =
                vec4<i32>(i32(start), i32(start + count), i32(start) - i32(sorted), labelOf(expert));
            ${hasOffsets ? 'rowCounts[expert] = start;' : ''}
          }
        }
        if (uniforms.blockSize == 1) { carry = keyStart(uniforms.numLocalExperts); }
        if (thread == 0) {
          experts[uniforms.numLocalExperts] = vec4<i32>(i32(carry), 0, 0, tailLabel());
          rowCounts[${hasOffsets ? 'uniforms.numLocalExperts' : '0'}] = carry;
        }
      }`,
  });
  return experts;
}

/**
 * Sizes of the key arrays of a launch that sorts by itself. Small ones leave room for more workgroups at a time; 768
 * keys of 12 bytes, and what a launch needs besides, fit the 16 KiB of workgroup memory of every device.
 */
const ONE_LAUNCH_KEYS = [64, 192, 768];

/**
 * The constant KEYS of a launch that sorts by itself, each workgroup counting the keys of all assignments in its own
 * memory; undefined where that does not hold them.
 */
export function oneLaunchKeys(numExperts: number, mapUse: MapUse): number | undefined {
  return ONE_LAUNCH_KEYS.find((numKeys) => numKeysOf(numExperts, mapUse) <= numKeys);
}

/**
 * WGSL for a launch that sorts by itself: countKeys(thread, first, end) counts keys and fills
 *   keyRows[key]   the first row of each key: of a local expert as in `experts`, of the others in sorted order
 *   keyCounts[key] its assignments in all
 *   ranks[a]       of assignment first + a, for those before `end`, its rank among those of its key
 *   ownKeys[a]     its key
 * Every thread of the workgroup must call it; end - first is at most 256, and the fewer the faster.
 */
export const countKeys = `
  const FEW = 8u;
  var<workgroup> keyCounts : array<atomic<u32>, KEYS>;
  var<workgroup> countsBefore : array<atomic<u32>, KEYS>;
  var<workgroup> keyRows : array<u32, KEYS>;
  var<workgroup> ownKeys : array<u32, ${WORKGROUP_SIZE}>;
  var<workgroup> ranks : array<atomic<u32>, ${WORKGROUP_SIZE}>;
  ${exclusiveScan(WORKGROUP_SIZE)}

  fn countKeys(thread : u32, first : u32, end : u32) {
    // WGSL gives workgroup memory as zeros. Reads go out four at a time: one wait instead of four.
    for (var base = thread; base < uniforms.numAssignments; base += ${4 * WORKGROUP_SIZE}) {
      let last = uniforms.numAssignments - 1;
      let ids = vec4<i32>(
          topkIds[base], topkIds[min(base + ${WORKGROUP_SIZE}, last)],
          topkIds[min(base + ${2 * WORKGROUP_SIZE}, last)], topkIds[min(base + ${3 * WORKGROUP_SIZE}, last)]);
      for (var u = 0u; u < 4; u++) {
        let i = base + u * ${WORKGROUP_SIZE};
        if (i < uniforms.numAssignments) {
          let key = keyOf(ids[u]);
          atomicAdd(&keyCounts[key], 1);
          if (i < first) { atomicAdd(&countsBefore[key], 1); }
          if (i >= first && i < end) { ownKeys[i - first] = key; }
        }
      }
    }
    workgroupBarrier();
    let numOwn = end - first;
    if (thread < numOwn) {
      var rank = atomicLoad(&countsBefore[ownKeys[thread]]);
      if (numOwn <= FEW) {
        for (var a = 0u; a < thread; a++) { rank += u32(ownKeys[a] == ownKeys[thread]); }
      }
      atomicStore(&ranks[thread], rank);
    }
    // Of many, all pairs at once: that takes a barrier more, but no thread goes through all before it.
    if (numOwn > FEW) {
      workgroupBarrier();
      for (var pair = thread; pair < numOwn * numOwn; pair += ${WORKGROUP_SIZE}) {
        let a = pair / numOwn;
        let b = pair % numOwn;
        if (b < a && ownKeys[a] == ownKeys[b]) { atomicAdd(&ranks[a], 1); }
      }
    }
    var carry = 0u;
    for (var firstKey = 0u; firstKey < uniforms.numKeys; firstKey += ${WORKGROUP_SIZE}) {
      let key = firstKey + thread;
      var rows = 0u;
      if (key < uniforms.numKeys) {
        rows = atomicLoad(&keyCounts[key]);
        if (key < uniforms.numLocalExperts) {
          rows = (rows + uniforms.blockSize - 1) / uniforms.blockSize * uniforms.blockSize;
        }
      }
      let start = carry + exclusiveScan(thread, rows, min(${WORKGROUP_SIZE}u, uniforms.numKeys - firstKey));
      if (key < uniforms.numKeys) { keyRows[key] = start; }
      carry += scanTotal;
    }
    workgroupBarrier();
  }
`;
