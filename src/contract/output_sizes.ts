/**
 * Output sizes of the kernels, part of the contract in kernel_names.ts. They are functions of shapes and attributes
 * alone, so that ops can check and kernels can allocate without reading anything back.
 */
import type {MoeAlignBlockSizeAttrs, MoePermuteAttrs} from './kernel_names';

/** The smallest multiple of `blockSize` that is not below `count`. */
export function roundUp(count: number, blockSize: number): number {
  return Math.ceil(count / blockSize) * blockSize;
}

/**
 * min(N + E*(B-1), N*B): enough rows for any routing when each expert's share is padded to a multiple of B. The second
 * bound is for few assignments, which have at most a block each.
 */
export function paddedRowsBound(numAssignments: number, numExperts: number, blockSize: number): number {
  return numAssignments + Math.min(numAssignments, numExperts) * (blockSize - 1);
}

/** N, S and G of MoeAlignBlockSize. */
export function alignSizes(
  topkIdsShape: number[],
  {blockSize, numExperts, padSortedIds}: Omit<MoeAlignBlockSizeAttrs, 'ignoreInvalidExperts'>,
): {numAssignments: number; numSortedIds: number; numBlocks: number} {
  const numAssignments = topkIdsShape[0] * topkIdsShape[1];
  const bound = paddedRowsBound(numAssignments, numExperts, blockSize);
  return {
    numAssignments,
    numSortedIds: padSortedIds ? roundUp(bound, blockSize) : bound,
    numBlocks: Math.ceil(bound / blockSize),
  };
}

/** N and R of MoePermute. */
export function permuteSizes(
  topkIdsShape: number[],
  {numExperts, alignBlockSize}: Pick<MoePermuteAttrs, 'numExperts' | 'alignBlockSize'>,
): {numAssignments: number; numRows: number} {
  const numAssignments = topkIdsShape[0] * topkIdsShape[1];
  const numRows =
    alignBlockSize === 0
      ? numAssignments
      : roundUp(paddedRowsBound(numAssignments, numExperts, alignBlockSize), alignBlockSize);
  return {numAssignments, numRows};
}
