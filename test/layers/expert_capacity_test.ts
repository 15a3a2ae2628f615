/** Capacity, against a naive count. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {dropOverCapacity, expertCapacity} from '../../src/layers/expert_capacity';
import {expectInts, expectWithin} from '../support/expect';
import {layerOf, randomTensor, valueOf, weightsOf} from '../support/layers';
import {distinctIds, lcg} from '../support/routings';

type Policy = 'probability' | 'position';

/** Tokens in the order in which their expert takes them. */
function naiveKept(ids: number[][], weights: number[][], numExperts: number, capacity: number, policy: Policy): number[][] {
  const kept = ids.map((row) => row.map(() => -1));
  for (let e = 0; e < numExperts; e++) {
    const slots = ids.flatMap((row, t) => row.flatMap((id, k) => (id === e ? [{t, k, weight: weights[t][k]}] : [])));
    const ordered = policy === 'position' ? slots : slots.sort((a, b) => b.weight - a.weight || a.t - b.t);
    ordered.slice(0, capacity).forEach(({t, k}) => (kept[t][k] = e));
  }
  return kept;
}

describeWithFlags('capacity of mixtureOfExperts', ALL_ENVS, () => {
  const [numTokens, numExperts] = [24, 6];
  const next = lcg(3);
  const ids = distinctIds(numTokens, numExperts, 3, 2).map((row, t) => (t % 5 === 1 ? [-1, -1, -1] : row));
  // Few different values, so that some are equal, and a full expert of equal values.
  const weights = ids.map((row) => row.map((id) => (id === 2 ? 0.5 : Math.floor(next() * 4) / 4)));
  for (const policy of ['probability', 'position'] as const) {
    it(`keeps what the naive loop keeps, by ${policy}`, async () => {
      for (const capacity of [1, 7, 23, 24]) {
        const kept = dropOverCapacity(tf.tensor2d(ids, undefined, 'int32'), tf.tensor2d(weights), capacity, {numExperts, numZeroExperts: 0, dropPolicy: policy});
        await expectInts(kept, naiveKept(ids, weights, numExperts, capacity, policy), `capacity ${capacity}`);
      }
    });
  }

  it('distinguishes weights of all sizes, to their last bit', async () => {
    const magnitudes = [0, 2 ** -120, 1e-30, 2 ** -24, 0.1, 0.5, 1, 2.5, 2 ** 40];
    const bits = new Int32Array(Float32Array.from({length: 60}, (_, t) => magnitudes[t % magnitudes.length]).buffer);
    // Neighbours, and powers of 2 from below.
    const shuffled = bits.map((word) => Math.max(0, word + Math.floor(next() * 5) - 2));
    const widely = Array.from(new Float32Array(shuffled.buffer), (weight) => [weight < 2 ** -126 ? 0 : weight]);
    const oneExpert = widely.map(() => [0]);
    for (const capacity of [1, 13, 30, 59]) {
      const kept = dropOverCapacity(tf.tensor2d(oneExpert, [60, 1], 'int32'), tf.tensor2d(widely), capacity, {numExperts: 1, numZeroExperts: 0, dropPolicy: 'probability'});
      await expectInts(kept, naiveKept(oneExpert, widely, 1, capacity, 'probability'), `capacity ${capacity}`);
    }
  });

  it('is a share of all assignments, rounded up', () => {
    expect(expertCapacity(24, 2, 8, 1)).toBe(6);
    expect(expertCapacity(24, 2, 8, 1.1)).toBe(7);
    expect(expertCapacity(1, 1, 8, 0.5)).toBe(1);
    expect(expertCapacity(100, 1, 10, 1.1)).toBe(11);
  });

  it('holds for a layer of one expert', async () => {
    for (const dropPolicy of ['probability', 'position'] as const) {
      const layer = layerOf({numExperts: 1, topk: 1, intermediateSize: 3, capacityFactor: 0.5, dropPolicy}, 5);
      layer.apply(randomTensor([6, 5], 9), {training: true});
      await expectInts(layer.expertLoad(), [3], dropPolicy);
    }
  });

  it('drops in training only, and kept assignments keep their weights', async () => {
    const layer = layerOf({numExperts: 4, intermediateSize: 3, capacityFactor: 0.5, dropPolicy: 'position'}, 5);
    const input = randomTensor([2, 3, 5], 9);
    const {router_kernel: router, w1, w2} = weightsOf(layer);
    const x: tf.Tensor2D = input.reshape([6, 5]);
    const {topkIds, topkWeights} = tf.moeTopk(tf.matMul<tf.Tensor2D>(x, router as tf.Tensor2D), 2);
    const [chosen, weightsOfChosen] = await Promise.all([topkIds.array(), topkWeights.array()]);
    const kept = naiveKept(chosen, weightsOfChosen, 4, 2, 'position');
    const numKept = kept.flat().filter((id) => id >= 0).length;
    expect(numKept).toBeLessThan(12);

    const wanted = tf.fusedExperts(x, w1, w2, topkWeights, tf.tensor2d(kept, [6, 2], 'int32'));
    const output = layer.apply(input, {training: true}) as tf.Tensor;
    await expectWithin(output, (await wanted.data()) as Float32Array, () => 1e-5, 'output');
    const load = [0, 1, 2, 3].map((e) => kept.flat().filter((id) => id === e).length);
    await expectInts(layer.expertLoad(), load, 'load');
    expect(await valueOf(layer.droppedShare())).toBeCloseTo(1 - numKept / 12, 6);
    layer.apply(input);
    expect(await valueOf(tf.sum(layer.expertLoad()))).toBe(12);
    expect(await valueOf(layer.droppedShare())).toBe(0);
  });
});
