/** The sort of assignments by key, as far as both GPU backends have it in common: no shader code. */

export type SortSizes = {
  numAssignments: number;
  numExperts: number;
  /** L: keys below it are local experts, and only these get rows. */
  numLocalExperts: number;
  /** B, 0 for no alignment. */
  blockSize: number;
};

/**
 * How a map of experts is used.
 *   'local'  its entries are the local experts; all other experts sort after them, by global id
 *   'merge'  its entries are the experts; an expert without an entry is dropped
 *   'label'  it only names experts
 */
export type MapUse = 'none' | 'local' | 'merge' | 'label';

export function numKeysOf(numExperts: number, mapUse: MapUse): number {
  return mapUse === 'local' ? 2 * numExperts + 1 : numExperts + 1;
}

/** The label of each expert's rows, its own index or name or `fill`; and that of rows past the last expert's. */
export type Labels = {experts: 'own' | 'fill'; tail: 'expertZero' | 'fill'; fill: number};

/** What an op asks of the sort. */
export type SortPlan = {sizes: SortSizes; mapUse: MapUse; labels: Labels};
