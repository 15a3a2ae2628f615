/** Gradients through frozen experts are those of the float32 weights that codes stand for. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectWithin} from '../support/expect';
import {caseOf} from '../support/fused_cases';
import {derivativesAlong} from '../support/gradient_checks';
import {nameOf, type QuantizedDraw, randomQuantized} from '../support/quantized_experts';

const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};

const pairs: Array<[ofW1: QuantizedDraw, ofW2: QuantizedDraw]> = [
  [{format: 'int4', groupSize: 16, scaleFormat: 'float16'}, {format: 'int8', hasOffsets: true}],
  [{format: 'fp4', groupSize: 32, scaleFormat: 'e8m0'}, {format: 'bfloat16'}],
  [{format: 'float8', groupSize: 16}, {format: 'float16'}],
];
const sizes = {T: 5, K: 2, E: 3, H: 16, I: 8};

/** The same experts as codes and as float32. */
function expertsOf([ofW1, ofW2]: [QuantizedDraw, QuantizedDraw], seed = 1) {
  const {E, H, I} = sizes;
  const w1 = randomQuantized([E, 2 * I, H], ofW1, seed);
  const w2 = randomQuantized([E, H, I], ofW2, seed + 1);
  return {
    quantized: [w1.weights, w2.weights] as const,
    floats: [tf.tensor3d(w1.values, [E, 2 * I, H]), tf.tensor3d(w2.values, [E, H, I])] as const,
  };
}

async function expectAlike(given: tf.Tensor[], wanted: tf.Tensor[], what: string): Promise<void> {
  for (const [i, tensor] of given.entries()) {
    const values = Float32Array.from(await wanted[i].data());
    const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-3);
    expect(tensor.shape).toEqual(wanted[i].shape);
    await expectWithin(tensor, values, () => 2e-5 * largest, `${what} by input ${i}`);
  }
}

describeWithFlags('gradients through quantized experts', ALL_ENVS, () => {
  for (const pair of pairs) {
    it(`fusedExperts: ${pair.map(nameOf).join(', ')}`, async () => {
      const {x, ids, topkWeights, w1Bias, w2Bias} = caseOf(sizes);
      const {quantized, floats} = expertsOf(pair);
      const gradientsOf = (w1: tf.MoeExpertWeights, w2: tf.MoeExpertWeights) =>
        tf.grads((rows: tf.Tensor, weights: tf.Tensor, b1: tf.Tensor, b2: tf.Tensor) =>
          tf.fusedExperts(rows, w1, w2, weights, ids, {w1Bias: b1, w2Bias: b2}))(
          [tf.tensor2d(x), tf.tensor2d(topkWeights), tf.tensor2d(w1Bias), tf.tensor2d(w2Bias)]);
      await expectAlike(gradientsOf(...quantized), gradientsOf(...floats), 'gradient');
    });
  }

  it('fusedMoe, to the router too, and with router weights on the input', async () => {
    const {x} = caseOf(sizes);
    const logits = tf.tensor2d(x.map((row) => row.slice(0, sizes.E)));
    const {quantized, floats} = expertsOf(pairs[0]);
    for (const applyRouterWeightOnInput of [false, true]) {
      const gradientsOf = (w1: tf.MoeExpertWeights, w2: tf.MoeExpertWeights) =>
        tf.grads((rows: tf.Tensor, routerLogits: tf.Tensor) => tf.fusedMoe(rows, w1, w2, routerLogits, 2, {applyRouterWeightOnInput}))(
          [tf.tensor2d(x), logits]);
      await expectAlike(gradientsOf(...quantized), gradientsOf(...floats), `applyRouterWeightOnInput ${applyRouterWeightOnInput}`);
    }
  });

  it('moeGroupedMatMul, gated, in parts', async () => {
    const draw: QuantizedDraw = {format: 'int4', groupSize: 32, zeroPoint: 7};
    const parts = [1, 2].map((numExperts) => randomQuantized([numExperts, 8, 40], draw, numExperts));
    const floats = parts.map(({weights: {shape}, values}) => tf.tensor3d(values, shape as [number, number, number]));
    const x = tf.tensor2d(caseOf({...sizes, T: 7, H: 40}).x);
    const bias = tf.tensor2d(caseOf({...sizes, I: 4}).w1Bias);
    const gradientsOf = (weights: tf.MoeExpertWeights) =>
      tf.grads((rows: tf.Tensor, b: tf.Tensor) => tf.moeGroupedMatMul(rows, weights, [0, 2, 2, 6], {activation: 'silu', gated: true, bias: b}))([x, bias]);
    await expectAlike(gradientsOf(parts.map(({weights}) => weights)), gradientsOf(floats), 'gradient');
  });

  it('has derivatives of second order', async () => {
    const {x, ids, topkWeights} = caseOf(sizes);
    const {quantized, floats} = expertsOf(pairs[0]);
    const direction = tf.tensor2d(caseOf(sizes, {}, 5).x);
    const derivativesOf = (w1: tf.MoeExpertWeights, w2: tf.MoeExpertWeights) =>
      derivativesAlong((rows) => tf.fusedExperts(rows, w1, w2, topkWeights, ids), tf.tensor2d(x), direction, 2);
    await expectAlike(derivativesOf(...quantized), derivativesOf(...floats), 'derivative');
  });
});

describeWithFlags('gradients to quantized experts', cpu, () => {
  it('are none to scales and offsets, and say so', () => {
    const {E, H, I} = sizes;
    const w1 = randomQuantized([E, 2 * I, H], {format: 'int4', groupSize: 16, hasOffsets: true}, 1).weights;
    const w2 = randomQuantized([E, H, I], {format: 'int8'}, 2).weights;
    const [x, logits] = [tf.ones<tf.Rank.R2>([4, H]), tf.ones<tf.Rank.R2>([4, E])];
    // No op runs during a gradient, so it is the kernel that has a name.
    const message = (format: string) =>
      `Error in MoeGroupedMatMul: weights of format '${format}' are frozen. There is no gradient to their codes, scales and offsets.`;
    for (const field of ['scales', 'offsets'] as const) {
      expect(() => tf.grad((given: tf.Tensor) => tf.fusedMoe(x, {...w1, [field]: given}, w2, logits, 2))(w1[field]!)).toThrowError(message('int4'));
      expect(() => tf.grad((given: tf.Tensor) => tf.moeGroupedMatMul(x, {...w1, [field]: given}, [0, 1, 3, 4]))(w1[field]!)).toThrowError(message('int4'));
    }
    expect(() => tf.grad((given: tf.Tensor) => tf.fusedExperts(x, w1, {...w2, scales: given}, tf.ones([4, 2]), tf.zeros([4, 2], 'int32')))(w2.scales!))
      .toThrowError(message('int8'));
  });
});
