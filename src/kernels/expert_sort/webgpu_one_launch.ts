/**
 * The sort inside the one launch of an op, for few assignments and few keys. Each workgroup counts the keys of all
 * assignments in its own memory, and ranks its own assignments, which are consecutive.
 */
import {WORKGROUP_SIZE} from '../shared/webgpu';
import {numKeysOf, type SortPlan} from './plan';
import {EXCLUSIVE_SCAN} from './webgpu_scan';

/** Up to here, counting all keys in every workgroup takes less time than two more launches. */
const ONE_LAUNCH_ASSIGNMENTS = 8192;

/** Own assignments of a workgroup: all pairs of them are compared. */
export const RANKED_AT_ONCE = 32;

/**
 * Sizes of the key arrays. Small ones leave room for more workgroups at a time; 768 keys of 12 bytes, and what a launch
 * needs besides, fit the 16 KiB of workgroup memory of every device.
 */
const KEY_ARRAY_SIZES = [64, 192, 768];

/**
 * The constants of COUNT_KEYS, for workgroups that rank RANKED_AT_ONCE assignments, or `numTogether` if that is more.
 * undefined where one launch cannot sort, or takes longer than three.
 */
export function oneLaunchConstants(
  {sizes, mapUse}: SortPlan,
  numTogether: number,
): {NUM_THREADS: number; KEYS: number; MAX_OWN: number} | undefined {
  const numKeys = numKeysOf(sizes.numExperts, mapUse);
  const KEYS = KEY_ARRAY_SIZES.find((size) => numKeys <= size);
  if (KEYS == null || sizes.numAssignments > ONE_LAUNCH_ASSIGNMENTS || numTogether > WORKGROUP_SIZE) {
    return undefined;
  }
  return {NUM_THREADS: WORKGROUP_SIZE, KEYS, MAX_OWN: numTogether > RANKED_AT_ONCE ? WORKGROUP_SIZE : RANKED_AT_ONCE};
}

/**
 * WGSL: countKeys(thread, first, end), where the workgroup's own assignments are first to end - 1, at most MAX_OWN. It
 * counts keys and fills
 *
 *   keyRows[key]   the first row of each key: of a local expert as in `experts`, of the others in sorted order
 *   keyCounts[key] its assignments in all
 *   ranks[a]       of own assignment a, its rank among all assignments of its key
 *   ownKeys[a]     its key
 *
 * Every thread of the workgroup must call it. The fewer own assignments, the faster it is.
 */
export const COUNT_KEYS = /* wgsl */ `
  alias Scanned = u32;
  ${EXCLUSIVE_SCAN}
  // Up to so many own assignments, a thread compares its own with those before.
  const FEW_OWN = 8u;
  var<workgroup> keyCounts : array<atomic<u32>, KEYS>;
  var<workgroup> countsBefore : array<atomic<u32>, KEYS>;
  var<workgroup> keyRows : array<u32, KEYS>;
  var<workgroup> ownKeys : array<u32, MAX_OWN>;
  var<workgroup> ranks : array<atomic<u32>, MAX_OWN>;

  fn countKeys(thread : u32, first : u32, end : u32) {
    // WGSL gives workgroup memory as zeros. Reads go out four at a time: one wait instead of four.
    for (var base = thread; base < uniforms.numAssignments; base += 4 * NUM_THREADS) {
      let last = uniforms.numAssignments - 1;
      let ids = vec4<i32>(
        topkIds[base],
        topkIds[min(base + NUM_THREADS, last)],
        topkIds[min(base + 2 * NUM_THREADS, last)],
        topkIds[min(base + 3 * NUM_THREADS, last)]);
      for (var u = 0u; u < 4; u++) {
        let i = base + u * NUM_THREADS;
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
      if (numOwn <= FEW_OWN) {
        for (var a = 0u; a < thread; a++) { rank += u32(ownKeys[a] == ownKeys[thread]); }
      }
      atomicStore(&ranks[thread], rank);
    }
    // Many assignments are compared in pairs, all at once. It takes one more barrier, and no thread loops over them.
    if (numOwn > FEW_OWN) {
      workgroupBarrier();
      for (var pair = thread; pair < numOwn * numOwn; pair += NUM_THREADS) {
        let a = pair / numOwn;
        let b = pair % numOwn;
        if (b < a && ownKeys[a] == ownKeys[b]) { atomicAdd(&ranks[a], 1); }
      }
    }
    var carry = 0u;
    for (var firstKey = 0u; firstKey < uniforms.numKeys; firstKey += NUM_THREADS) {
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
  }`;
