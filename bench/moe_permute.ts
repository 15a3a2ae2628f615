/** moePermute beside compositions of core ops that return the same three tensors. */
import * as tf from '../src/tf';
import {randomIds, smallIntegers} from './inputs';
import type {Benchmark} from './harness';

export const moePermuteBenchmark: Benchmark = {
  // At least: every token row read once, every permuted row written once.
  numBytes: ({T, H, K}) => (T + T * K) * H * 4,

  contenders: ({T, H, K, E}, isOnGpu) => {
    const N = T * K;
    const x = smallIntegers(T, H);
    const topkIds = randomIds(T, K, E);
    const flatIds = tf.reshape(topkIds, [N]) as tf.Tensor1D;

    const assignments = () => tf.range(0, N, 1, 'int32');
    const invert = (index: tf.Tensor1D) => tf.scatterND(column(index), assignments(), [N]) as tf.Tensor1D;
    const tokenOf = (assignment: tf.Tensor1D) => tf.floorDiv<tf.Tensor1D>(assignment, tf.scalar(K, 'int32'));
    const tokens = tokenOf(tf.moePermute(x, topkIds, E).permutedIdx);
    // The row of each assignment: those of lower experts, and those of its own that come before it.
    const countRows = (oneHot: tf.Tensor) => {
      const before = tf.cumsum(oneHot, 0, true);
      const offset = tf.concat([tf.tensor1d([0], 'int32'), tf.cumsum(tf.sum(oneHot, 0))]);
      const inverse = tf.sum(tf.mul(oneHot, tf.add(before, tf.slice(offset, 0, E))), 1) as tf.Tensor1D;
      return {inverse, offset};
    };
    const oneHotOfIds = () => tf.oneHot(flatIds, E, 1, 0, 'int32');

    const op = () => {
      const permuted = tf.moePermute(x, topkIds, E);
      return [permuted.permutedHiddenStates, permuted.expertFirstTokenOffset, permuted.invPermutedIdx];
    };
    // The two that come to mind first …
    const argsortByTopk = () => {
      // Ascending keys are a stable sort: by expert, then by assignment.
      const keys = tf.add<tf.Tensor1D>(tf.mul(flatIds, tf.scalar(N, 'int32')), assignments());
      const sorted = tf.topk(tf.neg(keys), N).indices as tf.Tensor1D;
      const ends = tf.cumsum(tf.sum(oneHotOfIds(), 0));
      return [tf.gather(x, tokenOf(sorted)), tf.concat([tf.tensor1d([0], 'int32'), ends]), invert(sorted)];
    };
    const oneHotAndCumsum = () => {
      const {inverse, offset} = countRows(oneHotOfIds());
      return [tf.gather(x, tokenOf(invert(inverse))), offset, inverse];
    };
    // … and the fastest that we found for the cpu backend.
    const cumsumAndScatter = () => {
      const {inverse, offset} = countRows(oneHotOfIds());
      const repeated = tf.reshape(tf.concat(Array<tf.Tensor2D>(K).fill(x), 1), [N, H]);
      return [tf.scatterND(column(inverse), repeated, [N, H]), offset, inverse];
    };
    const cumsumAndSegments = () => {
      const {inverse, offset} = countRows(oneHotOfIds());
      return [tf.sparse.sparseSegmentSum(x, tokenOf(invert(inverse)), assignments()), offset, inverse];
    };
    return [
      {name: 'moePermute', kind: 'op', run: op},
      {name: 'oneHot, cumsum, gather', kind: 'plain', run: oneHotAndCumsum},
      // On GPU backends, topk of this many values reads back, and the others have no kernel or take minutes.
      ...(isOnGpu
        ? []
        : [
            {name: 'argsort by topk, gather', kind: 'plain' as const, run: argsortByTopk},
            {name: 'cumsum, concat, scatterND', kind: 'tuned' as const, run: cumsumAndScatter},
            {name: 'cumsum, sparseSegmentSum', kind: 'tuned' as const, run: cumsumAndSegments},
          ]),
      {name: 'gather of the rows alone', kind: 'part', run: () => [tf.gather(x, tokens)]},
    ];
  },
};

const column = (index: tf.Tensor1D) => tf.reshape(index, [-1, 1]) as tf.Tensor2D;
