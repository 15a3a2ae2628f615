/** Zero experts, whose output is the token itself, in fusedExperts, fusedMoe, a GraphModel and the layer. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {convertExperts} from '../../src/arguments/experts';
import {dropOverCapacity} from '../../src/layers/expert_capacity';
import {runExperts} from '../../src/ops/run_experts';
import {naiveFusedExperts, type NaiveFusedOptions} from '../naive/fused_experts';
import {expectFloats, expectInts, expectWithin} from '../support/expect';
import {caseOf, type Sizes, tensors} from '../support/fused_cases';
import {layerOf, randomTensor, weightsOf} from '../support/layers';
import {lcg} from '../support/routings';

/** A case whose ids name experts, zero experts and nothing. */
function zeroCaseOf(sizes: Sizes, numZeroExperts: number, options: NaiveFusedOptions = {}, numInMap = sizes.E) {
  const {w1Bias, w2Bias, ...fused} = caseOf(sizes, options);
  const next = lcg(sizes.T + 5 * numZeroExperts);
  const ids = fused.ids.map((row) => row.map(() => Math.floor(next() * (numInMap + numZeroExperts + 2)) - 1));
  const expertMap = Array.from({length: numInMap}, (_, e) => (e + 1) % (sizes.E + 1) - 1);
  return {...fused, ids, expertMap, w1Bias: undefined, w2Bias: undefined, biases: {w1Bias, w2Bias}};
}

async function expectRight(sizes: Sizes, numZeroExperts: number, given: NaiveFusedOptions = {}, numInMap?: number): Promise<void> {
  const options = {...given, numZeroExperts};
  const {expertMap, biases: _, ...fused} = zeroCaseOf(sizes, numZeroExperts, options, numInMap);
  const {x, ids, topkWeights, w1, w2} = tensors(fused, sizes);
  const map = numInMap == null ? {} : {expertMap};
  const before = tf.memory().numTensors;
  const out = tf.fusedExperts(x, w1, w2, topkWeights, ids, {...options, ...map});
  expect(tf.memory().numTensors).toBe(before + 1);
  const {values, magnitudes} = naiveFusedExperts({...fused, ...map}, options);
  await expectWithin(out, values, (i) => 2e-5 * magnitudes[i] + 1e-5, JSON.stringify({sizes, options}));
}

const sizes: Sizes = {T: 6, K: 3, E: 3, H: 4, I: 2};

describeWithFlags('zero experts', ALL_ENVS, () => {
  const table: Array<[Sizes, number, NaiveFusedOptions?, number?]> = [
    [{T: 1, K: 1, E: 1, H: 1, I: 1}, 1],
    [{T: 2, K: 4, E: 6, H: 7, I: 3}, 3],
    [{T: 9, K: 2, E: 1, H: 5, I: 1}, 70],
    [{T: 33, K: 4, E: 5, H: 12, I: 8}, 1, {applyRouterWeightOnInput: true}],
    [{T: 1, K: 3, E: 2, H: 8, I: 4}, 2, {applyRouterWeightOnInput: true, gated: false, activation: 'relu2'}],
    [{T: 8, K: 3, E: 3, H: 4, I: 2}, 2, {}, 7],
    [{T: 2, K: 3, E: 3, H: 4, I: 2}, 2, {}, 7],
  ];
  for (const [caseSizes, numZeroExperts, options, numInMap] of table) {
    const name = JSON.stringify({...caseSizes, Z: numZeroExperts, ...options, numInMap});
    it(`add their tokens: ${name}`, () => expectRight(caseSizes, numZeroExperts, options, numInMap));
  }

  it('take no tokens', async () => {
    const {w1, w2} = tensors(caseOf(sizes), sizes);
    const run = (x: tf.Tensor) => tf.fusedExperts(x, w1, w2, tf.zeros([0, 2]), tf.zeros([0, 2], 'int32'), {numZeroExperts: 2});
    expect(run(tf.zeros([0, 4])).shape).toEqual([0, 4]);
    expect(tf.grad(run)(tf.zeros([0, 4]), tf.zeros([0, 4])).shape).toEqual([0, 4]);
  });

  it('are the same in chunks of tokens', async () => {
    const {x, ids, topkWeights, w1, w2} = tensors(zeroCaseOf(sizes, 2), sizes);
    const inChunks = (maxRowsBytes: number) => tf.tidy(() =>
      runExperts(x, topkWeights, ids, convertExperts(x.shape, w1, w2, {numZeroExperts: 2}, 'fusedExperts'), 'fusedExperts', maxRowsBytes));
    const whole = Float32Array.from(await inChunks(2 ** 27).data());
    await expectWithin(inChunks(4 * 4 * sizes.K * sizes.H), whole, () => 1e-5, 'four tokens');
  });

  it('let nothing through of a token that chose none of them', async () => {
    const {w1, w2} = tensors(caseOf({...sizes, E: 2}), sizes);
    const x = tf.tensor2d([[1, 2, 3, 4], [NaN, NaN, Infinity, NaN], [1, 0, 0, -1]]);
    const ids = tf.tensor2d([[2, 3], [-1, 4], [3, 2 ** 31 - 1]], [3, 2], 'int32');
    const weights = tf.tensor2d([[0.5, 2], [1, NaN], [-1, NaN]]);
    const f = (rows: tf.Tensor, factors: tf.Tensor) => tf.fusedExperts(rows, w1, w2, factors, ids, {numZeroExperts: 2});
    await expectFloats(f(x, weights), [2.5, 5, 7.5, 10, 0, 0, 0, 0, -1, 0, 0, 1], 'out');
    const [dx, dWeights] = tf.grads(f)([x, weights], tf.tensor2d([[1, 1, 1, 1], [1, 1, 1, 1], [1, 2, 3, 4]]));
    await expectFloats(dx, [2.5, 2.5, 2.5, 2.5, 0, 0, 0, 0, -1, -2, -3, -4], 'gradient to hiddenStates');
    await expectFloats(dWeights, [10, 10, 0, 0, -3, 0], 'gradient to topkWeights');
  });

  it('of one shard add up with the other shards to the whole', async () => {
    const [Z, E, K] = [2, 5, 4];
    const fused = zeroCaseOf({...sizes, E}, Z);
    const {x, w1, w2} = tensors(fused, sizes);
    const logits = randomTensor([sizes.T, E + Z], 3);
    const shards = [[0, 1, 4], [3, 2]].map((experts, s) => {
      const here = (weights: number[][][]) => tf.tensor3d(experts.map((e) => weights[e]));
      const expertMap = Array.from({length: s === 0 ? E : E + Z}, (_, e) => experts.indexOf(e));
      return tf.fusedMoe(x, here(fused.w1), here(fused.w2), logits, K, {expertMap, numZeroExperts: s === 0 ? Z : 0});
    });
    const whole = (await tf.fusedMoe(x, w1, w2, logits, K, {numZeroExperts: Z}).data()) as Float32Array;
    await expectWithin(tf.addN(shards), whole, (_, value) => 1e-5 * Math.abs(value) + 1e-5, 'sum of shards');
  });

  for (const applyRouterWeightOnInput of [false, true]) {
    it(`have gradients of first and second order in fusedMoe, applyRouterWeightOnInput: ${applyRouterWeightOnInput}`, async () => {
      const [Z, E, K] = [2, sizes.E, sizes.K];
      const {x, w1, w2} = tensors(zeroCaseOf(sizes, Z), sizes);
      const inputs = [x, randomTensor([sizes.T, E + Z], 3)];
      const dy = randomTensor([sizes.T, sizes.H], 8);
      const given = ([rows, logits]: tf.Tensor[]) =>
        tf.mul(dy, tf.square(tf.fusedMoe(rows, w1, w2, logits, K, {numZeroExperts: Z, applyRouterWeightOnInput})));
      const ids = (await tf.moeTopk(inputs[1], K).topkIds.array()) as number[][];
      const isZeroExpert = tf.tensor2d(ids.map((row) => row.map((id) => (id >= E ? 1 : 0))));
      const composed = ([rows, logits]: tf.Tensor[]) => {
        const {topkWeights} = tf.moeTopk(logits, K);
        const routed = tf.fusedExperts(rows, w1, w2, topkWeights, ids, {applyRouterWeightOnInput});
        return tf.mul(dy, tf.square(tf.add(routed, tf.mul(rows, tf.sum(tf.mul(topkWeights, isZeroExpert), 1, true)))));
      };
      const gradientsOf = (f: (inputs: tf.Tensor[]) => tf.Tensor) => tf.grads((...moved) => tf.sum(f(moved)))(inputs);
      const secondOf = (f: (inputs: tf.Tensor[]) => tf.Tensor) => tf.grads((...moved) =>
        tf.sum(tf.square(tf.grads((...again) => tf.sum(f(again)))(moved)[0])))(inputs);
      for (const [order, orderOf] of [gradientsOf, secondOf].entries()) {
        const [values, wanted] = [given, composed].map(orderOf);
        for (const [i, name] of ['x', 'logits'].entries()) {
          const expected = Float32Array.from(await wanted[i].data());
          await expectWithin(values[i], expected, (_, value) => 1e-4 * Math.max(1, Math.abs(value)), `${name}, order ${order + 1}`);
        }
      }
    });
  }

  it('have errors of their own', () => {
    const {x, w1, w2} = tensors(caseOf(sizes), sizes);
    const run = (columns: number, options: tf.FusedMoeOptions) => () => tf.fusedMoe(x, w1, w2, tf.zeros([6, columns]), 2, options);
    expect(run(4, {numZeroExperts: 2})).toThrowError(
      'Error in fusedMoe: routerLogits must have a column for each expert and each zero expert (E = 3, the number of experts of w1, ' +
        'and Z = 2), but has 4.');
    expect(run(3, {numZeroExperts: -1})).toThrowError('Error in fusedMoe: numZeroExperts must be an integer of at least 0, but is -1.');
    expect(run(3, {numZeroExperts: 0.5})).toThrowError('Error in fusedMoe: numZeroExperts must be an integer of at least 0, but is 0.5.');
    expect(run(3, {numZeroExperts: 2 ** 20})).toThrowError(/the number of experts \(E\+Z\) must be at most 1048576, but is 1048579/);
    expect(run(5, {numZeroExperts: 2, scoreCorrectionBias: [0, 0, 0]})).toThrowError(/for each expert \(E = 5\), but has 3/);
  });

  it('keep all their tokens in the layer, whatever the capacity is', async () => {
    const ids = tf.tensor2d([[0, 2], [2, 0], [2, 3], [0, 2]], [4, 2], 'int32');
    for (const dropPolicy of ['probability', 'position'] as const) {
      const kept = dropOverCapacity(ids, tf.ones([4, 2]), 1, {numExperts: 2, numZeroExperts: 2, dropPolicy});
      await expectInts(kept, [0, 2, 2, -1, 2, 3, -1, 2], dropPolicy);
    }
  });

  it('are experts of the layer to its router, its loads and its bias', async () => {
    const args = {numExperts: 3, numZeroExperts: 2, intermediateSize: 2, topk: 4, useRouterBias: true, scoreCorrectionBiasUpdateRate: 0.125};
    const layer = layerOf(args, 4);
    const {router_kernel: kernel, router_bias: bias, w1, w2, score_correction_bias: correction} = weightsOf(layer);
    expect([kernel, bias, w1, w2, correction].map(({shape}) => shape)).toEqual([[4, 5], [5], [3, 4, 4], [3, 4, 2], [5]]);
    const x = randomTensor([7, 4], 9) as tf.Tensor2D;
    const logits = tf.add(tf.matMul(x, kernel as tf.Tensor2D), bias);
    const {output, topkIds} = tf.fusedMoe(x, w1, w2, logits, 4, {numZeroExperts: 2, scoreCorrectionBias: correction, returnRouting: true});
    const wanted = (await output.data()) as Float32Array;
    await expectWithin(layer.apply(x) as tf.Tensor, wanted, (_, value) => 1e-5 * Math.abs(value) + 1e-5, 'output');
    const ids = Array.from(await topkIds.data());
    const load = Array.from({length: 5}, (_, e) => ids.filter((id) => id === e).length);
    await expectInts(layer.expertLoad(), load, 'load');
    const before = await correction.data();
    layer.apply(x, {training: true});
    const moved = Array.from(before, (value, e) => value + 0.125 * Math.sign(28 / 5 - load[e]));
    await expectWithin(weightsOf(layer).score_correction_bias, moved, () => 1e-6, 'bias');
  });
});
