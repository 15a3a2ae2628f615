/** moePermute beside compositions of core ops that return the same three tensors. */
import * as tf from '../src/tf';
import {randomIds, smallIntegers} from './inputs';
import type {Benchmark} from './harness';

type Counted = {inverse: tf.Tensor1D; offset: tf.Tensor};

/** The row of each assignment: those of lower experts, and those of its own that come before it. */
function countRows(oneHot: tf.Tensor, before: tf.Tensor, numExperts: number): Counted {
  const offset = tf.concat([tf.tensor1d([0], 'int32'), tf.cumsum(tf.sum(oneHot, 0))]);
  const inverse = tf.sum(tf.mul(oneHot, tf.add(before, tf.slice(offset, 0, numExperts))), 1) as tf.Tensor1D;
  return {inverse, offset};
}

const BLOCK = 128;

/** tf.cumsum(x, 0, true) in blocks of 128 rows: by a product with a triangle of ones, then over the blocks. */
function blockedCumsum(x: tf.Tensor2D, triangle: tf.Tensor, ones: tf.Tensor): tf.Tensor {
  const [numRows, numColumns] = x.shape;
  const numBlocks = Math.ceil(numRows / BLOCK);
  const padded = tf.pad(tf.cast(x, 'float32'), [
    [0, numBlocks * BLOCK - numRows],
    [0, 0],
  ]);
  const blocks = tf.reshape(padded, [numBlocks, BLOCK, numColumns]);
  const sumsOfBlocks = tf.reshape(tf.matMul(ones, blocks), [numBlocks, numColumns]);
  const blocksBefore = tf.expandDims(tf.cumsum(sumsOfBlocks, 0, true), 1);
  const sums = tf.add(tf.matMul(triangle, blocks), blocksBefore);
  return tf.cast(tf.slice(tf.reshape(sums, [numBlocks * BLOCK, numColumns]), 0, numRows), 'int32');
}

/**
 * The indices alone, of rows of one column, beside compositions of core ops that stay on the GPU and give the offsets
 * and the inverse index, but not permutedIdx.
 */
export const moePermuteIndicesBenchmark: Benchmark = {
  // At least: every id read once; permutedIdx, invPermutedIdx and mIndices written once.
  numBytes: ({T, K}) => 4 * T * K * 4,

  contenders: ({T, K, E}) => {
    const x = tf.zeros<tf.Rank.R2>([T, 1]);
    const topkIds = randomIds(T, K, E);
    const flatIds = tf.reshape(topkIds, [T * K]) as tf.Tensor1D;
    const oneHotOfIds = () => tf.oneHot(flatIds, E, 1, 0, 'int32') as tf.Tensor2D;
    const ones = tf.ones([1, 1, BLOCK]);
    const belowDiagonal = tf.tidy(() => {
      const square = tf.ones([BLOCK, BLOCK]);
      return tf.expandDims(tf.sub(square, tf.linalg.bandPart(square, 0, -1)), 0);
    });
    const indices = (cumsum: (oneHot: tf.Tensor2D) => tf.Tensor) => () => {
      const oneHot = oneHotOfIds();
      const {inverse, offset} = countRows(oneHot, cumsum(oneHot), E);
      return [offset, inverse];
    };
    return [
      {
        name: 'moePermute of one column',
        kind: 'op',
        run: () => {
          const {expertFirstTokenOffset, invPermutedIdx} = tf.moePermute(x, topkIds, E);
          return [expertFirstTokenOffset, invPermutedIdx];
        },
      },
      {name: 'oneHot, cumsum', kind: 'plain', run: indices((oneHot) => tf.cumsum(oneHot, 0, true))},
      {
        name: 'oneHot, cumsum by matMul',
        kind: 'tuned',
        run: indices((oneHot) => blockedCumsum(oneHot, belowDiagonal, ones)),
      },
    ];
  },
};

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
    const oneHotOfIds = () => tf.oneHot(flatIds, E, 1, 0, 'int32');
    const counted = () => {
      const oneHot = oneHotOfIds();
      return countRows(oneHot, tf.cumsum(oneHot, 0, true), E);
    };

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
      const {inverse, offset} = counted();
      return [tf.gather(x, tokenOf(invert(inverse))), offset, inverse];
    };
    // … and the fastest that we found for the cpu backend.
    const cumsumAndScatter = () => {
      const {inverse, offset} = counted();
      const repeated = tf.reshape(tf.concat(Array<tf.Tensor2D>(K).fill(x), 1), [N, H]);
      return [tf.scatterND(column(inverse), repeated, [N, H]), offset, inverse];
    };
    const cumsumAndSegments = () => {
      const {inverse, offset} = counted();
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
