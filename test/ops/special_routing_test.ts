/**
 * The results of scorings and router losses for NaN, infinities and the largest and smallest numbers, on every backend.
 */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {logSlopes, naiveGradient, naiveIds, naiveLogScores, naiveSoftmax, naiveWeights} from '../naive/topk';
import {expectSpecial, SPECIAL_LOGITS} from '../support/special_values';

const SCORINGS = ['softmax', 'softmaxAfterTopk', 'sigmoid', 'sqrtSoftplus'] as const;

describeWithFlags('special values: scorings', ALL_ENVS, () => {
  it('of moeTopk, and its gradient', async () => {
    const dy = [1, -2];
    const routerLogits = tf.tensor2d(SPECIAL_LOGITS);
    const numTokens = SPECIAL_LOGITS.length;
    for (const scoring of SCORINGS) {
      for (const renormalize of [true, false]) {
        const options = {topk: 2, scoring, renormalize};
        const ids = SPECIAL_LOGITS.map((row) => naiveIds(row, options));
        const weights = (x: tf.Tensor) => tf.moeTopk(x, 2, {scoring, renormalize}).topkWeights;
        // Scores that are not divided by a sum keep all of their digits, however small they are.
        const tolerance = renormalize || scoring === 'softmax' || scoring === 'softmaxAfterTopk' ? 1e-6 : 1e-37;
        const slots = SPECIAL_LOGITS.flatMap((row, t) => ids[t].map((id) => `${id} of ${row}`));
        const wantedWeights = SPECIAL_LOGITS.flatMap((row, t) => naiveWeights(row, ids[t], options));
        await expectSpecial(weights(routerLogits), wantedWeights, slots, `${scoring} ${renormalize}`, tolerance);
        const gradient = tf.grad(weights)(routerLogits, tf.tile(tf.tensor2d([dy]), [numTokens, 1]));
        const wantedGradient = SPECIAL_LOGITS.flatMap((row, t) => naiveGradient(row, ids[t], dy, options));
        const elements = SPECIAL_LOGITS.flatMap((row) => row.map((_, e) => `${e} of ${row}`));
        await expectSpecial(gradient, wantedGradient, elements, `${scoring} ${renormalize}, gradient`, tolerance);
      }
    }
  });

  it('with a bias: small scores keep their order', async () => {
    const options = {scoring: 'sqrtSoftplus', renormalize: false, scoreCorrectionBias: [0, 0, 0]} as const;
    const {topkIds, topkWeights} = tf.moeTopk([[-120, -100, -140]], 3, options);
    expect(Array.from(await topkIds.data())).toEqual([1, 0, 2]);
    await expectSpecial(topkWeights, [-100, -120, -140].map((x) => Math.exp(x / 2)), [1, 0, 2], 'weights', 1e-37);
  });

  it('of second gradients: small scores', async () => {
    const routerLogits = [[-100, -120], [-90, -160]];
    const weights = (x: tf.Tensor) => tf.moeTopk(x, 2, {scoring: 'sqrtSoftplus', renormalize: false}).topkWeights;
    const second = tf.grad((x: tf.Tensor) => tf.grad(weights)(x))(tf.tensor2d(routerLogits));
    const wanted = routerLogits.flat().map((x) => Math.exp(x / 2) / 4);
    await expectSpecial(second, wanted, routerLogits.flat(), 'second', 1e-37);
  });
});

describeWithFlags('special values: router losses', ALL_ENVS, () => {
  // The second of three tokens has the special logits; the gradients of the others do not depend on them.
  const others = [[1, 2, 0.5, -1], [0, -2, 1, 1]];
  const ids = [[1], [2], [3]];
  const rowsOf = (special: number[]) => [others[0], special, others[1]];
  const countedOf = (rows: number[][]) => rows.flatMap((row, t) => (row.every((x) => x === -Infinity) ? [] : [t]));
  const total = (values: number[]) => values.reduce((sum, value) => sum + value, 0);

  it('moeLoadBalancingLoss, and its gradient', async () => {
    for (const scoring of SCORINGS) {
      const loss = (x: tf.Tensor) => tf.moeLoadBalancingLoss(x, ids, {scoring});
      for (const special of SPECIAL_LOGITS) {
        const rows = rowsOf(special);
        const counted = countedOf(rows);
        // E * share[e] / the number of tokens: the factor of each probability in the loss.
        const factors = special.map((_, e) => (4 * Number(counted.some((t) => ids[t][0] === e))) / counted.length ** 2);
        const wanted = rows.map((row, t) => {
          const probabilities = naiveSoftmax(row.map(naiveLogScores[scoring]));
          const mean = counted.includes(t) ? total(probabilities.map((p, e) => p * factors[e])) : 0;
          const gradient = probabilities.map((p, e) => (p === 0 ? 0 : p * (factors[e] - mean) * logSlopes[scoring](row[e])));
          return {mean, gradient};
        });
        const x = tf.tensor2d(rows);
        const what = `${scoring}, ${special}`;
        await expectSpecial(loss(x), [total(wanted.map(({mean}) => mean))], [special], what);
        await expectSpecial(tf.grad(loss)(x), wanted.flatMap(({gradient}) => gradient), rows.flat(), `${what}, gradient`);
      }
    }
  });

  it('moeRouterZLoss, and its gradient', async () => {
    for (const special of SPECIAL_LOGITS.filter((row) => !row.some((x) => Math.abs(x) > 1e15 && Number.isFinite(x)))) {
      const rows = rowsOf(special);
      const counted = countedOf(rows);
      const wanted = rows.map((row, t) => {
        const largest = Math.max(...row);
        const logSum = counted.includes(t) ? largest + Math.log(total(row.map((x) => Math.exp(x - largest)))) : 0;
        const gradient = naiveSoftmax(row).map((p) => (2 * logSum * p) / counted.length);
        return {part: logSum ** 2 / counted.length, gradient};
      });
      const x = tf.tensor2d(rows);
      await expectSpecial(tf.moeRouterZLoss(x), [total(wanted.map(({part}) => part))], [special], `${special}`);
      const gradient = tf.grad((y: tf.Tensor) => tf.moeRouterZLoss(y))(x);
      await expectSpecial(gradient, wanted.flatMap((row) => row.gradient), rows.flat(), `${special}, gradient`);
    }
  });
});

const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};
describeWithFlags('special values: NaN and Infinity go through scorings as through core ops on the host', cpu, () => {
  const topk = 2;
  const dy = [1, -2];

  for (const scoring of SCORINGS) {
    it(scoring, async () => {
      for (const renormalize of [true, false]) {
        const options = {topk, scoring, renormalize};
        // Core ops have no experts that -Infinity masks.
        for (const row of SPECIAL_LOGITS.filter((logits) => !logits.includes(-Infinity))) {
          const ids = naiveIds(row, options);
          const chosen = (x: tf.Tensor) => tf.gather(x, tf.tensor1d(ids, 'int32'));
          const scores = {
            softmax: (x: tf.Tensor) => chosen(tf.softmax(x)),
            softmaxAfterTopk: (x: tf.Tensor) => tf.softmax(chosen(x)),
            sigmoid: (x: tf.Tensor) => tf.sigmoid(chosen(x)),
            sqrtSoftplus: (x: tf.Tensor) => tf.sqrt(tf.softplus(chosen(x))),
          };
          const weights = (x: tf.Tensor) => {
            const ofChosen = scores[scoring](x);
            return renormalize && scoring !== 'softmaxAfterTopk' ? tf.div(ofChosen, tf.sum(ofChosen)) : ofChosen;
          };
          const wantedWeights = naiveWeights(row, ids, options);
          const wantedGradient = naiveGradient(row, ids, dy, options);
          const isNumber = (values: ArrayLike<number>) => Array.from(values, (value) => !Number.isNaN(value));
          // If sums of scores underflow or overflow, core ops have NaN in place of a number.
          if (row.some((x) => Number.isNaN(x) || x === Infinity)) {
            const x = tf.tensor1d(row);
            const [given, gradient] = await Promise.all([weights(x).data(), tf.grad(weights)(x, tf.tensor1d(dy)).data()]);
            expect(isNumber(given)).withContext(`${row}, ${renormalize}`).toEqual(isNumber(wantedWeights));
            // The gradient of tf.gather multiplies values that were not gathered by 0, also NaN.
            const made = row.flatMap((_, e) => (scoring === 'softmax' || ids.includes(e) ? [e] : []));
            expect(isNumber(made.map((e) => gradient[e]))).withContext(`gradient, ${row}, ${renormalize}`)
              .toEqual(isNumber(made.map((e) => wantedGradient[e])));
          }
        }
      }
    });
  }
});
