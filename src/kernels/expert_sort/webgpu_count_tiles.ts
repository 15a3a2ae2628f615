/**
 * Launch 1 of the sort of many assignments: a workgroup counts the keys of a tile, which it reads a chunk at a time.
 * Bit i of a key's mask says that id i of the chunk has the key. Then each word of the mask becomes the number of ids
 * of the key before the word's own.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {roundUp} from '../../contract/output_sizes';
import {newTensor, runWgsl, type StorageBinding, WORKGROUP_SIZE} from '../shared/webgpu';
import {type MapUse, numKeysOf} from './plan';
import {mapBuffer, SORT_KEY_OF, type SortInputs} from './webgpu_launch';

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
/** The WGSL has these as `const` by the same names, and CHUNK, the ids that a workgroup takes at once. */
const CONSTANTS = {NUM_THREADS: WORKGROUP_SIZE, MASK_WORDS};

/** As many ids as the masks of all keys leave room for. */
function chunkSizeOf(tileSize: number, numKeys: number): number {
  const keysAtOnce = (chunkSize: number) => Math.floor(MASK_WORDS / (chunkSize / 32 + 1));
  let chunkSize = WORKGROUP_SIZE;
  while (2 * chunkSize <= Math.min(tileSize, MAX_CHUNK) && numKeys <= keysAtOnce(2 * chunkSize)) {
    chunkSize *= 2;
  }
  return chunkSize;
}

const countTilesWgsl = (mapUse: MapUse): string => /* wgsl */ `
  // Ids of a thread in a chunk: id u of thread t is chunk + u * NUM_THREADS + t.
  const IDS = CHUNK / NUM_THREADS;
  const WORDS = CHUNK / 32;
  const STRIDE = WORDS + 1;
  const KEYS_AT_ONCE = MASK_WORDS / STRIDE;
  const WORDS_AT_ONCE = 8u;
  ${SORT_KEY_OF[mapUse]}
  var<workgroup> masks : array<atomic<u32>, MASK_WORDS>;
  var<workgroup> keyCounts : array<u32, KEYS_AT_ONCE>;

  @compute @workgroup_size(NUM_THREADS)
  fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) thread : u32) {
    let tile = group.x;
    let first = tile * uniforms.tileSize;
    let end = min(first + uniforms.tileSize, uniforms.numAssignments);
    let bit = 1u << (thread % 32);
    // Where there are more keys than the masks hold, the tile is read again for each range of them.
    for (var firstKey = 0u; firstKey < uniforms.numKeys; firstKey += KEYS_AT_ONCE) {
      let numKeysHere = min(KEYS_AT_ONCE, uniforms.numKeys - firstKey);
      for (var key = thread; key < numKeysHere; key += NUM_THREADS) { keyCounts[key] = 0; }
      for (var chunk = first; chunk < end; chunk += CHUNK) {
        // Reads go out together. What is read in place of an id past the end is not counted.
        var ids : array<i32, IDS>;
        for (var u = 0u; u < IDS; u++) {
          ids[u] = topkIds[min(chunk + u * NUM_THREADS + thread, uniforms.numAssignments - 1)];
        }
        var idKeys : array<u32, IDS>;
        var isCounted : array<bool, IDS>;
        var words : array<u32, IDS>;
        for (var u = 0u; u < IDS; u++) {
          let key = sortKeyOf(ids[u]);
          idKeys[u] = key;
          isCounted[u] =
            chunk + u * NUM_THREADS + thread < end && key >= firstKey && key < firstKey + numKeysHere;
          words[u] = (key - firstKey) * STRIDE + u * (NUM_THREADS / 32) + thread / 32;
        }
        // WGSL gives workgroup memory as zeros.
        if (chunk > first || firstKey > 0) {
          for (var w = thread; w < numKeysHere * STRIDE; w += NUM_THREADS) { atomicStore(&masks[w], 0); }
          workgroupBarrier();
        }
        for (var u = 0u; u < IDS; u++) {
          if (isCounted[u]) { atomicOr(&masks[words[u]], bit); }
        }
        workgroupBarrier();
        var ranksInWord : array<u32, IDS>;
        for (var u = 0u; u < IDS; u++) {
          if (isCounted[u]) { ranksInWord[u] = countOneBits(atomicLoad(&masks[words[u]]) & (bit - 1)); }
        }
        workgroupBarrier();
        for (var key = thread; key < numKeysHere; key += NUM_THREADS) {
          var before = keyCounts[key];
          for (var w = key * STRIDE; w < key * STRIDE + WORDS; w += WORDS_AT_ONCE) {
            var bits : array<u32, WORDS_AT_ONCE>;
            for (var u = 0u; u < WORDS_AT_ONCE; u++) { bits[u] = atomicLoad(&masks[w + u]); }
            for (var u = 0u; u < WORDS_AT_ONCE; u++) {
              atomicStore(&masks[w + u], before);
              before += countOneBits(bits[u]);
            }
          }
          keyCounts[key] = before;
        }
        workgroupBarrier();
        for (var u = 0u; u < IDS; u++) {
          if (isCounted[u]) {
            let i = chunk + u * NUM_THREADS + thread;
            keys[i] = idKeys[u];
            ranks[i] = atomicLoad(&masks[words[u]]) + ranksInWord[u];
          }
        }
        workgroupBarrier();
      }
      for (var key = thread; key < numKeysHere; key += NUM_THREADS) {
        counts[tile * uniforms.numKeys + firstKey + key] = keyCounts[key];
      }
    }
  }`;

export function countTiles(
  backend: WebGPUBackend,
  {topkIds, expertMap, mapUse, sizes, ranks}: SortInputs,
): {keys: TensorInfo; counts: TensorInfo; numTiles: number; tileSize: number} {
  const {numAssignments, numExperts, numLocalExperts} = sizes;
  const numKeys = numKeysOf(numExperts, mapUse);
  const {tileSize, numTiles} = tilesOf(numAssignments, numKeys);
  const keys = newTensor(backend, [numAssignments], 'int32');
  const counts = newTensor(backend, [numTiles * numKeys], 'int32');
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
    uniforms: {numAssignments, numExperts, numLocalExperts, numKeys, tileSize},
    constants: {...CONSTANTS, CHUNK: chunkSizeOf(tileSize, numKeys)},
    numWorkgroups: numTiles,
    code: () => countTilesWgsl(mapUse),
  });
  return {keys, counts, numTiles, tileSize};
}
