/** The experts for every token, in fusedExperts and fusedMoe. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {convertExperts} from '../../src/arguments/experts';
import {runExperts} from '../../src/ops/run_experts';
import {coreExperts} from '../naive/core_experts';
import {expectFloats, expectWithin} from '../support/expect';
import {caseOf, type Sizes, tensors} from '../support/fused_cases';
import {derivativesAlong} from '../support/gradient_checks';
import {randomTensor} from '../support/layers';
import {naiveFusedExperts, type NaiveFusedOptions} from '../naive/fused_experts';

const F = 5;
const sizes: Sizes = {T: 6, K: 2, E: 3, H: 4, I: 2};

/** Shared experts of width F as a case of one expert, and their gate. */
function sharedCase(options: NaiveFusedOptions = {}) {
  const {w1, w2} = caseOf({...sizes, E: 1, I: F}, options, 5);
  const gate = [[0.5], [-1], [0.25], [2]];
  return {w1: w1[0], w2: w2[0], gate, asOneExpert: {w1, w2}};
}

const all = (value: number) => Array.from({length: sizes.T}, () => [value]);

/** The sum of the routed experts and of one expert for all tokens, both by the naive loops. */
function naive(options: NaiveFusedOptions, withGate: boolean) {
  const fused = {...caseOf(sizes, options), w1Bias: undefined, w2Bias: undefined};
  const routed = naiveFusedExperts(fused, options);
  const {gate, asOneExpert} = sharedCase(options);
  const gateOf = (row: number[]) => 1 / (1 + Math.exp(-row.reduce((sum, value, h) => sum + value * gate[h][0], 0)));
  const topkWeights = withGate ? fused.x.map((row) => [gateOf(row)]) : all(1);
  const shared = naiveFusedExperts(
    {...asOneExpert, x: fused.x, ids: all(0), topkWeights}, {...options, applyRouterWeightOnInput: false});
  const added = (name: 'values' | 'magnitudes') => routed[name].map((value, i) => value + shared[name][i]);
  return {fused, values: added('values'), magnitudes: added('magnitudes')};
}

describeWithFlags('shared experts', ALL_ENVS, (env) => {
  const table: Array<[NaiveFusedOptions, boolean]> = [
    [{}, false],
    [{}, true],
    [{gated: false, activation: 'gelu'}, true],
    [{weightFormat: 'inOut', applyRouterWeightOnInput: true}, true],
    [{weightFormat: 'inOut', gated: false, activation: 'relu'}, false],
    [{activation: 'swigluOai', gateUp: 'interleaved', swigluAlpha: 1.5, swigluLimit: 0.5}, false],
  ];
  for (const [options, withGate] of table) {
    it(`are added${withGate ? ' times their gate' : ''}: ${JSON.stringify(options)}`, async () => {
      const {fused, values, magnitudes} = naive(options, withGate);
      const {x, ids, topkWeights, w1, w2} = tensors(fused, sizes);
      const {w1: sharedW1, w2: sharedW2, gate} = sharedCase(options);
      const sharedExperts = {w1: sharedW1, w2: sharedW2, gate: withGate ? gate : null};
      const before = tf.memory().numTensors;
      const out = tf.fusedExperts(x, w1, w2, topkWeights, ids, {...options, sharedExperts});
      expect(tf.memory().numTensors).toBe(before + 1);
      await expectWithin(out, values, (i) => 2e-5 * magnitudes[i] + 1e-5, 'out');
    });
  }

  it('are the same in fusedMoe, also as tensors', async () => {
    const {x, w1, w2} = tensors(caseOf(sizes), sizes);
    const logits = randomTensor([sizes.T, sizes.E], 3);
    const shared = sharedCase();
    const sharedExperts = {w1: tf.tensor2d(shared.w1), w2: tf.tensor2d(shared.w2), gate: tf.tensor2d(shared.gate)};
    const {topkWeights, topkIds} = tf.moeTopk(logits, 2);
    const wanted = await tf.fusedExperts(x, w1, w2, topkWeights, topkIds, {sharedExperts}).data();
    await expectFloats(tf.fusedMoe(x, w1, w2, logits, 2, {sharedExperts}), Float32Array.from(wanted), 'fusedMoe');
    await expectFloats(x.fusedMoe(w1, w2, logits, 2, {sharedExperts}), Float32Array.from(wanted), 'chained');
  });

  it('are the same in chunks of tokens', async () => {
    const {x, ids, topkWeights, w1, w2} = tensors(caseOf(sizes), sizes);
    const {w1: sharedW1, w2: sharedW2, gate} = sharedCase();
    const inChunks = (maxRowsBytes: number) => tf.tidy(() => {
      const experts = convertExperts(x.shape, w1, w2, {sharedExperts: {w1: sharedW1, w2: sharedW2, gate}}, 'fusedExperts');
      return runExperts(x, topkWeights, ids, experts, 'fusedExperts', maxRowsBytes);
    });
    const whole = Float32Array.from(await inChunks(2 ** 27).data());
    await expectWithin(inChunks(4 * F * 4), whole, () => 1e-5, 'four tokens');
  });

  it('take no tokens', async () => {
    const {w1, w2} = tensors(caseOf(sizes), sizes);
    const shared = [tf.zeros([2 * F, 4]), tf.zeros([4, F]), tf.ones([4, 1])];
    const run = (x: tf.Tensor, ...[sharedW1, sharedW2, gate]: tf.Tensor[]) =>
      tf.fusedExperts(x, w1, w2, tf.zeros([0, 2]), tf.zeros([0, 2], 'int32'), {
        sharedExperts: {w1: sharedW1, w2: sharedW2, gate},
      });
    expect(run(tf.zeros([0, 4]), ...shared).shape).toEqual([0, 4]);
    const gradients = tf.grads(run)([tf.zeros([0, 4]), ...shared], tf.zeros([0, 4]));
    expect(gradients.map(({shape}) => shape)).toEqual([[0, 4], [2 * F, 4], [4, F], [4, 1]]);
    for (const gradient of gradients.slice(1)) {
      await expectFloats(gradient, new Array<number>(gradient.size).fill(0), 'gradient');
    }
  });

  it('have gradients of first and second order', async () => {
    const fused = caseOf(sizes);
    const {x, ids, topkWeights, w1, w2} = tensors(fused, sizes);
    const shared = sharedCase();
    const inputs = [x, tf.tensor2d(shared.w1), tf.tensor2d(shared.w2), tf.tensor2d(shared.gate)];
    const dy = randomTensor([sizes.T, sizes.H], 8);
    const run = ([rows, sharedW1, sharedW2, gate]: tf.Tensor[]) => tf.mul(dy, tf.square(tf.fusedExperts(
      rows, w1, w2, topkWeights, ids, {sharedExperts: {w1: sharedW1, w2: sharedW2, gate}})));
    const composed = ([rows, sharedW1, sharedW2, gate]: tf.Tensor[]) => {
      const routed = tf.fusedExperts(rows, w1, w2, topkWeights, ids);
      // As two halves, because tfjs has no gradient of a split into one part.
      const half = tf.div(0.5, tf.add(1, tf.add(tf.expm1(tf.neg(tf.matMul(rows, gate))), 1)));
      const twice = (tensor: tf.Tensor) => tf.stack([tensor, tensor]);
      const expert = coreExperts(
        rows, twice(sharedW1), twice(sharedW2), tf.concat([half, half], 1), tf.zeros([2, 2 * F]), tf.zeros([2, sizes.H]), {});
      return tf.mul(dy, tf.square(tf.add(routed, expert)));
    };
    const names = ['x', 'w1', 'w2', 'gate'];
    const gradientsOf = (f: (inputs: tf.Tensor[]) => tf.Tensor) => tf.grads((...moved) => tf.sum(f(moved)))(inputs);
    const [gradients, wantedGradients] = [run, composed].map(gradientsOf);
    for (const [i, name] of names.entries()) {
      const wanted = Float32Array.from(await wantedGradients[i].data());
      await expectWithin(gradients[i], wanted, (_, value) => 1e-4 * Math.max(1, Math.abs(value)), name);
    }
    if (env.backendName.startsWith('web')) {
      return;
    }
    for (const [i, name] of names.entries()) {
      const along = randomTensor(inputs[i].shape, 11 + i);
      const [[, given], [, wanted]] = [run, composed].map((f) =>
        derivativesAlong((moved) => f(inputs.map((input, j) => (j === i ? moved : input))), inputs[i], along, 2));
      const value = (await wanted.data())[0];
      await expectWithin(given, [value], () => 1e-4 * Math.max(1, Math.abs(value)), `${name}, second order`);
    }
  });

  it('that do not fit are errors, before any work', () => {
    const {x, ids, topkWeights, w1, w2} = tensors(caseOf(sizes), sizes);
    const shared = {w1: tf.zeros([10, 4]), w2: tf.zeros([4, 5])};
    const untyped = (value: unknown) => value as never;
    const calls: Array<[tf.MoeSharedExperts, string]> = [
      [{...shared, w1: tf.zeros([4, 10])},
        "Error in fusedExperts: sharedExperts.w1 must be [2F, H] with H = 4 for hiddenStates [6,4] and weightFormat " +
        "'outIn', but is [4,10]. It fits weightFormat 'inOut'."],
      [{...shared, w1: tf.zeros([1, 10, 4])},
        'Error in fusedExperts: sharedExperts.w1 must be rank 2 [2F, H], but got rank 3 [1,10,4].'],
      [{...shared, w1: tf.zeros([0, 4])},
        'Error in fusedExperts: sharedExperts.w1 must have at least 1 row and column, but is [0,4].'],
      [{...shared, w1: tf.zeros([5, 4])},
        'Error in fusedExperts: sharedExperts.w1 must have an even 2F when gated (a gate and an up for each of F), but 2F = 5.'],
      [{...shared, w2: tf.zeros([4, 10])},
        "Error in fusedExperts: sharedExperts.w2 must be [H, F] with F = 5 for sharedExperts.w1 [10,4] and weightFormat " +
        "'outIn', but is [4,10]."],
      [{...shared, w2: tf.zeros([3, 5])},
        'Error in fusedExperts: sharedExperts.w2 must have as many outputs as hiddenStates has columns (H = 4), but has 3.'],
      [{...shared, gate: tf.zeros([1, 4])}, 'Error in fusedExperts: sharedExperts.gate must be [H, 1] = [4,1], but is [1,4].'],
      [{w1: shared.w1, w2: untyped(null)},
        "Argument 'sharedExperts.w2' passed to 'fusedExperts' must be a Tensor or TensorLike, but got 'null'"],
      [{...shared, w1: tf.zeros([10, 4], 'int32')},
        "Argument 'sharedExperts.w1' passed to 'fusedExperts' must be float32 tensor, but got int32 tensor"],
      [untyped({...shared, bias: 1}),
        "Error in fusedExperts: unknown option 'sharedExperts.bias'. The options of sharedExperts are w1, w2, gate."],
      [untyped([shared.w1]), 'Error in fusedExperts: sharedExperts must be an object with any of w1, w2, gate, but is '],
    ];
    for (const [sharedExperts, message] of calls) {
      const call = () => tf.fusedExperts(x, w1, w2, topkWeights, ids, {sharedExperts});
      expect(call).toThrowError(new RegExp(`^${message.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}`));
    }
    expect(() => tf.fusedExperts(x, tf.zeros([3, 2, 4]), tf.zeros([3, 4, 2]), topkWeights, ids, {
      gated: false, sharedExperts: {...shared, w1: tf.zeros([10, 3])},
    })).toThrowError(
      "Error in fusedExperts: sharedExperts.w1 must be [F, H] with H = 4 for hiddenStates [6,4] and weightFormat 'outIn', " +
      'but is [10,3].');
  });
});
