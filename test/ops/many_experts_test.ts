/**
 * The largest number of experts that ops accept, and few tokens: time and memory grow with the number of experts,
 * moderately.
 */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {MAX_EXPERTS} from '../../src/arguments/checks';
import {expectFloats, expectInts} from '../support/expect';

const last = MAX_EXPERTS - 1;
const ids = [[last, 5], [0, last]];
const x = [[1], [2]];

/** The last value of an int32 tensor of one axis. */
const lastOf = (tensor: tf.Tensor1D) => tf.slice(tensor, tensor.size - 1, 1);

describeWithFlags('as many experts as there may be', ALL_ENVS, () => {
  it('moePermute', async () => {
    const result = tf.moePermute(x, ids, MAX_EXPERTS);
    await expectFloats(result.permutedHiddenStates, [2, 1, 1, 2], 'rows');
    await expectInts(result.invPermutedIdx, [2, 1, 0, 3], 'inv');
    await expectInts(result.permutedIdx, [2, 1, 0, 3], 'permutedIdx');
    expect(result.expertFirstTokenOffset.shape).toEqual([MAX_EXPERTS + 1]);
    await expectInts(lastOf(result.expertFirstTokenOffset), [4], 'number of rows');
  });

  it('moePermute of a shard, aligned', async () => {
    const {expertMap} = tf.moeExpertMap(MAX_EXPERTS, 2, 1);
    const result = tf.moePermute(x, ids, MAX_EXPERTS, {expertMap, numLocalExperts: MAX_EXPERTS / 2, alignBlockSize: 2});
    await expectFloats(result.permutedHiddenStates, [1, 2, 0, 0, 0, 0, 0, 0], 'rows');
    await expectInts(result.invPermutedIdx, [0, 2, 2, 1], 'inv');
    await expectInts(result.mIndices, [last - MAX_EXPERTS / 2, last - MAX_EXPERTS / 2, -1, -1, -1, -1, -1, -1], 'mIndices');
  });

  it('moePermuteBlockAligned', async () => {
    const result = tf.moePermuteBlockAligned(x, ids, MAX_EXPERTS, 2);
    await expectInts(result.sortedTokenIds, [2, 3, 1, 3, 0, 3, 3, 3], 'sortedTokenIds');
    await expectInts(result.expertIds, [0, 0, 5, 5, last, last, 0, 0], 'expertIds');
  });

  it('moeAlignBlockSize', async () => {
    const result = tf.moeAlignBlockSize(ids, 2, MAX_EXPERTS);
    await expectInts(result.sortedTokenIds, [2, 4, 1, 4, 0, 3, 4, 4], 'sortedTokenIds');
    await expectInts(result.expertIds, [0, 5, last, 0], 'expertIds');
    await expectInts(result.numTokensPostPad, [6], 'numTokensPostPad');
  });
});
