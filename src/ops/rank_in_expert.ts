import {
  gather,
  maximum,
  type Rank,
  reshape,
  scalar,
  sub,
  type Tensor,
  type Tensor2D,
  zeros,
} from '@tensorflow/tfjs-core';
import {MoeRankRows} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {moePermute} from './moe_permute';

/**
 * int32 [T, K]: how many assignments of the same expert come before an assignment. Assignments with larger weights come
 * first; with equal weights, or without `topkWeights`, assignments of earlier tokens come first. The value is arbitrary
 * for an assignment of no expert.
 */
export function rankInExpert(topkIds: Tensor2D, topkWeights: Tensor2D | undefined, numExperts: number): Tensor2D {
  const ofOneColumn = (x: Tensor2D): Tensor2D => reshape(x, [topkIds.size, 1]);
  const rows = topkWeights == null ? zeros<Rank.R2>([topkIds.size, 1]) : ofOneColumn(topkWeights);
  const {permutedHiddenStates, invPermutedIdx, expertFirstTokenOffset} = moePermute(
    rows,
    ofOneColumn(topkIds),
    numExperts,
  );
  if (topkWeights == null) {
    const firstRow: Tensor = gather(expertFirstTokenOffset, maximum(topkIds, scalar(0, 'int32')));
    return sub(reshape(invPermutedIdx, topkIds.shape), firstRow);
  }
  const values = reshape(permutedHiddenStates, [topkIds.size]);
  const {ranks} = runMoeKernel(MoeRankRows, {values, expertFirstTokenOffset}, {});
  return reshape(gather(ranks, invPermutedIdx), topkIds.shape);
}
