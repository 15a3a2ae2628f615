import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as fc from 'fast-check';
import * as tf from '../../src/tf';
import {expectFloats, expectInts} from '../support/expect';
import {comparedOf, naiveIds, type NaiveTopkOptions, naiveWeights} from '../naive/topk';
import {lcg} from '../support/routings';

const SCORINGS = ['softmax', 'softmaxAfterTopk', 'sigmoid', 'sqrtSoftplus'] as const;
const SCORINGS_WITH_BIAS = ['softmax', 'sigmoid', 'sqrtSoftplus'] as const;

/** float32 values in [-scale, scale). */
const randomLogits = (numTokens: number, numExperts: number, scale: number, seed: number): number[][] => {
  const next = lcg(seed);
  return Array.from({length: numTokens}, () =>
    Array.from({length: numExperts}, () => Math.fround((2 * next() - 1) * scale)),
  );
};
const matrix = (rows: number[][], numExperts: number) => tf.tensor2d(rows.flat(), [rows.length, numExperts]);

const isWithin = (given: number, wanted: number) =>
  Object.is(given, wanted) || Math.abs(given - wanted) <= 1e-5 * Math.abs(wanted) + 1e-6 || (Number.isNaN(given) && Number.isNaN(wanted));

/**
 * Compares ids exactly, or with a bias except for values closer than devices compute them, and the weights of these
 * ids.
 */
async function expectTopk(logits: number[][], numExperts: number, options: NaiveTopkOptions, what: string): Promise<void> {
  await expectTopkOfAll(logits, numExperts, options, what);
  // A GPU kernel takes few tokens another way.
  if (logits.length > 0 && logits.length < MANY_TOKENS && numExperts <= 256) {
    await expectTopkOfAll(asManyTokens(logits), numExperts, options, `${what}, many tokens`);
  }
}

const MANY_TOKENS = 65;
const asManyTokens = <Row>(rows: Row[]) => Array.from({length: MANY_TOKENS}, (_, t) => rows[t % rows.length]);

async function expectTopkOfAll(
  logits: number[][], numExperts: number, options: NaiveTopkOptions, what: string,
): Promise<void> {
  const {topk, ...others} = options;
  const result = tf.moeTopk(matrix(logits, numExperts), topk, others);
  expect(result.topkWeights.shape).toEqual([logits.length, topk]);
  expect(result.topkIds.shape).toEqual([logits.length, topk]);
  expect(result.topkIds.dtype).toBe('int32');
  expect(result.topkWeights.dtype).toBe('float32');
  const [ids, weights] = await Promise.all([result.topkIds.data(), result.topkWeights.data()]);
  tf.dispose(result);
  logits.forEach((row, t) => {
    const givenIds = Array.from(ids.subarray(t * topk, (t + 1) * topk));
    const wantedIds = naiveIds(row, options);
    const compared = comparedOf(row, options);
    const isRight = (id: number, k: number) => {
      const [given, wanted] = [compared[id], compared[wantedIds[k]]];
      return id === wantedIds[k] || (others.scoreCorrectionBias != null && Math.abs(given - wanted) <= 1e-6 * Math.abs(wanted));
    };
    if (new Set(givenIds).size < topk || !givenIds.every(isRight)) {
      throw new Error(`${what}: token ${t} has the experts ${givenIds}, wanted ${wantedIds}`);
    }
    naiveWeights(row, givenIds, options).forEach((wanted, k) => {
      const given = weights[t * topk + k];
      if (!isWithin(given, wanted)) {
        throw new Error(`${what}: weight ${k} of token ${t} is ${given}, wanted ${wanted}`);
      }
    });
  });
}

describeWithFlags('moeTopk', ALL_ENVS, () => {
  for (const [numTokens, numExperts, topk] of [
    [0, 4, 2], [1, 1, 1], [5, 1, 1], [1, 8, 8], [9, 6, 6], [33, 16, 3], [40, 17, 2], [5, 60, 4], [3, 160, 6], [2, 257, 8],
    [2, 1025, 4], [1, 900, 900], [1, 3700, 3],
  ]) {
    it(`chooses and weighs [${numTokens}, ${numExperts}], K = ${topk}, by every scoring`, async () => {
      const logits = randomLogits(numTokens, numExperts, 4, numTokens + numExperts);
      for (const scoring of numTokens * numExperts ** 2 > 5e5 ? SCORINGS.slice(0, 1) : SCORINGS) {
        await expectTopk(logits, numExperts, {topk, scoring}, scoring);
        await expectTopk(logits, numExperts, {topk, scoring, renormalize: topk === 1, routedScalingFactor: -2.5}, `${scoring} *`);
      }
    });
  }

  for (const [numTokens, numExperts, topk, numExpertGroups, topkGroups] of [
    [7, 8, 3, 1, 1], [7, 8, 3, 4, 2], [5, 8, 2, 8, 3], [5, 64, 8, 8, 4], [3, 256, 8, 8, 4], [3, 60, 12, 5, 1], [1, 3700, 3, 37, 2],
  ]) {
    it(`in ${topkGroups} of ${numExpertGroups} groups: [${numTokens}, ${numExperts}], K = ${topk}, with and without a bias`, async () => {
      const logits = randomLogits(numTokens, numExperts, 3, numExperts);
      const [scoreCorrectionBias] = randomLogits(1, numExperts, 0.5, 77);
      const groups = {topk, numExpertGroups, topkGroups};
      await expectTopk(logits, numExperts, groups, 'groups');
      await expectTopk(logits, numExperts, {topk, scoring: 'sigmoid', scoreCorrectionBias}, 'bias');
      for (const scoring of SCORINGS_WITH_BIAS) {
        await expectTopk(logits, numExperts, {...groups, scoring, scoreCorrectionBias, renormalize: scoring !== 'softmax'}, scoring);
      }
    });
  }

  it('is stable for logits of any size', async () => {
    for (const scale of [100, 1e4, 3e38]) {
      const logits = [
        ...randomLogits(4, 12, scale, 3),
        ...randomLogits(4, 12, 1, 4).map((row) => row.map((x) => Math.fround(x - scale))),
        ...randomLogits(4, 12, 1, 5).map((row) => row.map((x) => Math.fround(x + scale))),
      ];
      for (const scoring of SCORINGS) {
        for (const renormalize of [true, false]) {
          await expectTopk(logits, 12, {topk: 3, scoring, renormalize}, `${scoring} ${scale}`);
        }
      }
      for (const scoring of SCORINGS_WITH_BIAS) {
        const scoreCorrectionBias = Array.from({length: 12}, (_, e) => e / 64);
        await expectTopk(logits, 12, {topk: 3, scoring, scoreCorrectionBias, renormalize: true}, `bias ${scoring} ${scale}`);
      }
    }
  });

  it('keeps the digits of small scores', async () => {
    const logits = [Array.from({length: 40}, (_, e) => Math.fround(-e))];
    for (const scoring of SCORINGS) {
      await expectTopk(logits, 40, {topk: 40, scoring, renormalize: false}, scoring);
      await expectTopk(logits.map((row) => row.map((x) => x - 30)), 40, {topk: 40, scoring, renormalize: true}, scoring);
    }
  });

  it('gives ties to the lower id, and treats zeros of both signs as equal', async () => {
    const {topkIds} = tf.moeTopk([[1, 2, 2, 1, 2], [0, 0, 0, 0, 0], [-0, 0, -0, 0, -1]], 4);
    await expectInts(topkIds, [1, 2, 4, 0, 0, 1, 2, 3, 0, 1, 2, 3], 'ids');
    const groups = tf.moeTopk([[0, 5, 5, 1, 5, 0]], 2, {numExpertGroups: 3, topkGroups: 2});
    await expectInts(groups.topkIds, [1, 2], 'in groups');
    const bias = tf.moeTopk([[3, 3, 3, 3]], 3, {scoring: 'sigmoid', scoreCorrectionBias: [0, 1, 1, 0]});
    await expectInts(bias.topkIds, [1, 2, 0], 'with a bias');
  });

  it('ranks NaN below -Infinity, and masks by -Infinity', async () => {
    const logits = [
      [NaN, -Infinity, 1, NaN],
      [NaN, NaN, NaN, NaN],
      [-Infinity, -Infinity, -Infinity, -Infinity],
      [-Infinity, 2, -Infinity, 1],
      [0, Infinity, -Infinity, Infinity],
      [0, 1, Infinity, 2],
    ];
    const ids = [2, 1, 0, 0, 1, 2, 0, 1, 2, 1, 3, 0, 1, 3, 0, 2, 3, 1];
    await expectInts(tf.moeTopk(logits, 3).topkIds, ids, 'ids');
    await expectInts(tf.moeTopk(logits, 3, {numExpertGroups: 2, topkGroups: 2}).topkIds, ids, 'ids of groups');
    const masked = tf.moeTopk(logits, 2, {numExpertGroups: 2, topkGroups: 1});
    await expectInts(masked.topkIds, [2, 3, 0, 1, 0, 1, 1, 0, 1, 0, 2, 3], 'ids of one group');
    for (const scoring of SCORINGS) {
      for (const renormalize of [true, false]) {
        await expectTopk(logits, 4, {topk: 3, scoring, renormalize}, `${scoring} ${renormalize}`);
        await expectTopk(logits, 4, {topk: 1, scoring, renormalize}, `${scoring} ${renormalize}, K = 1`);
      }
    }
    const weights = tf.moeTopk(logits.slice(2, 4), 3).topkWeights;
    await expectFloats(tf.slice(weights, 0, 1), [0, 0, 0], 'weights of a row of -Infinity');
    for (const scoring of SCORINGS_WITH_BIAS) {
      const scoreCorrectionBias = [0.25, -0.5, 0.125, 0.75];
      await expectTopk(logits, 4, {topk: 3, scoring, scoreCorrectionBias}, `bias ${scoring}`);
      await expectTopk(logits, 4, {topk: 2, scoring, scoreCorrectionBias, numExpertGroups: 2, topkGroups: 1}, `groups ${scoring}`);
    }
    const biased = tf.moeTopk([[1, 2, 3, 4]], 4, {scoring: 'sigmoid', scoreCorrectionBias: [0, NaN, -Infinity, Infinity]});
    await expectInts(biased.topkIds, [3, 0, 2, 1], 'a bias that is no number');
  });

  it('chooses and weighs any small row like the naive loop', async () => {
    const anyCase = fc
      .record({
        numTokens: fc.nat({max: 5}),
        groupSize: fc.integer({min: 1, max: 5}),
        numExpertGroups: fc.integer({min: 1, max: 4}),
        seed: fc.nat(),
        scoring: fc.constantFrom(...SCORINGS),
        renormalize: fc.boolean(),
        hasBias: fc.boolean(),
        routedScalingFactor: fc.constantFrom(1, 2.5, 0),
      })
      .chain((sizes) =>
        fc.integer({min: 1, max: sizes.numExpertGroups}).chain((topkGroups) =>
          fc.record({
            sizes: fc.constant(sizes),
            topkGroups: fc.constant(topkGroups),
            topk: fc.integer({min: 1, max: topkGroups * sizes.groupSize}),
            logits: fc.array(
              fc.array(fc.oneof(fc.integer({min: -3, max: 3}), fc.constantFrom(NaN, -Infinity, Infinity, -100, 0.5, 1e4)), {
                minLength: sizes.groupSize * sizes.numExpertGroups,
                maxLength: sizes.groupSize * sizes.numExpertGroups,
              }),
              {minLength: sizes.numTokens, maxLength: sizes.numTokens},
            ),
          }),
        ),
      );
    await fc.assert(
      fc.asyncProperty(anyCase, async ({sizes, topkGroups, topk, logits}) => {
        const {groupSize, numExpertGroups, scoring, renormalize, hasBias, routedScalingFactor, seed} = sizes;
        const numExperts = groupSize * numExpertGroups;
        await expectTopk(logits, numExperts, {
          topk,
          scoring,
          renormalize,
          routedScalingFactor,
          numExpertGroups,
          topkGroups,
          ...(hasBias && scoring !== 'softmaxAfterTopk' ? {scoreCorrectionBias: randomLogits(1, numExperts, 1, seed)[0]} : {}),
        }, 'any');
      }),
      {numRuns: 40},
    );
  });

  it('takes more than 65,535 tokens', async () => {
    const numTokens = 70_000;
    const logits = Float32Array.from({length: 2 * numTokens}, (_, i) => (i * 7919) % 5);
    const {topkIds, topkWeights} = tf.moeTopk(tf.tensor2d(logits, [numTokens, 2]), 1);
    const wanted = Int32Array.from({length: numTokens}, (_, t) => Number(logits[2 * t + 1] > logits[2 * t]));
    await expectInts(topkIds, wanted, 'ids');
    const weights = await topkWeights.data();
    const wrong = weights.findIndex((w, t) => !isWithin(w, 1 / (1 + Math.exp(-Math.abs(logits[2 * t] - logits[2 * t + 1])))));
    expect(wrong).toBe(-1);
  });

  it('takes options of undefined and null for their defaults, and arrays', async () => {
    const logits = [[1, 3, 2]];
    const options = {
      scoring: null, renormalize: undefined, scoreCorrectionBias: null, numExpertGroups: null, topkGroups: undefined, routedScalingFactor: null,
    };
    const {topkWeights} = tf.moeTopk(logits, 2, options);
    await expectFloats(topkWeights, await tf.moeTopk(logits, 2, {renormalize: true}).topkWeights.data() as Float32Array, 'weights');
    await expectFloats(
      tf.moeTopk(logits, 1).topkWeights,
      await tf.moeTopk(logits, 1, {renormalize: false}).topkWeights.data() as Float32Array,
      'K = 1 is not renormalized',
    );
  });

  it('is chained, and its result leaves tf.tidy', async () => {
    const {topkIds} = tf.tidy(() => tf.tensor2d([[1, 3, 2]]).moeTopk(2));
    await expectInts(topkIds, [1, 2], 'ids');
  });
});
