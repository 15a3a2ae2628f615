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
   * int32 [(numLocalKeys+1) * 4]: of each key of a local expert, in order, first row, row past its last, first row less
   * sorted position, label; and after the last the number of rows in use, and the label of the rows past them.
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

/** WGSL: the sort key of an assignment; the last key is that of an id that is no expert. */
export function sortKeyOf(mapUse: MapUse): string {
  const isExpert = 'id >= 0 && id < i32(uniforms.numExperts)';
  if (mapUse === 'local') {
    return `
      fn sortKeyOf(id : i32) -> u32 {
        if (!(${isExpert})) { return 2 * uniforms.numExperts; }
        let local = expertMap[id];
        if (local >= 0 && local < i32(uniforms.numLocalExperts)) { return u32(local); }
        return uniforms.numExperts + u32(id);
      }`;
  }
  if (mapUse === 'merge') {
    return `
      fn sortKeyOf(id : i32) -> u32 {
        if (!(${isExpert})) { return uniforms.numExperts; }
        let expert = expertMap[id];
        if (expert >= 0 && expert < i32(uniforms.numExperts)) { return u32(expert); }
        return uniforms.numExperts;
      }`;
  }
  return `
    fn sortKeyOf(id : i32) -> u32 {
      if (${isExpert}) { return u32(id); }
      return uniforms.numExperts;
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
