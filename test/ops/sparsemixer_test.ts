/** The sparsemixer of Phi-3.5-MoE in moeTopk, against its definition. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as fc from 'fast-check';
import * as tf from '../../src/tf';
import {expectFloats, expectInts, expectWithin} from '../support/expect';
import {randomTensor} from '../support/layers';
import {lcg} from '../support/routings';
import {naiveGradient, naiveIds, type NaiveTopkOptions, naiveWeights} from '../naive/topk';

const scoring = 'sparsemixer';
const bound = (_: number, wanted: number) => 1e-5 * Math.abs(wanted) + 1e-6;

/** Random logits, of which many are near others and none is at the edge of being near. */
function logitsOf(numTokens: number, numExperts: number, seed: number): number[][] {
  const next = lcg(seed);
  const sizes = [1, 0.001, 30];
  return Array.from({length: numTokens}, (_, t) => {
    const shift = next() - 0.5;
    return Array.from({length: numExperts}, () => Math.fround(sizes[t % 3] * (shift + 0.25 * Math.round(8 * next() - 4) + 1e-3 * next())));
  });
}

async function expectRight(logits: number[][], given: Omit<NaiveTopkOptions, 'scoring'>): Promise<void> {
  const {topk, ...options} = given;
  const naive = {...given, scoring} as const;
  const rows = tf.tensor2d(logits);
  const dy = randomTensor([logits.length, topk], 5);
  const weightsOf = (x: tf.Tensor) => tf.moeTopk(x, topk, {...options, scoring}).topkWeights;
  const {topkIds, topkWeights} = tf.moeTopk(rows, topk, {...options, scoring});
  const gradient = tf.grad(weightsOf)(rows, dy);
  const ids = logits.map((row) => naiveIds(row, naive));
  const dys = (await dy.array()) as number[][];
  await expectInts(topkIds, ids.flat(), 'ids');
  await expectWithin(topkWeights, logits.flatMap((row, t) => naiveWeights(row, ids[t], naive)), bound, 'weights');
  const wanted = logits.flatMap((row, t) => naiveGradient(row, ids[t], dys[t], naive));
  await expectWithin(gradient, wanted, () => 1e-5, 'gradient');
}

describeWithFlags('sparsemixer', ALL_ENVS, (env) => {
  for (const [numTokens, numExperts, topk, options] of [
    [1, 1, 1, {}],
    [3, 16, 2, {}],
    [70, 7, 3, {sparsemixerJitter: 0.25, routedScalingFactor: 2.5}],
    [2, 5, 5, {sparsemixerJitter: 0}],
    [5, 130, 4, {sparsemixerJitter: 3}],
  ] as Array<[number, number, number, {sparsemixerJitter?: number; routedScalingFactor?: number}]>) {
    it(`is a softmax for each slot: T = ${numTokens}, E = ${numExperts}, K = ${topk}, ${JSON.stringify(options)}`, () =>
      expectRight(logitsOf(numTokens, numExperts, 7), {topk, ...options}));
  }

  it('is its definition for any sizes', () =>
    fc.assert(
      fc.asyncProperty(
        fc.integer({min: 1, max: 9}), fc.integer({min: 1, max: 9}), fc.integer({min: 1, max: 9}), fc.nat(), fc.constantFrom(0.01, 0.3),
        (numTokens, numExperts, topk, seed, sparsemixerJitter) =>
          expectRight(logitsOf(numTokens, numExperts, seed), {topk: Math.min(topk, numExperts), sparsemixerJitter}),
      ),
      {numRuns: env.backendName.startsWith('web') ? 5 : 50},
    ));

  it('gives ties to the lower id, and 0 to experts that are masked', async () => {
    const {topkIds, topkWeights} = tf.moeTopk([[1, 1, 1], [-Infinity, 2, -Infinity], [-Infinity, -Infinity, -Infinity], [0, 0, -1]], 3, {scoring});
    await expectInts(topkIds, [0, 1, 2, 1, 0, 2, 0, 1, 2, 0, 1, 2], 'ids');
    await expectWithin(topkWeights, [1 / 3, 1 / 2, 1, 1, 0, 0, 0, 0, 0, 1 / 2, 1, 1], bound, 'weights');
  });

  it('takes no tokens, and any rank', async () => {
    expect(tf.moeTopk(tf.zeros([0, 4]), 2, {scoring}).topkWeights.shape).toEqual([0, 2]);
    const logits = randomTensor([2, 3, 4], 1);
    const wanted = await tf.moeTopk(tf.reshape(logits, [6, 4]), 2, {scoring}).topkWeights.data();
    const before = tf.memory().numTensors;
    const {topkWeights} = tf.moeTopk(logits, 2, {scoring});
    expect(tf.memory().numTensors).toBe(before + 2);
    expect(topkWeights.shape).toEqual([2, 3, 2]);
    await expectFloats(topkWeights, Float32Array.from(wanted), 'weights');
  });

  it('has second gradients', async () => {
    const [numTokens, numExperts, topk] = [3, 6, 2];
    const logits = logitsOf(numTokens, numExperts, 3);
    const naive = {topk, scoring, sparsemixerJitter: 0.4} as const;
    const ids = logits.map((row) => naiveIds(row, naive));
    const dy = [[1, -2], [0.5, 1], [-1, 3]];
    const gradientOf = (x: tf.Tensor) =>
      tf.grad((y: tf.Tensor) => tf.moeTopk(y, topk, {scoring, sparsemixerJitter: 0.4}).topkWeights)(x, tf.tensor2d(dy));
    const second = tf.grad((x: tf.Tensor) => tf.sum(tf.square(gradientOf(x))))(tf.tensor2d(logits));
    const step = 1e-4;
    const wanted = logits.flatMap((row, t) => row.map((_, e) => {
      const lossAt = (shift: number) => {
        const moved = row.map((value, i) => value + (i === e ? shift : 0));
        return naiveGradient(moved, ids[t], dy[t], naive).reduce((total, value) => total + value * value, 0);
      };
      return (lossAt(step) - lossAt(-step)) / (2 * step);
    }));
    await expectWithin(second, wanted, (_, value) => 1e-3 * Math.max(1, Math.abs(value)), 'second gradient');
  });

  it('is in fusedMoe, the losses and the layer', async () => {
    const logits = tf.tensor2d(logitsOf(4, 3, 1));
    const [x, w1, w2] = [randomTensor([4, 2], 1), randomTensor([3, 4, 2], 2), randomTensor([3, 2, 2], 3)];
    const {topkWeights, topkIds} = tf.moeTopk(logits, 2, {scoring});
    const wanted = (await tf.fusedExperts(x, w1, w2, topkWeights, topkIds).data()) as Float32Array;
    await expectWithin(tf.fusedMoe(x, w1, w2, logits, 2, {scoring}), wanted, bound, 'fusedMoe');
    const [loss] = await tf.moeLoadBalancingLoss(logits, topkIds).data();
    await expectFloats(tf.moeLoadBalancingLoss(logits, topkIds, {scoring}), [loss], 'loss');
    const layer = tf.layers.mixtureOfExperts({numExperts: 3, intermediateSize: 2, scoring, sparsemixerJitter: 0.125});
    layer.apply(x, {training: true});
    const {renormalize, sparsemixerJitter} = layer.getConfig();
    expect([renormalize, sparsemixerJitter]).toEqual([false, 0.125]);
  });

  it('says what it cannot do', () => {
    const given = (options: tf.MoeTopkOptions) => () => tf.moeTopk(tf.zeros([2, 4]), 2, {scoring, ...options});
    const message = "Error in moeTopk: scoring 'sparsemixer' must not be given with renormalize: true, numExpertGroups or topkGroups.";
    expect(given({renormalize: true})).toThrowError(message);
    expect(given({numExpertGroups: 2, topkGroups: 1})).toThrowError(message);
    expect(given({scoreCorrectionBias: [0, 0, 0, 0]})).toThrowError(
      "Error in moeTopk: scoreCorrectionBias must not be given with scoring 'sparsemixer', which has no scores before the choice of experts.");
    expect(given({sparsemixerJitter: -1})).toThrowError('Error in moeTopk: sparsemixerJitter must be a number of at least 0, but is -1.');
    expect(() => tf.layers.mixtureOfExperts({numExperts: 3, intermediateSize: 2, scoring, scoreCorrectionBiasUpdateRate: 1})).toThrowError(
      /must not be given with scoring 'sparsemixer'/);
  });
});
