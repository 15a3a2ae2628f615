/** Launch 1 of the sort of many assignments. */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {roundUp} from '../../contract/output_sizes';
import {newTensor, runWgsl, type StorageBinding, WORKGROUP_SIZE} from '../shared/webgpu';
import {numKeysOf} from './plan';
import {sortKeyOf, mapBuffer, type SortInputs} from './webgpu_launch';

const MAX_TILES = 128;
const MIN_TILES = 16;
/** Ids of a tile, at least: more tiles of fewer take longer to scan than they save. */
const MIN_TILE_SIZE = 512;
/** More counts than this, over all keys and tiles, make the one workgroup of the second launch slow. */
const FEW_COUNTS = 20480;
/** No more counts than this in any case, but for one tile. */
const MAX_COUNTS = 2 ** 24;

export function tilesOf(numAssignments: number, numKeys: number): {tileSize: number; numTiles: number} {
  const fastTiles = Math.min(MAX_TILES, Math.max(MIN_TILES, Math.floor(FEW_COUNTS / numKeys)));
  const maxTiles = Math.min(fastTiles, Math.max(1, Math.floor(MAX_COUNTS / numKeys)));
  const tileSize = Math.max(MIN_TILE_SIZE, roundUp(Math.ceil(numAssignments / maxTiles), WORKGROUP_SIZE));
  return {tileSize, numTiles: Math.max(1, Math.ceil(numAssignments / tileSize))};
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
export function countTiles(
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
      ${sortKeyOf(mapUse)}

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
            let key${u} = sortKeyOf(id${u});
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
