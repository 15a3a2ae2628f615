/** The ranks from which a layer's capacity is computed, against a naive count. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {MoeRankRows} from '../../src/contract/kernel_names';
import {runMoeKernel} from '../../src/contract/run_kernel';
import * as tf from '../../src/tf';
import {rankInExpert} from '../../src/ops/rank_in_expert';
import {expectInts} from '../support/expect';
import {distinctIds, lcg} from '../support/routings';
import {idsTensor} from '../support/tensors';

function naiveRanks(ids: number[][], weights: number[][]): number[][] {
  return ids.map((row, t) => row.map((id, k) =>
    ids.flatMap((otherRow, otherT) => otherRow.filter((other, otherK) => {
      const [weight, otherWeight] = [weights[t][k], weights[otherT][otherK]];
      return other === id && (otherWeight > weight || (otherWeight === weight && otherT < t));
    })).length));
}

describeWithFlags('rankInExpert', ALL_ENVS, () => {
  const cases: Array<[numTokens: number, topk: number, numExperts: number]> =
    [[0, 2, 3], [1, 1, 1], [3, 3, 3], [70, 2, 60], [90, 1, 1], [40, 8, 257]];
  for (const [numTokens, topk, numExperts] of cases) {
    it(`counts earlier assignments: T = ${numTokens}, K = ${topk}, E = ${numExperts}`, async () => {
      const next = lcg(numTokens + 1);
      const ids = distinctIds(numTokens, numExperts, topk, 5);
      for (const numValues of [1, 3, 1000]) {
        const weights = ids.map((row) => row.map(() => Math.floor(next() * numValues) / numValues));
        const given = [idsTensor(ids, topk), tf.tensor2d(weights.flat(), [numTokens, topk])] as const;
        await expectInts(rankInExpert(...given, numExperts), naiveRanks(ids, weights), `${numValues} values`);
        const alike = weights.map((row) => row.map(() => 1));
        await expectInts(rankInExpert(given[0], undefined, numExperts), naiveRanks(ids, alike), 'without weights');
      }
    });
  }

  it('counts no assignment of no expert', async () => {
    const ids = [[0, -1], [2, 0], [-1, 3], [0, 1]];
    const weights = [[0.5, 1], [1, 0.75], [1, 1], [0.25, 1]];
    const ranks = (await rankInExpert(idsTensor(ids, 2), tf.tensor2d(weights), 3).array()) as number[][];
    expect([ranks[0][0], ranks[1][0], ranks[1][1], ranks[3][0], ranks[3][1]]).toEqual([1, 0, 0, 2, 0]);
  });

  it('lets a gradient pass the kernel, which adds nothing to it', async () => {
    const offset = tf.tensor1d([0, 2, 3], 'int32');
    const f = (values: tf.Tensor) => {
      const {ranks} = runMoeKernel(MoeRankRows, {values, expertFirstTokenOffset: offset}, {});
      return tf.add(tf.sum(values), tf.sum(tf.cast(ranks, 'float32')));
    };
    expect(await tf.grad(f)(tf.tensor1d([1, 2, 3])).array()).toEqual([1, 1, 1]);
  });
});
