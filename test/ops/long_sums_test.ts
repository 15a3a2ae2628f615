/**
 * Sums of very many terms have an error of at most 64 * 2^-24 of sum|terms|, whatever their number. Constants are the
 * worst case for a plain float32 chain, which rounds all of them the same way.
 */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as fc from 'fast-check';
import * as tf from '../../src/tf';
import {expectFloats, expectWithin} from '../support/expect';
import {lcg} from '../support/routings';

const CONSTANT = Math.fround(0.17222);
const BOUND = 64 * 2 ** -24;

type Sums = {sums: Float64Array; magnitudes: Float64Array};
const zeroSums = (size: number): Sums => ({sums: new Float64Array(size), magnitudes: new Float64Array(size)});
function addTerm({sums, magnitudes}: Sums, at: number, term: number): void {
  sums[at] += term;
  magnitudes[at] += Math.abs(term);
}
const expectClose = (actual: tf.Tensor, {sums, magnitudes}: Sums, what: string) =>
  expectWithin(actual, Array.from(sums), (i) => BOUND * magnitudes[i], what);
const constants = (size: number) => new Float32Array(size).fill(CONSTANT);
/** Terms of both signs; if `isMixed` is false, terms of one sign and different sizes. */
const randoms = (size: number, isMixed: boolean, next: () => number) =>
  Float32Array.from({length: size}, () => (isMixed ? next() * 4 - 2 : 2 ** Math.floor(next() * 8) * next()));

/** Gradients of moeGroupedMatMul to weights [E, D, C] and bias against float64 sums over the rows of an expert. */
async function expectWeightGradients(
  x: Float32Array,
  dy: Float32Array,
  [numIn, numColumns]: [number, number],
  offset: number[],
): Promise<void> {
  const numRows = x.length / numIn;
  const numExperts = offset.length - 1;
  const weights = zeroSums(numExperts * numColumns * numIn);
  const biases = zeroSums(numExperts * numColumns);
  for (let e = 0; e < numExperts; e++) {
    for (let row = offset[e]; row < offset[e + 1]; row++) {
      for (let d = 0; d < numColumns; d++) {
        const slope = dy[row * numColumns + d];
        addTerm(biases, e * numColumns + d, slope);
        for (let c = 0; c < numIn; c++) {
          addTerm(weights, (e * numColumns + d) * numIn + c, slope * x[row * numIn + c]);
        }
      }
    }
  }
  const [dWeights, dBias] = tf.grads((w: tf.Tensor, bias: tf.Tensor) =>
    tf.moeGroupedMatMul(tf.tensor2d(x, [numRows, numIn]), w, offset, {bias}))(
    [tf.zeros([numExperts, numColumns, numIn]), tf.zeros([numExperts, numColumns])],
    tf.tensor2d(dy, [numRows, numColumns]),
  );
  await expectClose(dWeights, weights, 'weights');
  await expectClose(dBias, biases, 'bias');
}

/** moeUnpermute's gradients against float64 sums, and with K slots of one token its value too. */
async function expectReaderSums(
  inverse: number[],
  weights: Float32Array,
  dy: Float32Array,
  [numRows, hiddenSize]: [number, number],
): Promise<void> {
  const wanted = zeroSums(numRows * hiddenSize);
  inverse.forEach((row, slot) => {
    for (let h = 0; row >= 0 && row < numRows && h < hiddenSize; h++) {
      addTerm(wanted, row * hiddenSize + h, weights[slot] * dy[slot * hiddenSize + h]);
    }
  });
  const ofRows = tf.grad((rows: tf.Tensor) =>
    tf.moeUnpermute(rows, tf.tensor2d(weights, [weights.length, 1]), tf.tensor1d(inverse, 'int32')));
  const run = () =>
    ofRows(tf.zeros([numRows, hiddenSize]), tf.tensor2d(dy, [weights.length, hiddenSize]));
  const [gradient, again] = [run(), run()];
  await expectClose(gradient, wanted, 'rows');
  await expectFloats(again, (await gradient.data()) as Float32Array, 'rows, again');
}

describeWithFlags('sums of very many terms', ALL_ENVS, () => {
  it('of constants: gradients of moeGroupedMatMul to weights and bias', async () => {
    const numRows = 16_384;
    await expectWeightGradients(new Float32Array(numRows).fill(1), constants(numRows), [1, 1], [0, numRows]);
  });

  it('of constants: the same, two large experts among small ones', async () => {
    // More than 2,800 rows each.
    const offset = [0, 3, 4_000, 4_000, 4_100, 8_000, 8_009];
    await expectWeightGradients(constants(4 * 8_009), constants(4 * 8_009), [4, 4], offset);
  });

  it('of constants: gradient of moePermute', async () => {
    const topk = 16_384;
    const permute = (x: tf.Tensor) => tf.moePermute(x, tf.zeros([1, topk], 'int32'), 1).permutedHiddenStates;
    for (const hiddenSize of [1, 4]) {
      const wanted = zeroSums(hiddenSize);
      constants(topk * hiddenSize).forEach((value, i) => addTerm(wanted, i % hiddenSize, value));
      const dy = tf.fill([topk, hiddenSize], CONSTANT);
      await expectClose(tf.grad(permute)(tf.zeros([1, hiddenSize]), dy), wanted, `H = ${hiddenSize}`);
    }
  });

  it('of constants: moeUnpermute and moeSum of many slots', async () => {
    for (const [topk, hiddenSize] of [[16_384, 4], [5_003, 3]]) {
      const wanted = zeroSums(hiddenSize);
      constants(topk * hiddenSize).forEach((value, i) => addTerm(wanted, i % hiddenSize, value));
      const rows = tf.fill<tf.Rank.R2>([7, hiddenSize], CONSTANT);
      const inverse = tf.tensor1d(Int32Array.from({length: topk}, (_, k) => k % 7), 'int32');
      await expectClose(tf.moeUnpermute(rows, tf.ones([1, topk]), inverse), wanted, 'moeUnpermute');
      await expectClose(tf.moeSum(tf.fill([1, topk, hiddenSize], CONSTANT)), wanted, 'moeSum');
    }
  });

  it('of constants: gradient of moeUnpermute to a row that many slots read', async () => {
    const numSlots = 5_000;
    for (const hiddenSize of [1, 8]) {
      const ones = new Float32Array(numSlots).fill(1);
      const inverse = Array.from(ones, (_, slot) => (slot % 50 === 0 ? 1 : 2));
      await expectReaderSums(inverse, ones, constants(numSlots * hiddenSize), [4, hiddenSize]);
    }
  });

  it('of constants: gradient of moeUnpermute to weights, over a long row', async () => {
    for (const hiddenSize of [300_000, 300_001]) {
      const wanted = zeroSums(1);
      constants(hiddenSize).forEach((value) => addTerm(wanted, 0, value));
      const rows = tf.ones<tf.Rank.R2>([1, hiddenSize]);
      const ofWeights = tf.grad((w: tf.Tensor) => tf.moeUnpermute(rows, w, [0]));
      await expectClose(ofWeights(tf.ones([1, 1]), tf.fill([1, hiddenSize], CONSTANT)), wanted, `H = ${hiddenSize}`);
    }
  });

  it('of constants: second gradient of moeSum', async () => {
    const topk = 16_384;
    const toDy = tf.grad((dy: tf.Tensor) => tf.grad((x: tf.Tensor) => tf.moeSum(x))(tf.zeros([1, topk, 1]), dy));
    const wanted = zeroSums(1);
    constants(topk).forEach((value) => addTerm(wanted, 0, value));
    await expectClose(toDy(tf.zeros([1, 1]), tf.fill([1, topk, 1], CONSTANT)), wanted, 'gradient');
  });

  it('of constants: router losses', async () => {
    // A prime number of terms: tfjs makes one chain of them on webgl.
    const numTokens = 4_093;
    for (const logit of [2.2, 0.85]) {
      const [other, own] = [1 / (1 + Math.exp(-logit)), 1 / (1 + Math.exp(logit))];
      const ids = tf.zeros<tf.Rank.R2>([numTokens, 1], 'int32');
      const logits = tf.tile(tf.tensor2d([[0, Math.fround(logit)]]), [numTokens, 1]);
      const bound = (_: number, wanted: number) => BOUND * Math.abs(wanted);
      await expectWithin(tf.moeLoadBalancingLoss(logits, ids), [2 * own], bound, 'balance');
      const sequences = tf.reshape(tf.concat([logits, logits]), [2, numTokens, 2]);
      const sequenceIds = tf.zeros([2, numTokens, 1], 'int32');
      const ofSequences = tf.moeLoadBalancingLoss(sequences, sequenceIds, {per: 'sequence'});
      await expectWithin(ofSequences, [2 * own], bound, 'balance of sequences');
      await expectWithin(tf.moeRouterZLoss(logits), [Math.log(own) ** 2], bound, 'z-loss');
      const gradient = tf.grad((x: tf.Tensor) => tf.moeLoadBalancingLoss(x, ids))(logits);
      const slope = (2 * own * other) / numTokens;
      await expectWithin(tf.slice(gradient, numTokens - 1, 1), [slope, -slope], bound, 'gradient');
    }
  });

  it('of constants: scores of very many experts', async () => {
    // More experts than the lanes of webgpu add in one chain.
    const numExperts = 5_000;
    const logit = Math.fround(Math.log(CONSTANT));
    const logits = tf.tensor2d(Float32Array.from({length: numExperts}, (_, e) => (e === 0 ? 0 : logit)), [1, numExperts]);
    const total = 1 + (numExperts - 1) * Math.exp(logit);
    const bound = (_: number, wanted: number) => BOUND * Math.abs(wanted);
    const {topkWeights} = tf.moeTopk(logits, 1, {renormalize: false});
    await expectWithin(topkWeights, [1 / total], bound, 'moeTopk');
    await expectWithin(tf.moeLoadBalancingLoss(logits, [[0]]), [numExperts / total], bound, 'balance');
    await expectWithin(tf.moeRouterZLoss(logits), [Math.log(total) ** 2], bound, 'z-loss');
  });

  it('of any terms: gradients of moeGroupedMatMul to weights and bias', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.tuple(fc.integer({min: 1, max: 5}), fc.integer({min: 1, max: 5})),
        fc.array(fc.integer({min: 0, max: 1_500}), {minLength: 2, maxLength: 6}),
        fc.boolean(),
        fc.nat(),
        async (sizes, bounds, isMixed, seed) => {
          const next = lcg(seed);
          const offset = bounds.slice().sort((a, b) => a - b);
          const numRows = offset[offset.length - 1] + 5;
          const [numIn, numColumns] = sizes;
          const x = randoms(numRows * numIn, isMixed, next);
          await expectWeightGradients(x, randoms(numRows * numColumns, isMixed, next), sizes, offset);
        },
      ),
      {numRuns: 6},
    );
  });

  it('of any terms: gradient of moeUnpermute to rows with few and very many readers, the same each time', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(1, 3, 4, 36, 1_028),
        fc.integer({min: 1, max: 40}),
        fc.boolean(),
        fc.nat(),
        async (hiddenSize, numRows, isMixed, seed) => {
          const next = lcg(seed);
          // Row r has about half of the readers of row r - 1.
          const inverse = Array.from({length: hiddenSize > 1_000 ? 2_600 : 700}, () =>
            Math.floor(-Math.log2(next() + 2 ** -20) * 1.2) % (numRows + 1));
          const weights = randoms(inverse.length, isMixed, next);
          const dy = randoms(inverse.length * hiddenSize, isMixed, next);
          await expectReaderSums(inverse, weights, dy, [numRows, hiddenSize]);
        },
      ),
      {numRuns: 8},
    );
  });

  it('adds up to 64 slots one after the other in float32', async () => {
    const next = lcg(3);
    const [topk, hiddenSize] = [64, 3];
    const x = randoms(topk * hiddenSize, true, next);
    const wanted = new Float32Array(hiddenSize);
    x.forEach((value, i) => (wanted[i % hiddenSize] += value));
    await expectFloats(tf.moeSum(tf.tensor3d(x, [1, topk, hiddenSize])), wanted, 'moeSum');
    const inverse = tf.range(0, topk, 1, 'int32');
    const rows = tf.tensor2d(x, [topk, hiddenSize]);
    await expectFloats(tf.moeUnpermute(rows, tf.ones([1, topk]), inverse), wanted, 'moeUnpermute');
  });

  it('keep NaN and infinities where they belong', async () => {
    const topk = 200;
    const x = new Float32Array(topk * 4).fill(1);
    x[4 * 3] = Infinity;
    x[4 * 150 + 1] = -Infinity;
    x[4 * 60 + 2] = NaN;
    const wanted = [Infinity, -Infinity, NaN, topk];
    const rows = tf.tensor2d(x, [topk, 4]);
    await expectFloats(tf.moeSum(tf.reshape(rows, [1, topk, 4])), wanted, 'moeSum');
    await expectFloats(tf.moeUnpermute(rows, tf.ones([1, topk]), tf.range(0, topk, 1, 'int32')), wanted, 'moeUnpermute');
    const toRow = tf.grad((row: tf.Tensor) =>
      tf.moeUnpermute(row, tf.ones([topk, 1]), tf.zeros([topk], 'int32')));
    await expectFloats(toRow(tf.zeros([1, 4]), rows), wanted, 'gradient to a row');
    // The gradient of an infinite term to weights may be NaN, but never looks healthy; other gradients are right.
    const toWeights = tf.grad((w: tf.Tensor) => tf.moeGroupedMatMul(tf.ones([topk, 1]), w, [0, topk]));
    const gradient = await toWeights(tf.zeros([1, 4, 1]), rows).data();
    expect(Array.from(gradient, Number.isFinite)).toEqual([false, false, false, true]);
    expect(gradient[3]).toBe(topk);
  });

  it('take about as long if the readers of a row are far from each other', async () => {
    const numRows = 4_096;
    const weights = tf.tensor2d(Float32Array.from({length: 3 * numRows}, (_, slot) => slot % 3), [3 * numRows, 1]);
    const time = async (rowOf: (slot: number) => number) => {
      const inverse = tf.tensor1d(Int32Array.from({length: 3 * numRows}, (_, slot) => rowOf(slot)), 'int32');
      const toRows = tf.grad((rows: tf.Tensor) => tf.moeUnpermute(rows, weights, inverse));
      const start = performance.now();
      const gradient = toRows(tf.zeros([numRows, 1]), tf.ones([3 * numRows, 1]));
      await expectFloats(gradient, new Float32Array(numRows).fill(3), 'gradient');
      return performance.now() - start;
    };
    const near = (slot: number) => Math.floor(slot / 3);
    await time(near);
    const nearTime = await time(near);
    // 4,096 is 1 modulo 3: each row gets all three weights.
    expect(await time((slot) => slot % numRows)).toBeLessThan(10 * nearTime + 100);
  });
});
