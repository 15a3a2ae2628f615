/** Kernels that repeat what they did for other tensors of the same shapes: specs of each GPU backend. */
import * as tf from '../../src/tf';
import {expectFloats} from './expect';

/** One expert for both tokens, with the weight w: rows of [1, 2] and [3, 4], so 3w and 7w. */
export const products = (w: tf.Tensor3D) => tf.moeGroupedMatMul([[1, 2], [3, 4]], w, [0, 2]);
export const times = (factor: number) => tf.fill<tf.Rank.R3>([1, 1, 2], factor);

export function specsOfRepeatedKernels(): void {
  it('reads the tensors that it is given', async () => {
    const weights = [2, 3, 4].map(times);
    for (const [i, w] of weights.entries()) {
      await expectFloats(products(w), [3 * (i + 2), 7 * (i + 2)], `the weight ${i}`);
    }
    tf.dispose(weights);
    await expectFloats(products(times(5)), [15, 35], 'after the weights are disposed of');
  });

  it('reads what a variable is assigned', async () => {
    const variable = tf.variable(times(2)) as tf.Variable<tf.Rank.R3>;
    await expectFloats(products(variable), [6, 14], 'before');
    variable.assign(times(3));
    await expectFloats(products(variable), [9, 21], 'after');
    variable.dispose();
  });

  it('refuses a weight that is disposed of', async () => {
    const w = times(2);
    await expectFloats(products(w), [6, 14], 'before');
    w.dispose();
    expect(() => products(w)).toThrowError(/^Error in moeGroupedMatMul: weights is disposed\.$/);
  });

  it('takes one tensor for two inputs, and two after it', async () => {
    const x = tf.tensor2d([[1, 2]]);
    const other = tf.tensor2d([[3, 4]]);
    const merged = (rows: tf.Tensor2D, weights: tf.Tensor2D) => tf.moeUnpermute(rows, weights, [[0, 0]], [0, 1]);
    await expectFloats(merged(x, x), [3, 6], 'one');
    await expectFloats(merged(x, other), [7, 14], 'two');
    await expectFloats(merged(other, other), [21, 28], 'one again');
  });

  it('takes other attributes', async () => {
    const logits = tf.tensor2d([[1, 3, 2]]);
    for (const factor of [1, 2, 1]) {
      const {topkWeights} = tf.moeTopk(logits, 1, {scoring: 'softmaxAfterTopk', routedScalingFactor: factor});
      await expectFloats(topkWeights, [factor], `the factor ${factor}`);
    }
  });

  it('has its launches in tf.profile', async () => {
    const w = times(2);
    products(w);
    const {kernels} = await tf.profile(() => products(w));
    expect(kernels.map(({name}) => name)).toContain('MoeGroupedMatMul');
  });
}

/**
 * Calls of more shapes than are kept leave no tensor, and calls of one shape take no more memory of the device, which
 * `countUsed` counts.
 */
export async function expectNothingKeptOfManyShapes(countUsed: () => number): Promise<void> {
  const run = (numTokens: number) =>
    tf.tidy(() => tf.sum(tf.moePermute(tf.ones([numTokens, 4]), tf.zeros([numTokens, 2], 'int32'), 2).permutedHiddenStates));
  const totals: tf.Tensor[] = [];
  const before = tf.memory().numTensors;
  for (let numTokens = 1; numTokens <= 150; numTokens++) {
    totals.push(run(numTokens), run(1));
  }
  const sums = tf.tidy(() => tf.stack(totals));
  const wanted = totals.map((_, i) => (i % 2 === 0 ? 8 * (i / 2 + 1) : 8));
  await expectFloats(sums, wanted, 'sums of rows');
  tf.dispose([sums, totals]);
  expect(tf.memory().numTensors).toBe(before);
  const settled = run(3);
  await settled.data();
  settled.dispose();
  const used = countUsed();
  for (let call = 0; call < 100; call++) {
    run(3).dispose();
  }
  const last = run(3);
  await last.data();
  last.dispose();
  expect(countUsed()).toBe(used);
}
