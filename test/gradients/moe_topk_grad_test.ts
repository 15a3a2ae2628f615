import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectFloats, expectWithin} from '../support/expect';
import {derivative, derivativesAlong} from '../support/gradient_checks';
import {naiveIds, type NaiveTopkOptions, naiveWeights} from '../naive/topk';
import {lcg} from '../support/routings';

const SCORINGS = ['softmax', 'softmaxAfterTopk', 'sigmoid', 'sqrtSoftplus'] as const;
const sumOf = (values: number[]) => values.reduce((total, value) => total + value, 0);
const random = (numRows: number, numColumns: number, scale: number, seed: number): number[][] => {
  const next = lcg(seed);
  return Array.from({length: numRows}, () =>
    Array.from({length: numColumns}, () => Math.fround((2 * next() - 1) * scale)),
  );
};

/** Central differences in float64 of the weights times dy; the choice is held fixed. */
function differences(logits: number[][], dy: number[][], options: NaiveTopkOptions): number[] {
  const step = 1e-4;
  return logits.flatMap((row, t) => {
    const ids = naiveIds(row, options);
    const at = (e: number, shift: number) =>
      naiveWeights(row.map((x, i) => (i === e ? x + shift : x)), ids, options).reduce((sum, w, k) => sum + w * dy[t][k], 0);
    return row.map((x, e) => (x === -Infinity ? 0 : (at(e, step) - at(e, -step)) / (2 * step)));
  });
}
const bound = (_: number, wanted: number) => 2e-5 * Math.abs(wanted) + 4e-6;

async function expectGradient(logits: number[][], numExperts: number, options: NaiveTopkOptions, what: string): Promise<void> {
  const {topk, ...others} = options;
  const dy = random(logits.length, topk, 1, 91);
  const weights = (x: tf.Tensor) => tf.moeTopk(x, topk, others).topkWeights;
  const x = tf.tensor2d(logits.flat(), [logits.length, numExperts]);
  const gradient = tf.grad(weights)(x, tf.tensor2d(dy.flat(), [logits.length, topk]));
  expect(gradient.shape).toEqual(x.shape);
  await expectWithin(gradient, differences(logits, dy, options), bound, what);
}

describeWithFlags('gradient of moeTopk', ALL_ENVS, ({backendName}) => {
  for (const [numTokens, numExperts, topk] of [[0, 3, 2], [1, 1, 1], [9, 6, 6], [18, 8, 2], [3, 60, 4], [2, 257, 8]]) {
    it(`matches finite differences for every scoring: [${numTokens}, ${numExperts}], K = ${topk}`, async () => {
      const logits = random(numTokens, numExperts, 3, numExperts);
      for (const scoring of SCORINGS) {
        for (const renormalize of [true, false]) {
          await expectGradient(logits, numExperts, {topk, scoring, renormalize, routedScalingFactor: 1.5}, `${scoring} ${renormalize}`);
        }
      }
    });
  }

  it('matches finite differences with a bias and groups', async () => {
    const options = {topk: 3, numExpertGroups: 4, topkGroups: 2, scoreCorrectionBias: random(1, 12, 0.5, 6)[0]};
    for (const scoring of ['softmax', 'sigmoid', 'sqrtSoftplus'] as const) {
      await expectGradient(random(5, 12, 3, 5), 12, {...options, scoring}, scoring);
    }
  });

  it('is right for small and for large logits, and if some are -Infinity', async () => {
    const logits = [
      random(1, 6, 1, 1)[0].map((x) => x - 30),
      random(1, 6, 1, 2)[0].map((x) => x + 30),
      [-9.5, -10.5, -40.5, -11, -9.9, -10.1],
      [-Infinity, 1, 0.5, -Infinity, -1, 2],
      [1, -Infinity, -Infinity, -Infinity, -Infinity, -Infinity],
    ];
    for (const scoring of SCORINGS) {
      for (const renormalize of [true, false]) {
        await expectGradient(logits, 6, {topk: 4, scoring, renormalize}, `${scoring} ${renormalize}`);
      }
    }
  });

  it('is 0 for rows of -Infinity alone, and if K = 1 is renormalized', async () => {
    const masked = tf.fill<tf.Rank.R2>([2, 3], -Infinity);
    for (const scoring of SCORINGS) {
      for (const renormalize of [true, false]) {
        const weights = (x: tf.Tensor) => tf.moeTopk(x, 2, {scoring, renormalize}).topkWeights;
        await expectFloats(tf.grad(weights)(masked), [0, 0, 0, 0, 0, 0], `${scoring} ${renormalize}`);
      }
    }
    const one = (x: tf.Tensor) => tf.moeTopk(x, 1, {renormalize: true}).topkWeights;
    await expectFloats(tf.grad(one)(tf.tensor2d([[1, 2, 3]]), [[7]]), [0, 0, 0], 'K = 1');
  });

  it('is finite where dy times the scaling factor is not', async () => {
    const gradient = (logits: number[], dy: number[], options: object) =>
      tf.grad((x: tf.Tensor) => tf.moeTopk(x, dy.length, {...options, routedScalingFactor: 2.5}).topkWeights)(
        tf.tensor2d([logits]), tf.tensor2d([dy]));
    const bound = (_: number, wanted: number) => 1e-5 * Math.abs(wanted);
    const p = 1 / (1 + Math.exp(3.75));
    const softmax = 5e38 * p * (1 - p);
    await expectWithin(gradient([-3.75, 0], [1e38, -1e38], {scoring: 'softmaxAfterTopk'}), [-softmax, softmax], bound, 'softmax');
    const q = 1 / (1 + Math.exp(-4));
    const sigmoid = 2e38 * q * (1 - q) * 2.5;
    await expectWithin(
      gradient([4], [2e38], {scoring: 'sigmoid', renormalize: false}), [sigmoid], bound, 'sigmoid');
  });

  it('is zeros for scoreCorrectionBias, and ids give none', async () => {
    const toBias = (scoreCorrectionBias: tf.Tensor) =>
      tf.sum(tf.moeTopk([[1, 2, 3]], 2, {scoring: 'sigmoid', scoreCorrectionBias}).topkWeights) as tf.Scalar;
    await expectFloats(tf.grad(toBias)(tf.tensor1d([0, 0, 1])), [0, 0, 0], 'bias');
    const throughIds = (x: tf.Tensor) => tf.add(tf.sum(x), tf.sum(tf.cast(tf.moeTopk(x, 2).topkIds, 'float32'))) as tf.Scalar;
    await expectFloats(tf.grad(throughIds)(tf.tensor2d([[1, 2, 3]])), [1, 1, 1], 'ids');
  });

  it('has a second order, to the logits and to dy', async () => {
    const masked = -Infinity;
    const logits = [
      [0.5, -1, 2, 0.25], [-5, -6, 1, -7], [masked, 1, masked, 0.5], [masked, masked, 2, masked], [masked, masked, masked, masked],
    ];
    const dy = [[1, -2], [3, 0.5], [1, 2], [3, -1], [2, 1]];
    const v = [[1, 2, -1, 0.5], [2, -1, 1, 3], [1, 2, 3, -1], [1, 2, 2, -1], [1, -2, 0.5, 1]];
    const step = 1e-3;
    for (const scoring of SCORINGS) {
      for (const renormalize of [true, false]) {
        const given = {scoring, renormalize, routedScalingFactor: 2};
        const options = {topk: 2, ...given};
        /** The weights of a token after its logits are moved along v and along one of them. */
        const weightsAt = (t: number, along: number, e: number, shift: number) =>
          naiveWeights(
            logits[t].map((x, i) => x + along * v[t][i] + (i === e ? shift : 0)), naiveIds(logits[t], options), options);
        const dot = (t: number, weights: number[]) => weights.reduce((sum, w, k) => sum + w * dy[t][k], 0);
        const wantedToLogits = logits.flatMap((row, t) =>
          row.map((_, e) => {
            const at = (i: number, j: number) => dot(t, weightsAt(t, i * step, e, j * step));
            return (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / (4 * step ** 2);
          }),
        );
        const wantedToDy = logits.flatMap((_, t) =>
          weightsAt(t, step, -1, 0).map((w, k) => (w - weightsAt(t, -step, -1, 0)[k]) / (2 * step)),
        );
        const directional = (x: tf.Tensor, g: tf.Tensor) =>
          tf.sum(tf.mul(tf.grad((y: tf.Tensor) => tf.moeTopk(y, 2, given).topkWeights)(x, g), v)) as tf.Scalar;
        const [toLogits, toDy] = tf.grads(directional)([tf.tensor2d(logits), tf.tensor2d(dy)]);
        const secondBound = (_: number, wanted: number) => 1e-4 * Math.abs(wanted) + 2e-5;
        await expectWithin(toLogits, wantedToLogits, secondBound, `${scoring} ${renormalize}, to logits`);
        await expectWithin(toDy, wantedToDy, secondBound, `${scoring} ${renormalize}, to dy`);
      }
    }
  });

  it('has a second order without tokens', async () => {
    const first = (x: tf.Tensor) => tf.grad((y: tf.Tensor) => tf.moeTopk(y, 2).topkWeights)(x, tf.ones([0, 2]));
    const second = tf.grad(first)(tf.zeros([0, 3]), tf.ones([0, 3]));
    expect(second.shape).toEqual([0, 3]);
  });

  it('has a third order and a fourth', async () => {
    const logits = [[0.5, -1, 2, 0.25], [-5, -6, 1, -7]];
    const v = [[1, 0.5, -1, 0.5], [0.5, -1, 1, 1]];
    const dy = [[1, -2], [3, 0.5]];
    // On GPUs only the scoring that needs most core ops, because this order is made of core ops alone.
    const isOnHost = ['cpu', 'wasm'].includes(backendName);
    for (const scoring of isOnHost ? SCORINGS : (['sqrtSoftplus'] as const)) {
      for (const renormalize of [true, false]) {
        const options = {topk: 2, scoring, renormalize};
        const along = (t: number) => sumOf(logits.map((row, token) => {
          const weights = naiveWeights(row.map((x, e) => x + t * v[token][e]), naiveIds(row, options), options);
          return sumOf(weights.map((w, k) => w * dy[token][k]));
        }));
        const f = (x: tf.Tensor) => tf.mul(tf.moeTopk(x, 2, {scoring, renormalize}).topkWeights, dy);
        const [, , third, fourth] = derivativesAlong(f, tf.tensor2d(logits), tf.tensor2d(v), 4);
        await expectWithin(third, [derivative(along, 3)], () => 2e-3, `${scoring} ${renormalize}, third`);
        await expectWithin(fourth, [derivative(along, 4)], () => 4e-3, `${scoring} ${renormalize}, fourth`);
      }
    }
  });

  it('trains a router: the weights approach their targets', async () => {
    const router = tf.variable(tf.tensor2d([[1, 0.5, 0], [0, 0.5, 1]]));
    const loss = () => tf.mean(tf.squaredDifference(tf.moeTopk(router, 2).topkWeights, [[0.9, 0.1], [0.6, 0.4]])) as tf.Scalar;
    const before = (await loss().data())[0];
    const optimizer = tf.train.sgd(1);
    for (let step = 0; step < 5; step++) {
      optimizer.minimize(loss);
    }
    expect((await loss().data())[0]).toBeLessThan(before);
    router.dispose();
  });
});
