/**
 * The stable counting sort of N assignments by key that moePermute and moeAlignBlockSize share, in WGSL.
 *
 * Many assignments are cut into at most MAX_TILES tiles of consecutive ids, a workgroup each.
 *   launch 1, tiles   keys[i]; ranks[i], how many of the same key come before i in its tile;
 *                     counts[tile][key]
 *   launch 2, scan    one workgroup: each count becomes the sum of all of lower keys and of the same key in
 *                     earlier tiles, so that counts[tile][key] + ranks[i] is the sorted position of i;
 *                     experts[e] is the record of local expert e
 *   launch 3          is the op's own: it moves rows, or ids, to where they belong
 * For few assignments and few keys one launch does all of it: each workgroup counts all keys for itself. Few
 * assignments of many keys are compared with each other, by one workgroup, in place of launches 1 and 2: time and
 * memory are then by their number, but for the offsets of all experts, which take a launch more.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {roundUp} from '../../contract/output_sizes';
import {type Labels, type MapUse, numKeysOf, type SortSizes} from './plan';
import {disposeAll, entryPoint, newTensor, runWgsl, type StorageBinding, WORKGROUP_SIZE} from '../shared/webgpu';

const MAX_TILES = 128;
const MIN_TILES = 16;
/** Ids of a tile, at least: more tiles of fewer take longer to scan than they save. */
const MIN_TILE_SIZE = 512;
/** More counts than this, over all keys and tiles, make the one workgroup of the second launch slow. */
const FEW_COUNTS = 20480;
/** No more counts than this in any case, but for one tile. */
const MAX_COUNTS = 2 ** 24;
/** Up to here assignments are compared with each other where one launch does not do all: their keys take 8 KiB. */
const FEW_ASSIGNMENTS = 1024;

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
 * WGSL: exclusiveScan(thread, value), for the first 256 threads the sum of the values of the threads before, and
 * `scanTotal`, the sum of all; the type of a value is u32 or vec2<u32>. Every thread of the workgroup must call it.
 * Threads are summed 16 at a time, then these sums: reading a few values more takes less time than a barrier.
 */
export function exclusiveScan(type: 'u32' | 'vec2<u32>'): string {
  const forEach = (count: number, statement: (j: number) => string) =>
    Array.from({length: count}, (_, j) => statement(j)).join('');
  return `
  var<workgroup> scanValues : array<${type}, 256>;
  var<workgroup> scanSums : array<${type}, 16>;
  var<private> scanTotal : ${type};
  fn exclusiveScan(thread : u32, value : ${type}) -> ${type} {
    let isScanned = thread < 256;
    let sixteen = thread / 16;
    let lane = thread % 16;
    let first = sixteen * 16;
    if (isScanned) { scanValues[thread] = value; }
    workgroupBarrier();
    var before = ${type}();
    if (isScanned) {
      ${forEach(15, (j) => `before += select(${type}(), scanValues[first + ${j}], ${j} < lane);`)}
      if (lane == 15) { scanSums[sixteen] = before + value; }
    }
    workgroupBarrier();
    scanTotal = ${type}();
    if (isScanned) {
      ${forEach(
        16,
        (j) => `
      let sum${j} = scanSums[${j}];
      scanTotal += sum${j};
      before += select(${type}(), sum${j}, ${j} < sixteen);`,
      )}
    }
    return before;
  }`;
}

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

/** The sort's results, for the launch that moves rows or ids. For few assignments only the experts in use have keys. */
export type Sorted = {
  /** int32 [N]: the sort key of each assignment. */
  keys: TensorInfo;
  /** int32 [numTiles * numKeys]: the sorted position of the first assignment of each key in each tile. */
  positions: TensorInfo;
  /**
   * int32 [(numLocalKeys+1) * 4]: of each key of a local expert, in order, first row, row past its last, first row less
   * sorted position, label; and after the last the number of rows in use, and the label of the rows past them.
   */
  experts: TensorInfo;
  /** Uniforms of the last launch. */
  numKeys: number;
  numLocalKeys: number;
  tileSize: number;
};

/** The launches before the last. The caller disposes of the tensors that it returns. */
export function sortAssignments(backend: WebGPUBackend, inputs: SortInputs): Sorted {
  const {sizes, mapUse} = inputs;
  if (sizes.numAssignments <= FEW_ASSIGNMENTS) {
    return compareFew(backend, inputs);
  }
  const {keys, counts, numTiles, tileSize} = countTiles(backend, inputs);
  const experts = scanTiles(backend, inputs, counts, numTiles);
  const numKeys = numKeysOf(sizes.numExperts, mapUse);
  return {keys, positions: counts, experts, numKeys, numLocalKeys: sizes.numLocalExperts, tileSize};
}

/** The buffer of the map, for a launch that reads it. */
export function mapBuffer(expertMap: TensorInfo | undefined, isRead: boolean): StorageBinding[] {
  return expertMap != null && isRead ? [{name: 'expertMap', type: 'i32', access: 'read', tensor: expertMap}] : [];
}

function tilesOf(numAssignments: number, numKeys: number): {tileSize: number; numTiles: number} {
  const fastTiles = Math.min(MAX_TILES, Math.max(MIN_TILES, Math.floor(FEW_COUNTS / numKeys)));
  const maxTiles = Math.min(fastTiles, Math.max(1, Math.floor(MAX_COUNTS / numKeys)));
  const tileSize = Math.max(MIN_TILE_SIZE, roundUp(Math.ceil(numAssignments / maxTiles), WORKGROUP_SIZE));
  return {tileSize, numTiles: Math.max(1, Math.ceil(numAssignments / tileSize))};
}

/** Shapes of the intermediates that grow with the number of experts, for assertBindable. */
export function sortScratch(numAssignments: number, numExperts: number, mapUse: MapUse): Record<string, number[]> {
  if (numAssignments <= FEW_ASSIGNMENTS) {
    return {};
  }
  const numKeys = numKeysOf(numExperts, mapUse);
  const {numTiles} = tilesOf(numAssignments, numKeys);
  return {'the counts of experts in tiles': [numTiles, numKeys], 'the records of experts': [numExperts + 1, 4]};
}

/**
 * The keys of few assignments, numbered: those of local experts from 0 in ascending order, the others, in ascending
 * order too, from as many as there can be of the former.
 */
function compareFew(
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
  // Each sorted position has its expert and the expert's first row. Past the last is the number of rows in use.
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
    numWorkgroups: 1,
    code: () => `
      ${keyOfId(mapUse)}
      ${labelFunctions(mapUse)}
      var<workgroup> expertOf : array<u32, ${FEW_ASSIGNMENTS}>;
      // The first assignment of each expert has the expert's count, every other assignment 0.
      var<workgroup> counts : array<u32, ${FEW_ASSIGNMENTS}>;

      fn isLocal(expert : u32) -> bool { return expert < uniforms.numLocalExperts; }
      fn paddedRows(expert : u32, count : u32) -> u32 {
        return select(0, (count + uniforms.blockSize - 1) / uniforms.blockSize * uniforms.blockSize, isLocal(expert));
      }

      @compute @workgroup_size(${WORKGROUP_SIZE})
      fn main(@builtin(local_invocation_index) thread : u32) {
        for (var i = thread; i < uniforms.numAssignments; i += ${WORKGROUP_SIZE}) { expertOf[i] = keyOf(topkIds[i]); }
        workgroupBarrier();
        for (var i = thread; i < uniforms.numAssignments; i += ${WORKGROUP_SIZE}) {
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
        for (var i = thread; i < uniforms.numAssignments; i += ${WORKGROUP_SIZE}) {
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
          ${hasOffsets ? 'rows[position + ranks[i]] = vec2<u32>(expert, row);' : ''}
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
        for (var key = numLocal + thread; key <= uniforms.numLocalKeys; key += ${WORKGROUP_SIZE}) {
          experts[key] = vec4<i32>(i32(total), i32(total), 0, tailLabel());
        }
        if (thread == 0) { rows[${hasOffsets ? 'uniforms.numAssignments' : '0'}] = ${hasOffsets ? 'vec2<u32>(0xffffffffu, total)' : 'total'}; }
      }`,
  });
  if (hasOffsets) {
    findOffsets(backend, rows, rowCounts.offsets, numAssignments);
    disposeAll(backend, [rows]);
  }
  return {keys, positions, experts, numKeys, numLocalKeys, tileSize: Math.max(1, numAssignments)};
}

/** The first row of each expert: that of the first assignment of it or of a later one. */
function findOffsets(backend: WebGPUBackend, rows: TensorInfo, offsets: TensorInfo, numAssignments: number): void {
  const [numOffsets] = offsets.shape;
  runWgsl(backend, {
    name: 'MoeOffsetsOfFew',
    buffers: [
      {name: 'offsets', type: 'u32', access: 'read_write', tensor: offsets},
      {name: 'rows', type: 'vec2<u32>', access: 'read', tensor: rows},
    ],
    uniforms: {numOffsets, numAssignments},
    numWorkgroups: Math.ceil(numOffsets / WORKGROUP_SIZE),
    code: () =>
      entryPoint(`
        let expert = group * ${WORKGROUP_SIZE} + thread;
        if (expert >= uniforms.numOffsets) { return; }
        var low = 0u;
        var high = uniforms.numAssignments;
        while (low < high) {
          let middle = (low + high) / 2;
          if (rows[middle].x < expert) { low = middle + 1; } else { high = middle; }
        }
        offsets[expert] = rows[low].y;`),
  });
}

/**
 * 32-bit words for the masks of a chunk: 72 keys for 1,024 ids, 139 for 512, 264 for 256. Each key has one word more
 * than its ids need, so that the masks of different keys lie in different banks of workgroup memory.
 */
const MASK_WORDS = 2376;
const MAX_CHUNK = 1024;

/** Ids that a workgroup takes at once, and the keys that it counts then: many ids, if the masks of all keys fit. */
function chunkSizes(tileSize: number, numKeys: number): {chunkSize: number; numKeysAtOnce: number} {
  const keysOf = (chunkSize: number) => Math.floor(MASK_WORDS / (chunkSize / 32 + 1));
  let chunkSize = WORKGROUP_SIZE;
  while (2 * chunkSize <= Math.min(tileSize, MAX_CHUNK) && numKeys <= keysOf(2 * chunkSize)) {
    chunkSize *= 2;
  }
  return {chunkSize, numKeysAtOnce: keysOf(chunkSize)};
}

/**
 * Launch 1. A tile is read a chunk at a time. Bit i of a key's mask says that id i of the chunk has it; then its words
 * become the counts of the ids before them.
 */
function countTiles(
  backend: WebGPUBackend,
  {topkIds, expertMap, mapUse, sizes, ranks}: SortInputs,
): {keys: TensorInfo; counts: TensorInfo; numTiles: number; tileSize: number} {
  const {numAssignments, numExperts, numLocalExperts} = sizes;
  const numKeys = numKeysOf(numExperts, mapUse);
  const {tileSize, numTiles} = tilesOf(numAssignments, numKeys);
  const {chunkSize, numKeysAtOnce} = chunkSizes(tileSize, numKeys);
  const keys = newTensor(backend, [numAssignments], 'int32');
  const counts = newTensor(backend, [numTiles * numKeys], 'int32');
  const buffers: StorageBinding[] = [
    {name: 'keys', type: 'u32', access: 'read_write', tensor: keys},
    {name: 'ranks', type: 'u32', access: 'read_write', tensor: ranks},
    {name: 'counts', type: 'u32', access: 'read_write', tensor: counts},
    {name: 'topkIds', type: 'i32', access: 'read', tensor: topkIds},
    ...mapBuffer(expertMap, mapUse === 'local' || mapUse === 'merge'),
  ];
  const idsPerThread = chunkSize / WORKGROUP_SIZE;
  const forEachId = (statement: (u: number) => string) =>
    Array.from({length: idsPerThread}, (_, u) => statement(u)).join('');
  runWgsl(backend, {
    name: `MoeCountTiles_${mapUse === 'label' ? 'none' : mapUse}`,
    buffers,
    uniforms: {numAssignments, numExperts, numLocalExperts, numKeys, tileSize, numKeysAtOnce},
    constants: {CHUNK: chunkSize},
    numWorkgroups: numTiles,
    code: () => `
      var<workgroup> masks : array<atomic<u32>, ${MASK_WORDS}>;
      var<workgroup> keyCounts : array<u32, ${Math.floor(MASK_WORDS / (WORKGROUP_SIZE / 32 + 1))}>;
      ${keyOfId(mapUse)}

      @compute @workgroup_size(${WORKGROUP_SIZE})
      fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) thread : u32) {
        let tile = group.x;
        let first = tile * uniforms.tileSize;
        let end = min(first + uniforms.tileSize, uniforms.numAssignments);
        const WORDS = CHUNK / 32;
        const STRIDE = WORDS + 1;
        let bit = 1u << (thread % 32);
        // Where there are more keys than the masks hold, the tile is read again for each range of them.
        for (var firstKey = 0u; firstKey < uniforms.numKeys; firstKey += uniforms.numKeysAtOnce) {
          let numKeysHere = min(uniforms.numKeysAtOnce, uniforms.numKeys - firstKey);
          for (var key = thread; key < numKeysHere; key += ${WORKGROUP_SIZE}) { keyCounts[key] = 0; }
          for (var chunk = first; chunk < end; chunk += CHUNK) {
            ${forEachId((u) => `let i${u} = chunk + ${u * WORKGROUP_SIZE} + thread;`)}
            // Reads go out together; of an id past the end, that of the last is not used.
            ${forEachId((u) => `let id${u} = topkIds[min(i${u}, uniforms.numAssignments - 1)];`)}
            ${forEachId(
              (u) => `
            let key${u} = keyOf(id${u});
            let isCounted${u} = i${u} < end && key${u} >= firstKey && key${u} < firstKey + numKeysHere;
            let word${u} = (key${u} - firstKey) * STRIDE + ${(u * WORKGROUP_SIZE) / 32} + thread / 32;`,
            )}
            // WGSL gives workgroup memory as zeros.
            if (chunk > first || firstKey > 0) {
              for (var w = thread; w < numKeysHere * STRIDE; w += ${WORKGROUP_SIZE}) { atomicStore(&masks[w], 0); }
              workgroupBarrier();
            }
            ${forEachId(
              (u) => `
            if (isCounted${u}) { atomicOr(&masks[word${u}], bit); }`,
            )}
            workgroupBarrier();
            ${forEachId(
              (u) => `
            var rank${u} = 0u;
            if (isCounted${u}) { rank${u} = countOneBits(atomicLoad(&masks[word${u}]) & (bit - 1)); }`,
            )}
            workgroupBarrier();
            for (var key = thread; key < numKeysHere; key += ${WORKGROUP_SIZE}) {
              var before = keyCounts[key];
              for (var w = key * STRIDE; w < key * STRIDE + WORDS; w += 8) {
                ${Array.from({length: 8}, (_, u) => `let mask${u} = atomicLoad(&masks[w + ${u}]);`).join('')}
                ${Array.from(
                  {length: 8},
                  (_, u) => `
                  atomicStore(&masks[w + ${u}], before);
                  before += countOneBits(mask${u});`,
                ).join('')}
              }
              keyCounts[key] = before;
            }
            workgroupBarrier();
            ${forEachId(
              (u) => `
            if (isCounted${u}) {
              keys[i${u}] = key${u};
              ranks[i${u}] = atomicLoad(&masks[word${u}]) + rank${u};
            }`,
            )}
            workgroupBarrier();
          }
          for (var key = thread; key < numKeysHere; key += ${WORKGROUP_SIZE}) {
            counts[tile * uniforms.numKeys + firstKey + key] = keyCounts[key];
          }
        }
      }`,
  });
  return {keys, counts, numTiles, tileSize};
}

/** Counts that a thread of the second launch reads at once: one wait instead of as many. */
const COUNTS_AT_ONCE = 8;
/** Keys that are scanned at once. */
const KEYS_AT_ONCE = 256;
/** Threads of its workgroup, on a device that has as many. */
const LARGE_WORKGROUP_SIZE = 1024;

/** Launch 2, one workgroup: a thread sums one key's counts in some of the tiles, and the sums are scanned. */
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
    {name: 'counts', type: 'u32', access: 'read_write', tensor: counts},
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
  const numKeys = numKeysOf(numExperts, mapUse);
  const numPartsWanted = Math.ceil(numTiles / COUNTS_AT_ONCE);
  const isLarge = Math.min(maxComputeInvocationsPerWorkgroup, maxComputeWorkgroupSizeX) >= LARGE_WORKGROUP_SIZE;
  const numKeysAtOnce = Math.min(numKeys, KEYS_AT_ONCE);
  const needsLarge = numKeysAtOnce * numPartsWanted > WORKGROUP_SIZE;
  const workgroupSize = isLarge && needsLarge ? LARGE_WORKGROUP_SIZE : WORKGROUP_SIZE;
  const numParts = Math.min(numPartsWanted, Math.floor(workgroupSize / numKeysAtOnce));
  const forEachCount = (statement: (u: number) => string) =>
    Array.from({length: COUNTS_AT_ONCE}, (_, u) => statement(u)).join('');
  const readCounts = forEachCount(
    (u) => `
            let count${u} = select(
                0, counts[min(tile + ${u}, endTile - 1) * uniforms.numKeys + key], tile + ${u} < endTile);`,
  );
  runWgsl(backend, {
    name: `MoeScanTiles_${mapUse === 'label' ? 'label' : 'none'}_${hasOffsets ? 'offsets' : 'total'}`,
    buffers,
    uniforms: {
      numTiles,
      numKeys,
      numKeysAtOnce,
      numParts,
      tilesPerPart: Math.ceil(numTiles / numParts),
      numLocalExperts,
      blockSize: Math.max(1, blockSize),
      ...labelUniforms(labels),
    },
    constants: {WORKGROUP_SIZE: workgroupSize},
    numWorkgroups: 1,
    code: () => `
      ${exclusiveScan('vec2<u32>')}
      ${labelFunctions(mapUse)}
      // For each part and key: its count, then the sorted position of its first assignment.
      var<workgroup> parts : array<u32, WORKGROUP_SIZE>;

      @compute @workgroup_size(WORKGROUP_SIZE)
      fn main(@builtin(local_invocation_index) thread : u32) {
        // Assignments, and rows, of the keys before.
        var carry = vec2<u32>();
        let part = thread / uniforms.numKeysAtOnce;
        let firstTile = part * uniforms.tilesPerPart;
        let endTile = min(firstTile + uniforms.tilesPerPart, uniforms.numTiles);
        for (var firstKey = 0u; firstKey < uniforms.numKeys; firstKey += uniforms.numKeysAtOnce) {
          let key = firstKey + thread % uniforms.numKeysAtOnce;
          let hasCounts = part < uniforms.numParts && key < uniforms.numKeys;
          if (hasCounts) {
            var sum = 0u;
            for (var tile = firstTile; tile < endTile; tile += ${COUNTS_AT_ONCE}) {
              ${readCounts}
              sum += ${forEachCount((u) => `${u > 0 ? ' + ' : ''}count${u}`)};
            }
            parts[thread] = sum;
          }
          workgroupBarrier();

          // Part 0 goes on with its key.
          var count = 0u;
          let isKey = part == 0 && hasCounts;
          if (isKey) {
            for (var p = thread; p < uniforms.numParts * uniforms.numKeysAtOnce; p += uniforms.numKeysAtOnce) {
              count += parts[p];
            }
          }
          let isLocal = isKey && key < uniforms.numLocalExperts;
          let rows = (count + uniforms.blockSize - 1) / uniforms.blockSize * uniforms.blockSize;
          let before = carry + exclusiveScan(thread, vec2<u32>(count, select(0, rows, isLocal)));
          carry += scanTotal;
          let sorted = before.x;
          let row = before.y;
          if (isLocal) {
            experts[key] = vec4<i32>(i32(row), i32(row + count), i32(row) - i32(sorted), labelOf(key));
            ${hasOffsets ? 'rowCounts[key] = row;' : ''}
          }
          if (isKey && key == uniforms.numLocalExperts) {
            experts[key] = vec4<i32>(i32(row), 0, 0, tailLabel());
            rowCounts[${hasOffsets ? 'key' : '0'}] = row;
          }
          if (isKey) {
            var position = sorted;
            for (var p = thread; p < uniforms.numParts * uniforms.numKeysAtOnce; p += uniforms.numKeysAtOnce) {
              let inPart = parts[p];
              parts[p] = position;
              position += inPart;
            }
          }
          workgroupBarrier();

          if (hasCounts) {
            var position = parts[thread];
            for (var tile = firstTile; tile < endTile; tile += ${COUNTS_AT_ONCE}) {
              ${readCounts}
              ${forEachCount(
                (u) => `
              if (tile + ${u} < endTile) { counts[(tile + ${u}) * uniforms.numKeys + key] = position; }
              position += count${u};`,
              )}
            }
          }
          workgroupBarrier();
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
  ${exclusiveScan('u32')}

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
    // Many assignments are compared in pairs, all at once. It takes one more barrier, and no thread loops over them.
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
      let start = carry + exclusiveScan(thread, rows);
      if (key < uniforms.numKeys) { keyRows[key] = start; }
      carry += scanTotal;
    }
    workgroupBarrier();
  }
`;
