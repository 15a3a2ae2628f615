import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectFloats, expectWithin} from '../support/expect';
import {derivative, derivativesAlong} from '../support/gradient_checks';
import {naiveScores, naiveSoftmax} from '../naive/topk';
import {distinctIds, lcg} from '../support/routings';

const bound = (_: number, wanted: number) => 1e-5 * Math.abs(wanted) + 1e-6;
const sum = (values: number[]) => values.reduce((a, b) => a + b, 0);

function probabilitiesOf(logits: number[], scoring: tf.MoeTopkScoring): number[] {
  if (scoring !== 'sigmoid' && scoring !== 'sqrtSoftplus') {
    return naiveSoftmax(logits);
  }
  const scores = logits.map(naiveScores[scoring]);
  const total = sum(scores);
  return scores.map((score) => score / total);
}

function naiveBalance(logits: number[][], ids: number[][], mask: boolean[], scoring: tf.MoeTopkScoring): number {
  const numExperts = logits[0].length;
  const counted = logits.flatMap((_, t) => (mask[t] ? [t] : []));
  const assigned = counted.flatMap((t) => ids[t]).filter((id) => id >= 0 && id < numExperts);
  const probabilities = counted.map((t) => probabilitiesOf(logits[t], scoring));
  return numExperts * sum(logits[0].map((_, e) => {
    const share = assigned.filter((id) => id === e).length / assigned.length;
    return (share * sum(probabilities.map((row) => row[e]))) / counted.length;
  }));
}

describeWithFlags('router losses', ALL_ENVS, () => {
  const next = lcg(8);
  const numExperts = 12;
  const logits = Array.from({length: 37}, () => Array.from({length: numExperts}, () => Math.fround(next() * 24 - 16)));
  const ids = distinctIds(37, numExperts, 3, 4).map((tokenIds, t) => (t % 7 === 0 ? [-1, tokenIds[1], numExperts] : tokenIds));
  const mask = logits.map((_, t) => t % 3 !== 1);

  it('are those of the naive loop, in which ids that name no expert are in no share', async () => {
    for (const scoring of ['softmax', 'softmaxAfterTopk', 'sigmoid', 'sqrtSoftplus'] as const) {
      for (const counts of [mask.map(() => true), mask]) {
        const loss = tf.moeLoadBalancingLoss(logits, ids, {scoring, mask: counts});
        await expectWithin(loss, [naiveBalance(logits, ids, counts, scoring)], bound, scoring);
      }
    }
    const squares = logits.map((row) => Math.log(sum(row.map(Math.exp))) ** 2);
    await expectWithin(tf.moeRouterZLoss(logits), [sum(squares) / 37], bound, 'z-loss');
    const counted = squares.filter((_, t) => mask[t]);
    await expectWithin(tf.moeRouterZLoss(logits, {mask}), [sum(counted) / counted.length], bound, 'masked z-loss');
  });

  it('take tokens of any shape', async () => {
    const shaped = [tf.reshape(tf.tensor2d(logits.slice(0, 36)), [3, 2, 6, 12]), tf.tensor4d(ids.slice(0, 36).flat(), [3, 2, 6, 3], 'int32')];
    const shapedMask = tf.reshape(tf.tensor1d(mask.slice(0, 36), 'bool'), [3, 2, 6]);
    const flat = [logits.slice(0, 36), ids.slice(0, 36)] as const;
    for (const per of ['batch', undefined] as const) {
      const loss = tf.moeLoadBalancingLoss(shaped[0], shaped[1], {mask: shapedMask, per});
      await expectWithin(loss, [naiveBalance(...flat, mask, 'softmax')], bound, 'balance');
    }
    const wanted = (await tf.moeRouterZLoss(flat[0], {mask: mask.slice(0, 36)}).data()) as Float32Array;
    await expectFloats(tf.moeRouterZLoss(shaped[0], {mask: shapedMask}), wanted, 'z-loss');
  });

  it('balance each sequence by itself', async () => {
    const [numSequences, length] = [4, 9];
    const at = <T>(rows: T[], b: number) => rows.slice(b * length, (b + 1) * length);
    // No token of the last sequence counts.
    const counts = mask.map((value, t) => value && t < 3 * length);
    const shaped = tf.tensor3d(logits.slice(0, 36).flat(), [numSequences, length, numExperts]);
    const shapedIds = tf.tensor3d(ids.slice(0, 36).flat(), [numSequences, length, 3], 'int32');
    const losses = (given: boolean[], scoring: tf.MoeTopkScoring) => Array.from({length: numSequences}, (_, b) =>
      at(given, b).some((value) => value) ? naiveBalance(at(logits, b), at(ids, b), at(given, b), scoring) : 0);
    for (const scoring of ['softmax', 'sigmoid'] as const) {
      const all = tf.moeLoadBalancingLoss(shaped, shapedIds, {per: 'sequence', scoring});
      await expectWithin(all, [sum(losses(mask.map(() => true), scoring)) / 4], bound, scoring);
      const shapedMask = tf.tensor2d(counts.slice(0, 36).map(Number), [numSequences, length], 'bool');
      const masked = tf.moeLoadBalancingLoss(shaped, shapedIds, {per: 'sequence', scoring, mask: shapedMask});
      await expectWithin(masked, [sum(losses(counts, scoring)) / 3], bound, `${scoring}, masked`);
    }
    // The gradient of a sequence is the gradient of its own loss, divided by the number of sequences.
    const gradient = tf.grad((x: tf.Tensor) => tf.moeLoadBalancingLoss(x, shapedIds, {per: 'sequence'}))(shaped);
    const own = tf.grad((x: tf.Tensor) => tf.moeLoadBalancingLoss(x, at(ids, 1)))(tf.tensor2d(at(logits, 1)));
    const wanted = (await tf.div(own, 4).data()) as Float32Array;
    await expectWithin(tf.slice(gradient, 1, 1), wanted, (_, value) => 1e-5 * Math.abs(value) + 1e-7, 'gradient');
    for (const shape of [[0, 3, 4], [2, 0, 4]] as Array<[number, number, number]>) {
      const none = tf.moeLoadBalancingLoss(tf.zeros(shape), tf.zeros([shape[0], shape[1], 2], 'int32'), {per: 'sequence'});
      await expectFloats(none, [0], `no tokens: ${shape}`);
    }
  });

  it('balance by counts from outside', async () => {
    const given = Array.from({length: numExperts}, (_, e) => 1000 * e);
    const total = sum(given);
    const counted = logits.filter((_, t) => mask[t]).map((row) => naiveSoftmax(row));
    const wanted = sum(given.map((count, e) => (numExperts * (count / total) * sum(counted.map((row) => row[e]))) / counted.length));
    for (const expertCounts of [given, tf.tensor1d(given, 'int32'), tf.tensor1d(given.map((count) => count / total))]) {
      await expectWithin(tf.moeLoadBalancingLoss(logits, ids, {mask, expertCounts}), [wanted], bound, 'counts');
    }
    await expectFloats(tf.moeLoadBalancingLoss(logits, ids, {expertCounts: given.map(() => 0)}), [0], 'no counts');
    const toCounts = tf.grads((x: tf.Tensor, expertCounts: tf.Tensor) =>
      tf.add(tf.sum(expertCounts), tf.moeLoadBalancingLoss(x, ids, {expertCounts})));
    await expectFloats(toCounts([tf.tensor2d(logits), tf.tensor1d(given)])[1], given.map(() => 1), 'none to counts');
  });

  it('leave out a token whose logits are all -Infinity, in every order of derivative', async () => {
    const none = -Infinity;
    const x = tf.tensor2d([[0, 1], [none, none], [2, 0.5], [none, none]]);
    const rest = tf.tensor2d([[0, 1], [2, 0.5]]);
    const counted = tf.tensor1d([0, 2], 'int32');
    const v = tf.tensor2d([[1, -1], [2, 1], [0.5, 2], [1, 1]]);
    for (const scoring of ['softmax', 'sigmoid', 'sqrtSoftplus'] as const) {
      const lossesOf = (xIds: number[][]) => (y: tf.Tensor) =>
        tf.add(tf.moeLoadBalancingLoss(y, xIds, {scoring}), tf.moeRouterZLoss(y)) as tf.Scalar;
      const [withNone, without] = [lossesOf([[1], [0], [1], [0]]), lossesOf([[1], [1]])];
      const same = async (given: tf.Tensor, wanted: tf.Tensor, what: string) =>
        expectWithin(given, (await wanted.data()) as Float32Array, bound, `${scoring}, ${what}`);
      await same(withNone(x), without(rest), 'loss');
      const along = (f: (y: tf.Tensor) => tf.Scalar, w: tf.Tensor) => (y: tf.Tensor) => tf.sum(tf.mul(tf.grad(f)(y), w)) as tf.Scalar;
      for (const [order, f, g] of [
        ['first', withNone, without],
        ['second', along(withNone, v), along(without, tf.gather(v, counted))],
      ] as const) {
        const gradient = tf.grad(f)(x);
        await same(tf.gather(gradient, counted), tf.grad(g)(rest), order);
        await expectFloats(tf.gather(gradient, tf.tensor1d([1, 3], 'int32')), [0, 0, 0, 0], `${scoring}, ${order}, of nothing`);
      }
    }
  });

  it('take a mask of booleans, integers or floats, as arrays or tensors', async () => {
    const wanted = await tf.moeRouterZLoss(logits, {mask}).data();
    const ones = mask.map(Number);
    for (const given of [ones, tf.tensor1d(ones, 'int32'), tf.tensor1d(ones), tf.tensor1d(mask, 'bool'), Float32Array.from(ones)]) {
      await expectFloats(tf.moeRouterZLoss(logits, {mask: given}), wanted as Float32Array, 'z-loss');
    }
  });

  it('do not depend on a token that does not count, nor do their gradients', async () => {
    const withGarbage = logits.map((row, t) => (mask[t] ? row : row.map((_, e) => [NaN, Infinity, -Infinity][e % 3])));
    const lossesOf = (x: tf.Tensor) => tf.add(tf.moeLoadBalancingLoss(x, ids, {mask}), tf.moeRouterZLoss(x, {mask})) as tf.Scalar;
    const wanted = await lossesOf(tf.tensor2d(logits)).data();
    await expectFloats(lossesOf(tf.tensor2d(withGarbage)), wanted as Float32Array, 'losses');
    const gradient = tf.grad(lossesOf)(tf.tensor2d(withGarbage));
    const wantedGradient = tf.grad(lossesOf)(tf.tensor2d(logits));
    await expectFloats(gradient, (await wantedGradient.data()) as Float32Array, 'gradient');
    const ofGarbage = tf.gather(gradient, tf.tensor1d(mask.flatMap((counts, t) => (counts ? [] : [t])), 'int32'));
    await expectFloats(ofGarbage, new Array<number>(ofGarbage.size).fill(0), 'gradient of garbage');
  });

  it('are 0 if no token counts, and so are their gradients', async () => {
    const none = (x: tf.Tensor) => {
      const given = {mask: tf.zeros([x.shape[0]], 'bool')};
      const noIds = tf.zeros<tf.Rank.R2>([x.shape[0], 2], 'int32');
      return tf.add(tf.moeLoadBalancingLoss(x, noIds, given), tf.moeRouterZLoss(x, given)) as tf.Scalar;
    };
    for (const numTokens of [0, 3]) {
      const x = tf.ones<tf.Rank.R2>([numTokens, 4]);
      await expectFloats(none(x), [0], `T = ${numTokens}`);
      await expectFloats(tf.grad(none)(x), new Array<number>(4 * numTokens).fill(0), `gradient, T = ${numTokens}`);
    }
    await expectFloats(tf.moeRouterZLoss(tf.zeros([0, 4])), [0], 'z-loss without a mask');
    await expectFloats(tf.moeLoadBalancingLoss(tf.zeros([0, 4]), tf.zeros([0, 1], 'int32')), [0], 'without a mask');
    await expectFloats(tf.moeLoadBalancingLoss([[1, 2]], [[-1]]), [0], 'no id is an expert');
  });

  it('are finite if experts are masked by -Infinity, and so are their gradients', async () => {
    const x = tf.tensor2d([[1, -Infinity, 2], [-Infinity, 0, 3]]);
    const e = Math.exp;
    const z = (Math.log(e(1) + e(2)) ** 2 + Math.log(1 + e(3)) ** 2) / 2;
    await expectWithin(tf.moeRouterZLoss(x), [z], bound, 'z-loss');
    for (const scoring of ['softmax', 'sigmoid', 'sqrtSoftplus'] as const) {
      const loss = (y: tf.Tensor) => tf.add(tf.moeLoadBalancingLoss(y, [[2], [2]], {scoring}), tf.moeRouterZLoss(y)) as tf.Scalar;
      const gradient = await tf.grad(loss)(x).data();
      expect(gradient.every(Number.isFinite)).withContext(`${scoring}: ${String(gradient)}`).toBeTrue();
      expect([gradient[1], gradient[3]]).withContext(scoring).toEqual([0, 0]);
    }
  });

  it('have gradients of any order', async () => {
    const x = logits.slice(0, 3).map((row) => row.slice(0, 4).map((value) => value / 4));
    const chosen = [[0, 1], [2, 0], [3, 0]];
    const v = [[1, -0.5, 0.5, -1], [0.5, 1, -1, 0], [-1, 0.5, 1, 0.5]];
    const moved = (t: number) => x.map((row, token) => row.map((value, e) => value + t * v[token][e]));
    const counts = [true, false, true];
    const expectAlong = async (f: (y: tf.Tensor) => tf.Tensor, naive: (t: number) => number, what: string) => {
      const given = derivativesAlong(f, tf.tensor2d(x), tf.tensor2d(v), 4);
      for (const [i, value] of given.entries()) {
        await expectWithin(value, [derivative(naive, i + 1)], () => 4e-3, `${what}, order ${i + 1}`);
      }
    };
    for (const scoring of ['softmax', 'sigmoid', 'sqrtSoftplus'] as const) {
      await expectAlong(
        (y) => tf.moeLoadBalancingLoss(y, chosen, {scoring, mask: counts}),
        (t) => naiveBalance(moved(t), chosen, counts, scoring),
        scoring,
      );
    }
    const squareOf = (row: number[]) => Math.log(sum(row.map(Math.exp))) ** 2;
    await expectAlong((y) => tf.moeRouterZLoss(y), (t) => sum(moved(t).map(squareOf)) / 3, 'z-loss');
  });

  it('train a router: descent spreads the tokens', async () => {
    const router = tf.variable(tf.tensor2d([[2, 0, 0, 1], [2, 0.5, 0, 0]]));
    const loss = () => tf.moeLoadBalancingLoss(router, tf.moeTopk(router, 1).topkIds);
    const before = (await loss().data())[0];
    const optimizer = tf.train.sgd(1);
    for (let step = 0; step < 5; step++) {
      optimizer.minimize(loss);
    }
    expect((await loss().data())[0]).toBeLessThan(before);
    router.dispose();
  });
});
