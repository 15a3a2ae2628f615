/** moePermute beside compositions of core ops that return the same three tensors. */
import * as tf from '../src/tf';
import type {Benchmark} from './harness';

export const moePermuteBenchmark: Benchmark = {
  // At least: every token row read once, every permuted row written once.
  numBytes: ({T, H, K}) => (T + T * K) * H * 4,

  contenders: ({T, H, K, E}, numRuns) => {
    const N = T * K;
    const x = tf.randomUniform<tf.Rank.R2>([T, H], -1, 1, 'float32', 1);
    const topkIds = tf.topk(tf.randomUniform([T, E], 0, 1, 'float32', 2), K).indices as tf.Tensor2D;
    const flatIds = tf.reshape(topkIds, [N]) as tf.Tensor1D;
    const slowRuns = Math.min(numRuns, 5);

    const assignments = () => tf.range(0, N, 1, 'int32');
    // Ascending keys are a stable sort: by expert, then by assignment.
    const sortKeys = () => tf.add<tf.Tensor1D>(tf.mul(flatIds, tf.scalar(N, 'int32')), assignments());
    const invert = (index: tf.Tensor1D) => tf.scatterND(column(index), assignments(), [N]) as tf.Tensor1D;
    const tokenOf = (assignment: tf.Tensor1D) => tf.floorDiv<tf.Tensor1D>(assignment, tf.scalar(K, 'int32'));
    const tokens = tokenOf(tf.moePermute(x, topkIds, E).permutedIdx);
    // One-hot columns end to end: the sum before an assignment's 1 is its row, before a column its offset.
    const countRows = () => {
      const keys = sortKeys();
      const oneHot = tf.scatterND(column(keys), tf.onesLike(keys), [E * N]);
      const before = tf.cumsum(oneHot, 0, true);
      const first = tf.reshape(tf.slice(tf.reshape(before, [E, N]), [0, 0], [E, 1]), [E]);
      const inverse = tf.gather(before, keys) as tf.Tensor1D;
      return {inverse, offset: tf.concat([first, tf.tensor1d([N], 'int32')])};
    };

    const op = () => {
      const permuted = tf.moePermute(x, topkIds, E);
      return [permuted.permutedHiddenStates, permuted.expertFirstTokenOffset, permuted.invPermutedIdx];
    };
    // The two that come to mind first …
    const argsortByTopk = () => {
      const sorted = tf.topk(tf.neg(sortKeys()), N).indices as tf.Tensor1D;
      const ends = tf.cast(tf.cumsum(tf.bincount(flatIds, [], E)), 'int32');
      return [tf.gather(x, tokenOf(sorted)), tf.concat([tf.tensor1d([0], 'int32'), ends]), invert(sorted)];
    };
    const oneHotAndCumsum = () => {
      const oneHot = tf.oneHot(flatIds, E, 1, 0, 'int32');
      const before = tf.cumsum(oneHot, 0, true);
      const ends = tf.cumsum(tf.sum(oneHot, 0));
      const offset = tf.concat([tf.tensor1d([0], 'int32'), ends]);
      const rowsInExperts = tf.add(before, tf.slice(offset, 0, E));
      const inverse = tf.sum(tf.mul(oneHot, rowsInExperts), 1) as tf.Tensor1D;
      return [tf.gather(x, tokenOf(invert(inverse))), offset, inverse];
    };
    // … and the fastest that we found.
    const cumsumAndScatter = () => {
      const {inverse, offset} = countRows();
      const repeated = tf.reshape(tf.concat(Array<tf.Tensor2D>(K).fill(x), 1), [N, H]);
      return [tf.scatterND(column(inverse), repeated, [N, H]), offset, inverse];
    };
    const cumsumAndSegments = () => {
      const {inverse, offset} = countRows();
      return [tf.sparse.sparseSegmentSum(x, tokenOf(invert(inverse)), assignments()), offset, inverse];
    };
    return [
      {name: 'moePermute', kind: 'op', numRuns, run: op},
      {name: 'argsort by topk, gather', kind: 'plain', numRuns: slowRuns, run: argsortByTopk},
      {name: 'oneHot, cumsum, gather', kind: 'plain', numRuns: slowRuns, run: oneHotAndCumsum},
      {name: 'cumsum, concat, scatterND', kind: 'tuned', numRuns: slowRuns, run: cumsumAndScatter},
      {name: 'cumsum, sparseSegmentSum', kind: 'tuned', numRuns: slowRuns, run: cumsumAndSegments},
      {name: 'gather of the rows alone', kind: 'part', numRuns: slowRuns, run: () => [tf.gather(x, tokens)]},
    ];
  },
};

const column = (index: tf.Tensor1D) => tf.reshape(index, [-1, 1]) as tf.Tensor2D;
