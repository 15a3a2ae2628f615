/** Values of the contract that no recorded case covers: bad ids, merged and partial maps, repeats, no tokens. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectFloats, expectInts} from '../support/expect';
import {countingRows, countingRowsOf} from '../support/tensors';

const badIds = [[2, -1], [0, 4], [2, -2147483648]];
const expertMap = [-1, -1, 0, 1];
const plainIds = [[0, 1], [3, 2], [1, 0]];
const repeat = (value: number, count: number) => new Array<number>(count).fill(value);

type Wanted = {
  offsets: number[];
  inv: number[];
  permutedIdx?: number[];
  rows?: number[];
  scale?: number[];
  mIndices?: number[];
};

async function expectPermute(ids: number[][], numExperts: number, options: tf.MoePermuteOptions, wanted: Wanted) {
  const result = tf.moePermute(countingRows(ids.length, 2), ids, numExperts, {
    a1qScale: ids.map((_, t) => [t]),
    fillInvalidExpert: 77,
    ...options,
  });
  await expectInts(result.expertFirstTokenOffset, wanted.offsets, 'offsets');
  await expectInts(result.invPermutedIdx, wanted.inv, 'inv');
  if (wanted.permutedIdx) {
    await expectInts(result.permutedIdx, wanted.permutedIdx, 'permutedIdx');
  }
  if (wanted.rows) {
    await expectFloats(result.permutedHiddenStates, countingRowsOf(wanted.rows, 2), 'rows');
  }
  if (wanted.scale) {
    await expectFloats(result.a1qScale!, wanted.scale, 'a1qScale');
  }
  await expectInts(result.mIndices, wanted.mIndices ?? repeat(77, result.mIndices.size), 'mIndices');
}

async function expectAlign(
  result: tf.MoeAlignBlockSizeResult,
  wanted: {sorted: number[]; expertIds: number[]; post: number},
): Promise<void> {
  await expectInts(result.sortedTokenIds, wanted.sorted, 'sortedTokenIds');
  await expectInts(result.expertIds, wanted.expertIds, 'expertIds');
  await expectInts(result.numTokensPostPad, [wanted.post], 'numTokensPostPad');
}

describeWithFlags('edge values', ALL_ENVS, () => {
  it('moePermute with bad ids', () =>
    expectPermute(badIds, 4, {}, {
      offsets: [0, 1, 1, 3, 3],
      inv: [1, 3, 0, 4, 2, 5],
      permutedIdx: [2, 0, 4, 6, 6, 6],
      rows: [1, 0, 2, -1, -1, -1],
      scale: [1, 0, 2, 2, 2, 2],
    }));

  it('… aligned to 2', () =>
    expectPermute(badIds, 4, {alignBlockSize: 2}, {
      offsets: [0, 2, 2, 4, 4],
      inv: [2, 4, 0, 4, 3, 4],
      permutedIdx: [2, 6, 0, 4, ...repeat(6, 6)],
      rows: [1, -1, 0, 2, ...repeat(-1, 6)],
      mIndices: [0, 0, 2, 2, ...repeat(77, 6)],
    }));

  it('… with a map', () =>
    expectPermute(badIds, 4, {expertMap, numLocalExperts: 2}, {
      offsets: [0, 2, 2],
      inv: [0, 3, 2, 4, 1, 5],
      rows: [0, 2, -1, -1, -1, -1],
    }));

  it('… with a map, aligned to 2', () =>
    expectPermute(badIds, 4, {expertMap, numLocalExperts: 2, alignBlockSize: 2}, {
      offsets: [0, 2, 2],
      inv: [0, 2, 2, 2, 1, 2],
      rows: [0, 2, ...repeat(-1, 8)],
      mIndices: [0, 0, ...repeat(77, 8)],
    }));

  it('a map without numLocalExperts', () =>
    expectPermute([[2, 0], [0, 1], [2, 1]], 4, {expertMap}, {offsets: [0, 2, 2, 2, 2], inv: [0, 2, 3, 4, 1, 5]}));

  it('a map with nothing local', async () => {
    const map = {expertMap: repeat(-1, 4), numLocalExperts: 2};
    await expectPermute(plainIds, 4, map, {offsets: [0, 0, 0], inv: [0, 2, 5, 4, 3, 1], rows: repeat(-1, 6)});
    await expectPermute(plainIds, 4, {...map, alignBlockSize: 2}, {
      offsets: [0, 0, 0],
      inv: repeat(0, 6),
      rows: repeat(-1, 10),
    });
  });

  it('a map that merges experts', async () => {
    const map = {expertMap: [0, 0, 1, 1], numLocalExperts: 2};
    await expectPermute(plainIds, 4, map, {offsets: [0, 4, 6], inv: [0, 1, 4, 5, 2, 3]});
    await expectPermute(plainIds, 4, {...map, alignBlockSize: 4}, {
      offsets: [0, 4, 8],
      inv: [0, 1, 4, 5, 2, 3],
      mIndices: [...repeat(0, 4), ...repeat(1, 4), ...repeat(77, 12)],
    });
  });

  it('a map with entries past numLocalExperts', () =>
    expectPermute(plainIds, 4, {expertMap: [0, 1, -1, 0], numLocalExperts: 1}, {
      offsets: [0, 3],
      inv: [0, 3, 1, 5, 4, 2],
    }));

  it('repeated experts of one token', () =>
    expectPermute([[1, 1], [0, 1]], 2, {}, {offsets: [0, 1, 4], inv: [1, 2, 0, 3], rows: [1, 0, 0, 1]}));

  it('no tokens, aligned to 4', async () => {
    const result = tf.moePermute(tf.zeros([0, 3]), tf.zeros([0, 2], 'int32'), 2, {
      alignBlockSize: 4,
      fillInvalidExpert: 77,
      a1qScale: tf.zeros([0, 5]),
    });
    expect(result.invPermutedIdx.shape).toEqual([0]);
    await expectInts(result.expertFirstTokenOffset, [0, 0, 0], 'offsets');
    expect(result.permutedHiddenStates.shape).toEqual([0, 3]);
    expect(result.a1qScale!.shape).toEqual([0, 5]);
    await expectInts(result.permutedIdx, [], 'permutedIdx');
    await expectInts(result.mIndices, [], 'mIndices');
  });

  it('few assignments among many experts take at most a block each', async () => {
    const permuted = tf.moePermute(tf.ones([1, 3]), [[5, 200, 5]], 256, {alignBlockSize: 4, fillInvalidExpert: 77});
    expect(permuted.permutedHiddenStates.shape).toEqual([12, 3]);
    await expectInts(permuted.permutedIdx, [0, 2, 3, 3, 1, ...repeat(3, 7)], 'permutedIdx');
    await expectInts(permuted.mIndices, [...repeat(5, 4), ...repeat(200, 4), ...repeat(77, 4)], 'mIndices');
    await expectAlign(tf.moeAlignBlockSize([[5, 200, 5]], 4, 256, {padSortedIds: true}), {
      sorted: [0, 2, 3, 3, 1, ...repeat(3, 7)],
      expertIds: [5, 200, 0],
      post: 8,
    });
    const blocks = tf.moePermuteBlockAligned(tf.ones([1, 3]), [[5, 200, 5]], 256, 4);
    await expectInts(blocks.sortedTokenIds, [0, 2, 2, 2, 1, ...repeat(2, 7)], 'sortedTokenIds');
  });

  it('moeAlignBlockSize with bad ids', async () => {
    const sorted = [2, 6, 0, 4, ...repeat(6, 6)];
    await expectAlign(tf.moeAlignBlockSize(badIds, 2, 4), {sorted, expertIds: [0, 2, 0, 0, 0], post: 4});
    await expectAlign(tf.moeAlignBlockSize(badIds, 2, 4, {expertMap}), {
      sorted,
      expertIds: [-1, 0, -1, -1, -1],
      post: 4,
    });
    await expectAlign(tf.moeAlignBlockSize(badIds, 2, 4, {ignoreInvalidExperts: true}), {
      sorted,
      expertIds: [0, 2, -1, -1, -1],
      post: 4,
    });
    await expectAlign(tf.moeAlignBlockSize(badIds, 2, 4, {expertMap, ignoreInvalidExperts: true}), {
      sorted: [0, 4, ...repeat(6, 8)],
      expertIds: [0, -1, -1, -1, -1],
      post: 2,
    });
    await expectAlign(tf.moeAlignBlockSize(badIds, 3, 4, {padSortedIds: true}), {
      sorted: [2, 6, 6, 0, 4, ...repeat(6, 10)],
      expertIds: [0, 2, 0, 0, 0],
      post: 6,
    });
  });

  it('moeAlignBlockSize with a merging map', () =>
    expectAlign(tf.moeAlignBlockSize(plainIds, 2, 4, {expertMap: [0, 0, 1, 1], ignoreInvalidExperts: true}), {
      sorted: [0, 1, 4, 5, 2, 3, 6, 6, 6, 6],
      expertIds: [0, 0, 1, -1, -1],
      post: 6,
    }));

  it('moeAlignBlockSize without tokens', async () => {
    const none = tf.zeros<tf.Rank.R2>([0, 2], 'int32');
    await expectAlign(tf.moeAlignBlockSize(none, 4, 2), {sorted: [], expertIds: [], post: 0});
    await expectAlign(tf.moeAlignBlockSize(none, 1, 2), {sorted: [], expertIds: [], post: 0});
  });

  it('moePermuteBlockAligned with bad ids', async () => {
    for (const [map, expertIds] of [
      [null, [0, 0, 2, 2, ...repeat(0, 6)]],
      [expertMap, [-1, -1, 0, 0, ...repeat(-1, 6)]],
    ] as const) {
      const result = tf.moePermuteBlockAligned(countingRows(3, 2), badIds, 4, 2, {expertMap: map as number[] | null});
      await expectInts(result.sortedTokenIds, [2, 5, 0, 4, ...repeat(5, 6)], 'sortedTokenIds');
      await expectInts(result.expertIds, expertIds, 'expertIds');
      await expectInts(result.invPermutedIdx, [2, 10, 0, 10, 3, 10], 'invPermutedIdx');
      await expectFloats(result.permutedHiddenStates, countingRowsOf([1, 2, 0, 2, ...repeat(2, 6)], 2), 'rows');
    }
  });
});
