/** Launch 2 of the sort of many assignments. */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {newTensor, runWgsl, type StorageBinding, WORKGROUP_SIZE} from '../shared/webgpu';
import {numKeysOf} from './plan';
import {labelFunctions, labelUniforms, mapBuffer, type SortInputs} from './webgpu_launch';
import {exclusiveScan} from './webgpu_scan';

/** Counts that a thread of the second launch reads at once: one wait instead of as many. */
const COUNTS_AT_ONCE = 8;
/** Keys that are scanned at once. */
const KEYS_AT_ONCE = 256;
/** Threads of its workgroup, on a device that has as many. */
const LARGE_WORKGROUP_SIZE = 1024;

/** Launch 2, one workgroup: a thread sums one key's counts in some of the tiles, and the sums are scanned. */
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
