/** What the GPU backends share of the sort of assignments by key: plain TypeScript, no shader code. */

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

/** The label of each expert's rows, its own index or name or `fill`; and that of rows past the last expert's. */
export type Labels = {experts: 'own' | 'fill'; tail: 'expertZero' | 'fill'; fill: number};
