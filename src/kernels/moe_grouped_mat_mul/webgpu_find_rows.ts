/**
 * Which rows a workgroup of MoeGroupedMatMul has. No launch knows the offsets, so each workgroup finds its rows by a
 * binary search over the offsets.
 *
 * The boundaries of all segments are 0, the offsets, and R. Segment 0 is the rows before the first expert, segment
 * e + 1 the rows of expert e, and the last segment the rows past all experts. A launch has the segments of one part.
 *
 * A slot is the number of a workgroup without its columns. Each block of TILE_ROWS rows has a slot, and the blocks of
 * segment i begin at slot boundary(i) / TILE_ROWS + i. The floors leave room for the last block of a segment, which may
 * not be full. With blocks of 4, 10 rows, and the offsets 1, 6, 6, 9 of three experts:
 *
 *   segment           0    1      2    3      4
 *   rows              0    1..5   none 6..8   9
 *   first slot        0    1      3    4      6
 *   rows of slots     0    1..4 5 none 6..8 none   9
 *
 * A launch with fewer rows than such slots has a slot for each row instead; the slot of a block is its first row.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {Part} from '../../contract/expert_weights';
import {LAST_START_WGSL} from '../shared/last_start';

/** WGSL: findRows. Reads expertFirstTokenOffset, TILE_ROWS and the uniforms of findingUniforms. */
export const FIND_ROWS = /* wgsl */ `
  ${LAST_START_WGSL}
  struct Rows { first : u32, end : u32, segment : u32 }
  fn boundary(i : u32) -> u32 {
    if (i == 0) { return 0u; }
    if (i > uniforms.numExperts + 1) { return uniforms.numRows; }
    return u32(clamp(expertFirstTokenOffset[i - 1], 0, i32(uniforms.numRows)));
  }
  // The first slot of a segment of the part.
  fn startOf(i : u32) -> u32 {
    let first = boundary(uniforms.firstSegment + i);
    if (uniforms.rowIsSlot == 1) { return first; }
    return first / TILE_ROWS - boundary(uniforms.firstSegment) / TILE_ROWS + i;
  }
  // first >= end means no rows. Any other result is a range of existing rows, whatever the offsets are.
  fn findRows(slot : u32) -> Rows {
    let i = lastStart(slot, uniforms.numSegments);
    let segment = uniforms.firstSegment + i;
    let start = boundary(segment);
    let end = boundary(segment + 1);
    let place = slot - startOf(i);
    if (uniforms.rowIsSlot == 1) {
      let isBlock = slot >= start && place % TILE_ROWS == 0;
      return Rows(select(end, slot, isBlock), end, segment);
    }
    return Rows(start + place * TILE_ROWS, end, segment);
  }
`;

export function findingUniforms(
  numRows: number,
  {firstExpert, numExperts: numOfPart}: Part<TensorInfo>,
  numExperts: number,
  tileRows: number,
): {numSlots: number; uniforms: Record<string, number>} {
  // The rows before all experts are the first part's, and the rows past all experts the last part's.
  const firstSegment = firstExpert === 0 ? 0 : firstExpert + 1;
  const endSegment = firstExpert + numOfPart === numExperts ? numExperts + 2 : firstExpert + numOfPart + 1;
  const numSegments = endSegment - firstSegment;
  const numSlots = Math.floor(numRows / tileRows) + numSegments;
  const rowIsSlot = numRows < numSlots;
  return {
    numSlots: rowIsSlot ? numRows : numSlots,
    uniforms: {firstSegment, numSegments, rowIsSlot: rowIsSlot ? 1 : 0, firstExpert},
  };
}
