/**
 * MoeAlignBlockSize on the host: a stable counting sort of the N assignments into blocks of B.
 *
 * sortedTokenIds: expert by expert in ascending order, each expert's assignments ascending, then N up to
 *   the next multiple of B; N again after the last block.
 * expertIds[b]: the label of block b. Time O(N + E + S).
 */
import {MoeAlignBlockSize} from '../../contract/kernel_names';
import {alignSizes, roundUp} from '../../contract/output_sizes';
import {hostKernel} from '../shared/host_kernel';

export const moeAlignBlockSizeCpu = hostKernel(MoeAlignBlockSize, ({topkIds, expertMap}, attrs) => {
  const {blockSize, numExperts, ignoreInvalidExperts} = attrs;
  const {numAssignments, numSortedIds, numBlocks} = alignSizes(topkIds.shape, attrs);
  const map = expertMap?.values;
  const mapIds = ignoreInvalidExperts && map != null;

  // bucketOf[id]: the sorting bucket of a valid id, outside 0..E-1 where it is dropped.
  const bucketOf = new Int32Array(numExperts);
  for (let id = 0; id < numExperts; id++) {
    bucketOf[id] = mapIds ? map[id] : id;
  }

  const counts = new Int32Array(numExperts);
  for (let i = 0; i < numAssignments; i++) {
    const id = topkIds.values[i];
    if (id < 0 || id >= numExperts) {
      continue;
    }
    const bucket = bucketOf[id];
    if (bucket >= 0 && bucket < numExperts) {
      counts[bucket]++;
    }
  }

  const labelOf = (bucket: number) => (map != null && !ignoreInvalidExperts ? map[bucket] : bucket);
  const expertIds = new Int32Array(numBlocks).fill(ignoreInvalidExperts ? -1 : labelOf(0));
  const nextRow = new Int32Array(numExperts);
  let numTokensPostPad = 0;
  for (let bucket = 0; bucket < numExperts; bucket++) {
    nextRow[bucket] = numTokensPostPad;
    const end = numTokensPostPad + roundUp(counts[bucket], blockSize);
    expertIds.fill(labelOf(bucket), numTokensPostPad / blockSize, end / blockSize);
    numTokensPostPad = end;
  }

  const sortedTokenIds = new Int32Array(numSortedIds).fill(numAssignments);
  for (let i = 0; i < numAssignments; i++) {
    const id = topkIds.values[i];
    if (id < 0 || id >= numExperts) {
      continue;
    }
    const bucket = bucketOf[id];
    if (bucket >= 0 && bucket < numExperts) {
      sortedTokenIds[nextRow[bucket]++] = i;
    }
  }

  return {
    sortedTokenIds: {values: sortedTokenIds, shape: [numSortedIds]},
    expertIds: {values: expertIds, shape: [numBlocks]},
    numTokensPostPad: {values: Int32Array.of(numTokensPostPad), shape: [1]},
  };
});
