/**
 * Launch 2 of the sort of many assignments, one workgroup: each count becomes the sorted position of the first
 * assignment that it counted. A thread sums one key's counts in some of the tiles, a part, and the sums are scanned.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {repeat} from '../shared/repeat';
import {newTensor, runWgsl, type StorageBinding, WORKGROUP_SIZE} from '../shared/webgpu';
import {type MapUse, numKeysOf} from './plan';
import {LABELS, labelUniforms, mapBuffer, type SortInputs} from './webgpu_launch';
import {EXCLUSIVE_SCAN} from './webgpu_scan';

/** Counts that a thread reads at once: one wait instead of as many. Text is repeated over them, for the same reason. */
const COUNTS_AT_ONCE = 8;
/** Keys that are scanned at once. */
const KEYS_AT_ONCE = 256;
/** Threads of the workgroup, on a device that has as many. */
const LARGE_WORKGROUP_SIZE = 1024;

/** What `rowCounts` gets: the first row of each local expert, and after the last the number of rows in use. */
const WRITE_OFFSETS = /* wgsl */ `
  fn writeOffset(expert : u32, row : u32) { rowCounts[expert] = row; }
  fn writeTotal(total : u32) { rowCounts[uniforms.numLocalExperts] = total; }`;
/** The same where the op wants no offsets: the number of rows in use alone. */
const WRITE_TOTAL = /* wgsl */ `
  fn writeOffset(expert : u32, row : u32) {}
  fn writeTotal(total : u32) { rowCounts[0] = total; }`;

const scanTilesWgsl = (mapUse: MapUse, hasOffsets: boolean): string => /* wgsl */ `
  alias Scanned = vec2<u32>;
  ${EXCLUSIVE_SCAN}
  ${LABELS[mapUse]}
  ${hasOffsets ? WRITE_OFFSETS : WRITE_TOTAL}
  // For each part and key: its count, then the sorted position of its first assignment.
  var<workgroup> parts : array<u32, NUM_THREADS>;

  fn countOf(key : u32, tile : u32, endTile : u32) -> u32 {
    return select(0, counts[min(tile, endTile - 1) * uniforms.numKeys + key], tile < endTile);
  }
  // The assignments of a key in COUNTS_AT_ONCE tiles, or in fewer if endTile comes before.
  fn sumOf(key : u32, tile : u32, endTile : u32) -> u32 {
    ${repeat(COUNTS_AT_ONCE, (u) => `let count${u} = countOf(key, tile + ${u}, endTile);`)}
    return ${repeat(COUNTS_AT_ONCE, (u) => `count${u}`, ' + ')};
  }
  // The counts of a key in the same tiles become positions, from the given one on. Returns the position after them.
  fn placeTiles(key : u32, tile : u32, endTile : u32, position : u32) -> u32 {
    var next = position;
    ${repeat(COUNTS_AT_ONCE, (u) => `let count${u} = countOf(key, tile + ${u}, endTile);`)}
    ${repeat(
      COUNTS_AT_ONCE,
      (u) => /* wgsl */ `
    if (tile + ${u} < endTile) { counts[(tile + ${u}) * uniforms.numKeys + key] = next; }
    next += count${u};`,
    )}
    return next;
  }

  @compute @workgroup_size(NUM_THREADS)
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
        for (var tile = firstTile; tile < endTile; tile += COUNTS_AT_ONCE) { sum += sumOf(key, tile, endTile); }
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
        writeOffset(key, row);
      }
      if (isKey && key == uniforms.numLocalExperts) {
        experts[key] = vec4<i32>(i32(row), 0, 0, tailLabel());
        writeTotal(row);
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
        for (var tile = firstTile; tile < endTile; tile += COUNTS_AT_ONCE) {
          position = placeTiles(key, tile, endTile, position);
        }
      }
      workgroupBarrier();
    }
  }`;

export function scanTiles(
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
    {name: 'rowCounts', type: 'u32', access: 'read_write', tensor: hasOffsets ? rowCounts.offsets : rowCounts.total},
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
    constants: {NUM_THREADS: workgroupSize, COUNTS_AT_ONCE},
    numWorkgroups: 1,
    code: () => scanTilesWgsl(mapUse, hasOffsets),
  });
  return experts;
}
