/** The sort inside a launch of an op, for few assignments and few keys. */
import {WORKGROUP_SIZE} from '../shared/webgpu';
import {type MapUse, numKeysOf} from './plan';
import {exclusiveScan} from './webgpu_scan';

/** Up to here, counting all keys in every workgroup takes less time than two more launches. */
const ONE_LAUNCH_ASSIGNMENTS = 8192;
/** Assignments of a workgroup, unless one token has more: all pairs of them are compared. */
export const RANKED_AT_ONCE = 32;
/**
 * Sizes of the key arrays of a launch that sorts by itself. Small ones leave room for more workgroups at a time; 768
 * keys of 12 bytes, and what a launch needs besides, fit the 16 KiB of workgroup memory of every device.
 */
const ONE_LAUNCH_KEYS = [64, 192, 768];

/**
 * The constant KEYS of a launch that sorts by itself, each workgroup counting the keys of all assignments in its own
 * memory; undefined where that does not hold them, or takes longer than three launches.
 */
export function oneLaunchKeys(numAssignments: number, numExperts: number, mapUse: MapUse): number | undefined {
  if (numAssignments > ONE_LAUNCH_ASSIGNMENTS) {
    return undefined;
  }
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
          let key = sortKeyOf(ids[u]);
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
