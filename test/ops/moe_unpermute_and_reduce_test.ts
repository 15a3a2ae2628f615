import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as fc from 'fast-check';
import * as tf from '../../src/tf';
import {expectFloats} from '../support/expect';
import {anyRouting, lcg} from '../support/routings';
import {countingRows, idsTensor} from '../support/tensors';

describeWithFlags('moeUnpermuteAndReduce', ALL_ENVS, () => {
  it('reverses moePermuteBlockAligned for any routing', async () => {
    await fc.assert(
      fc.asyncProperty(anyRouting, fc.boolean(), async ({sizes, ids}, applyRouterWeightOnInput) => {
        const {topk, numExperts, hiddenSize, blockSize} = sizes;
        const next = lcg(3);
        const weights = ids.map((tokenIds) => tokenIds.map(() => Math.floor(next() * 5)));
        const permuted = tf.moePermuteBlockAligned(
          countingRows(ids.length, hiddenSize), idsTensor(ids, topk), numExperts, blockSize);
        const out = tf.moeUnpermuteAndReduce(
          permuted.permutedHiddenStates,
          tf.tensor2d(weights.flat(), [ids.length, topk]),
          permuted.invPermutedIdx,
          {applyRouterWeightOnInput},
        );
        const wanted = ids.flatMap((tokenIds, t) => {
          const factor = tokenIds.reduce((sum, id, k) => {
            const here = id >= 0 && id < numExperts;
            return sum + (here ? (applyRouterWeightOnInput ? 1 : weights[t][k]) : 0);
          }, 0);
          return Array.from({length: hiddenSize}, (_, h) => factor * (t * hiddenSize + h));
        });
        await expectFloats(out, wanted, 'out');
        tf.dispose([permuted, out]);
      }),
      {numRuns: 40},
    );
  });

  it('takes rows in assignment order without an inverse, flat or [T, K, H]', async () => {
    const rows = tf.tensor2d([[1, 2], [3, 4], [5, 6], [7, 8]]);
    const weights = [[10, 1], [0, 2]];
    const wanted = [13, 24, 14, 16];
    await expectFloats(tf.moeUnpermuteAndReduce(rows, weights), wanted, '[T*K, H]');
    await expectFloats(tf.moeUnpermuteAndReduce(tf.reshape(rows, [2, 2, 2]), weights), wanted, '[T, K, H]');
    const summed = tf.moeUnpermuteAndReduce(rows, weights, null, {applyRouterWeightOnInput: true});
    await expectFloats(summed, [4, 6, 12, 14], 'applied');
    await expectFloats(rows, [1, 2, 3, 4, 5, 6, 7, 8], 'the input is not written');
  });

  it('skips an index outside the rows', async () => {
    await expectFloats(tf.moeUnpermuteAndReduce([[5], [7]], [[1, 1, 1]], [1, 2, -1]), [7], 'out');
  });

  it('assigns out', async () => {
    const out = tf.variable(tf.zeros<tf.Rank.R2>([1, 1]));
    tf.moeUnpermuteAndReduce([[5], [7]], [[1, 2]], null, {out});
    await expectFloats(out, [19], 'out');
    tf.moeUnpermuteAndReduce([[5], [7]], [[1, 2]], {invPermutedIdx: [1, 0], out});
    await expectFloats(out, [17], 'out');
    tf.moeUnpermuteAndReduce([[5], [7]], [[1, 2]], {applyRouterWeightOnInput: true, out});
    await expectFloats(out, [12], 'out');
  });
});
