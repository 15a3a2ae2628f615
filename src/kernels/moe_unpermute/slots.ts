import type {HostArray} from '../shared/host_kernel';

/** The number of rows that slots may read, min(R, V): an index at or past it, or below 0, is skipped. */
export function numReadableRows(numRows: number, expertFirstTokenOffset: HostArray): number {
  return Math.min(numRows, expertFirstTokenOffset[expertFirstTokenOffset.length - 1]);
}
