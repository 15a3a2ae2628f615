/** What the launches of the sort on WebGPU have in common: what they are given, and WGSL of keys and labels. */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {Labels, MapUse, SortPlan} from './plan';
import type {StorageBinding} from '../shared/webgpu';

export type SortInputs = SortPlan & {
  topkIds: TensorInfo;
  expertMap?: TensorInfo;
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
   * int32 [(numLocalKeys+1) * 4]: a record of each key of a local expert, in order, and a last one for the rows past
   * those in use. With blocks of 4 rows, for three experts that have 3, 0 and 2 assignments:
   *
   *   key                                      0   1   2   3
   *   x  its first row                         0   4   4   8, the number of rows in use
   *   y  the row past its last assignment's    3   4   6
   *   z  first row less first sorted position  0   1   1
   *   w  the label of its rows                 0   1   2   the label of rows past those in use
   */
  experts: TensorInfo;
  /** Uniforms of the last launch. */
  numKeys: number;
  numLocalKeys: number;
  tileSize: number;
};

/** The buffer of the map, for a launch that reads it. */
export function mapBuffer(expertMap: TensorInfo | undefined, isRead: boolean): StorageBinding[] {
  return expertMap != null && isRead ? [{name: 'expertMap', type: 'i32', access: 'read', tensor: expertMap}] : [];
}

const SORT_KEY_IS_ID = /* wgsl */ `
  fn sortKeyOf(id : i32) -> u32 {
    if (id < 0 || id >= i32(uniforms.numExperts)) { return uniforms.numExperts; }
    return u32(id);
  }`;

/** WGSL: sortKeyOf(id), the sort key of an assignment. The last key is that of an id that is no expert. */
export const SORT_KEY_OF: Record<MapUse, string> = {
  local: /* wgsl */ `
  fn sortKeyOf(id : i32) -> u32 {
    if (id < 0 || id >= i32(uniforms.numExperts)) { return 2 * uniforms.numExperts; }
    let local = expertMap[id];
    if (local >= 0 && local < i32(uniforms.numLocalExperts)) { return u32(local); }
    return uniforms.numExperts + u32(id);
  }`,
  merge: /* wgsl */ `
  fn sortKeyOf(id : i32) -> u32 {
    if (id < 0 || id >= i32(uniforms.numExperts)) { return uniforms.numExperts; }
    let expert = expertMap[id];
    if (expert < 0 || expert >= i32(uniforms.numExperts)) { return uniforms.numExperts; }
    return u32(expert);
  }`,
  none: SORT_KEY_IS_ID,
  label: SORT_KEY_IS_ID,
};

/** The uniforms that LABELS reads. */
export function labelUniforms({experts, tail, fill}: Labels): Record<string, number> {
  return {hasOwnLabels: Number(experts === 'own'), hasTailOfExpertZero: Number(tail === 'expertZero'), fillLabel: fill};
}

const labels = (nameOf: string): string => /* wgsl */ `
  ${nameOf}
  fn labelOf(expert : u32) -> i32 {
    if (uniforms.hasOwnLabels == 1) { return nameOf(expert); }
    return bitcast<i32>(uniforms.fillLabel);
  }
  fn tailLabel() -> i32 {
    if (uniforms.hasTailOfExpertZero == 1) { return labelOf(0); }
    return bitcast<i32>(uniforms.fillLabel);
  }`;
const LABELS_BY_INDEX = labels('fn nameOf(expert : u32) -> i32 { return i32(expert); }');
const LABELS_BY_MAP = labels('fn nameOf(expert : u32) -> i32 { return expertMap[expert]; }');

/** WGSL: labelOf(expert) and tailLabel(). */
export const LABELS: Record<MapUse, string> = {
  none: LABELS_BY_INDEX,
  local: LABELS_BY_INDEX,
  merge: LABELS_BY_INDEX,
  label: LABELS_BY_MAP,
};
