/** moeAlignBlockSize beside the counts alone, the first step of any composition of core ops. */
import {alignSizes} from '../src/contract/output_sizes';
import * as tf from '../src/tf';
import {randomIds} from './inputs';
import type {Benchmark} from './harness';
import {BLOCK_SIZE} from './shapes';

export const moeAlignBlockSizeBenchmark: Benchmark = {
  // At least: every id read once, every sorted id and label written once.
  numBytes: ({T, K, E}) => {
    const sizes = {blockSize: BLOCK_SIZE, numExperts: E, padSortedIds: false};
    const {numAssignments, numSortedIds, numBlocks} = alignSizes([T, K], sizes);
    return 4 * (numAssignments + numSortedIds + numBlocks);
  },

  contenders: ({T, K, E}) => {
    const topkIds = randomIds(T, K, E);
    const flatIds = tf.reshape(topkIds, [T * K]) as tf.Tensor1D;
    return [
      {
        name: 'moeAlignBlockSize',
        kind: 'op',
        run: () => Object.values(tf.moeAlignBlockSize(topkIds, BLOCK_SIZE, E)),
      },
      {
        name: 'oneHot, cumsum: ranks alone',
        kind: 'part',
        run: () => [tf.cumsum(tf.oneHot(flatIds, E, 1, 0, 'int32'), 0, true)],
      },
    ];
  },
};
