import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectInts} from '../support/expect';

describeWithFlags('moeExpertMap', ALL_ENVS, () => {
  for (const strategy of ['linear', 'roundRobin'] as const) {
    it(`${strategy}: each expert is in one shard, in ascending order`, async () => {
      for (const [numExperts, numShards] of [[1, 1], [8, 1], [8, 4], [7, 3], [60, 16], [5, 5]]) {
        const owners = new Array<number>(numExperts).fill(0);
        for (let shard = 0; shard < numShards; shard++) {
          const {numLocalExperts, expertMap} = tf.moeExpertMap(numExperts, numShards, shard, strategy);
          const share = Math.floor(numExperts / numShards) + (shard < numExperts % numShards ? 1 : 0);
          expect(numLocalExperts).toBe(share);
          expect(expertMap.dtype).toBe('int32');
          const map = Array.from(await expertMap.data());
          map.forEach((local, expert) => (owners[expert] += local >= 0 ? 1 : 0));
          expect(map.filter((local) => local >= 0)).toEqual(Array.from({length: share}, (_, i) => i));
          expect(map.filter((local) => local < 0).every((local) => local === -1)).toBeTrue();
        }
        expect(owners).toEqual(new Array<number>(numExperts).fill(1));
      }
    });
  }

  it('is linear unless told otherwise', async () => {
    await expectInts(tf.moeExpertMap(7, 3, 1).expertMap, [-1, -1, -1, 0, 1, -1, -1], 'linear');
    await expectInts(tf.moeExpertMap(7, 3, 1, 'roundRobin').expertMap, [-1, 0, -1, -1, 1, -1, -1], 'roundRobin');
  });

  it('makes shards whose merged results sum to the whole', async () => {
    const x = tf.tensor2d([[1], [2], [3]]);
    const ids = [[0, 4], [2, 3], [1, 0]];
    const weights = [[1, 10], [100, 1000], [10000, 100000]];
    const merge = (options?: tf.MoePermuteOptions) => {
      const {permutedHiddenStates, invPermutedIdx, expertFirstTokenOffset} = tf.moePermute(x, ids, 5, options);
      return tf.moeUnpermute(permutedHiddenStates, weights, invPermutedIdx, expertFirstTokenOffset);
    };
    const shards = [0, 1, 2].map((shard) => merge(tf.moeExpertMap(5, 3, shard)));
    expect(Array.from(await tf.addN(shards).data())).toEqual(Array.from(await merge().data()));
  });
});
