import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectFloats, expectWithin} from '../support/expect';
import {lcg} from '../support/routings';

describeWithFlags('moeSum', ALL_ENVS, () => {
  for (const [numTokens, topk, hiddenSize] of [
    [0, 2, 3], [1, 1, 1], [1, 9, 7], [33, 2, 13], [5, 6, 128], [222, 3, 5], [65_600, 2, 1],
  ]) {
    it(`sums [${numTokens}, ${topk}, ${hiddenSize}] within the numerics`, async () => {
      const next = lcg(topk);
      const x = Float32Array.from({length: numTokens * topk * hiddenSize}, () => next() * 4 - 2);
      const sums = new Array<number>(numTokens * hiddenSize).fill(0);
      const magnitudes = sums.slice();
      x.forEach((value, i) => {
        const to = Math.floor(i / (topk * hiddenSize)) * hiddenSize + (i % hiddenSize);
        sums[to] += value;
        magnitudes[to] += Math.abs(value);
      });
      const out = tf.moeSum(tf.tensor3d(x, [numTokens, topk, hiddenSize]));
      expect(out.shape).toEqual([numTokens, hiddenSize]);
      await expectWithin(out, sums, (i) => (topk + 1) * 2 ** -24 * magnitudes[i], 'out');
    });
  }

  it('sums in slot order', async () => {
    await expectFloats(tf.moeSum([[[2 ** 25], [1], [-(2 ** 25)], [1]]]), [1], 'out');
  });

  it('lets NaN and infinities through', async () => {
    await expectFloats(tf.moeSum([[[NaN, Infinity, 1], [1, 1, -Infinity]]]), [NaN, Infinity, -Infinity], 'out');
  });

  it('assigns out, and is chained', async () => {
    const out = tf.variable(tf.zeros<tf.Rank.R2>([1, 2]));
    tf.tensor3d([[[1, 2], [3, 4]]]).moeSum({out});
    await expectFloats(out, [4, 6], 'out');
  });
});
