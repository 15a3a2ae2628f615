/** The worked examples of vLLM's semantics: three tokens, ids [[2,0],[0,1],[2,1]], four experts. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectFloats, expectInts, expectWithin} from '../support/expect';
import {countingRows, countingRowsOf} from '../support/tensors';

const ids = [[2, 0], [0, 1], [2, 1]];
const expertMap = [-1, -1, 0, 1];
const nothing = (count: number) => new Array<number>(count).fill(-1);
const repeat = (value: number, count: number) => new Array<number>(count).fill(value);

async function expectRows(result: tf.MoePermuteResult, tokens: number[]): Promise<void> {
  await expectFloats(result.permutedHiddenStates, countingRowsOf(tokens, 2), 'rows');
}

describeWithFlags('worked examples', ALL_ENVS, () => {
  let hiddenStates: tf.Tensor2D;
  beforeEach(() => {
    hiddenStates = countingRows(3, 2);
  });

  it('A: plain', async () => {
    const result = tf.moePermute(hiddenStates, ids, 4);
    await expectInts(result.expertFirstTokenOffset, [0, 2, 4, 6, 6], 'offsets');
    await expectInts(result.permutedIdx, [1, 2, 3, 5, 0, 4], 'permutedIdx');
    await expectRows(result, [0, 1, 1, 2, 0, 2]);
    await expectInts(result.invPermutedIdx, [4, 0, 1, 2, 5, 3], 'inv');
    await expectInts(result.mIndices, repeat(-1, 6), 'mIndices');
  });

  it('B: aligned, with a scale', async () => {
    const a1qScale = [[0.5], [1.5], [2.5]];
    const result = tf.moePermute(hiddenStates, ids, 4, {alignBlockSize: 4, fillInvalidExpert: 0, a1qScale});
    await expectInts(result.expertFirstTokenOffset, [0, 4, 8, 12, 12], 'offsets');
    await expectRows(result, [0, 1, -1, -1, 1, 2, -1, -1, 0, 2, ...nothing(10)]);
    await expectInts(result.invPermutedIdx, [8, 0, 1, 4, 9, 5], 'inv');
    await expectInts(result.mIndices, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, ...repeat(0, 8)], 'mIndices');
    await expectFloats(
      result.a1qScale!,
      [0.5, 1.5, 2.5, 2.5, 1.5, 2.5, 2.5, 2.5, 0.5, ...repeat(2.5, 11)],
      'a1qScale',
    );
  });

  it('C: experts 2 and 3 local', async () => {
    const result = tf.moePermute(hiddenStates, ids, 4, {expertMap, numLocalExperts: 2});
    await expectInts(result.expertFirstTokenOffset, [0, 2, 2], 'offsets');
    await expectInts(result.permutedIdx, [0, 4, 6, 6, 6, 6], 'permutedIdx');
    await expectRows(result, [0, 2, ...nothing(4)]);
    await expectInts(result.invPermutedIdx, [0, 2, 3, 4, 1, 5], 'inv');
  });

  it('D: C aligned', async () => {
    const result = tf.moePermute(hiddenStates, ids, 4, {expertMap, numLocalExperts: 2, alignBlockSize: 4});
    await expectInts(result.expertFirstTokenOffset, [0, 4, 4], 'offsets');
    await expectInts(result.invPermutedIdx, [0, 4, 4, 4, 1, 4], 'inv');
    await expectRows(result, [0, 2, ...nothing(18)]);
    await expectInts(result.mIndices, [0, 0, 0, 0, ...repeat(-1, 16)], 'mIndices');
  });

  it('D2: every other expert local', async () => {
    const result = tf.moePermute(hiddenStates, ids, 4, {expertMap: [-1, 0, -1, 1], numLocalExperts: 2});
    await expectInts(result.expertFirstTokenOffset, [0, 2, 2], 'offsets');
    await expectInts(result.invPermutedIdx, [4, 2, 3, 0, 5, 1], 'inv');
  });

  it('E: unpermute of C does not read the rows of no assignment', async () => {
    const {invPermutedIdx, expertFirstTokenOffset} = tf.moePermute(hiddenStates, ids, 4, {expertMap, numLocalExperts: 2});
    const h = [[0, 1, 2], [10, 11, 12], [20, 21, 22]];
    const rows = tf.tensor2d([h[0], h[2], ...[1, 2, 3, 4].map(() => repeat(NaN, 3))], [6, 3]);
    const weights = [[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]];
    const out = tf.moeUnpermute(rows, weights, invPermutedIdx, expertFirstTokenOffset);
    await expectFloats(out, [[0, 0.75, 1.5], [0, 0, 0], [5, 5.25, 5.5]], 'out');
  });

  it('F: within the numerics of a fused or a separate rounding; on the host fused', async () => {
    const float = (bits: number) => new Float32Array(Uint32Array.of(bits).buffer)[0];
    const rows = tf.tensor2d([[float(0x3f23f2bd)], [float(0x3dd6d5df)]]);
    const weights = tf.tensor2d([[float(0x3f230fec), float(0x3e8a217c)]]);
    const out = tf.moeUnpermute(rows, weights, [0, 1]);
    const fused = float(0x3edf58ed);
    await expectWithin(out, [fused], () => 3 * 2 ** -24 * fused, 'out');
    if (['cpu', 'wasm'].includes(tf.getBackend())) {
      await expectFloats(out, [fused], 'out');
    }
  });

  it('H: align, with a map, padded', async () => {
    const sorted = [1, 2, 6, 6, 3, 5, 6, 6, 0, 4, 6, 6, ...repeat(6, 6)];
    const plain = tf.moeAlignBlockSize(ids, 4, 4);
    await expectInts(plain.sortedTokenIds, sorted, 'sorted');
    await expectInts(plain.expertIds, [0, 1, 2, 0, 0], 'expertIds');
    await expectInts(plain.numTokensPostPad, [12], 'post');
    await expectInts(tf.moeAlignBlockSize(ids, 4, 4, {expertMap}).expertIds, [-1, -1, 0, -1, -1], 'mapped');
    await expectInts(tf.moeAlignBlockSize(ids, 4, 4, {padSortedIds: true}).sortedTokenIds, [...sorted, 6, 6], 'padded');
  });

  it('H2: 36 assignments to one expert, ascending', async () => {
    const result = tf.moeAlignBlockSize(tf.zeros([36, 1], 'int32'), 16, 2);
    const ascending = Array.from({length: 36}, (_, i) => i);
    await expectInts(result.sortedTokenIds, [...ascending, ...repeat(36, 30)], 'sorted');
  });

  it('H3: the docstring ids with five experts', async () => {
    const result = tf.moeAlignBlockSize([[2, 3, 4], [1, 2, 4], [1, 3, 4], [1, 2, 3]], 4, 5);
    const sorted = [3, 6, 9, 12, 0, 4, 10, 12, 1, 7, 11, 12, 2, 5, 8, 12];
    await expectInts(result.sortedTokenIds, [...sorted, ...repeat(12, 11)], 'sorted');
    await expectInts(result.expertIds, [1, 2, 3, 4, 0, 0, 0], 'expertIds');
    await expectInts(result.numTokensPostPad, [16], 'post');
  });

  it('I: block aligned', async () => {
    const result = tf.moePermuteBlockAligned(hiddenStates, ids, 4, 4, {expertMap});
    await expectInts(result.sortedTokenIds, [1, 2, 5, 5, 3, 5, 5, 5, 0, 4, 5, 5, ...repeat(5, 8)], 'sorted');
    await expectInts(result.expertIds, [...repeat(-1, 8), 0, 0, 0, 0, ...repeat(-1, 8)], 'expertIds');
    await expectInts(result.invPermutedIdx, [8, 0, 1, 4, 9, 5], 'inv');
    const tokens = [0, 1, 2, 2, 1, 2, 2, 2, 0, 2, 2, 2, ...repeat(2, 8)];
    await expectFloats(result.permutedHiddenStates, countingRowsOf(tokens, 2), 'rows');
  });

  it('J: ids that are no experts come last and are not counted', async () => {
    const past = tf.moePermute(hiddenStates, [[0, 4], [1, 4], [4, 4]], 4);
    await expectInts(past.expertFirstTokenOffset, [0, 1, 2, 2, 2], 'offsets');
    await expectInts(past.invPermutedIdx, [0, 2, 1, 3, 4, 5], 'inv');
    const negative = tf.moePermute(hiddenStates, [[0, -1], [1, -1], [2, 3]], 4);
    await expectInts(negative.invPermutedIdx, [0, 4, 1, 5, 2, 3], 'inv');
    await expectInts(negative.expertFirstTokenOffset, [0, 1, 2, 3, 4], 'offsets');
  });
});
