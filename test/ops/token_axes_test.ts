/** Tokens along several axes, and the routing that fusedMoe returns. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectFloats, expectInts, expectWithin} from '../support/expect';
import {caseOf, type Sizes, tensors} from '../support/fused_cases';
import {randomTensor} from '../support/layers';

const sizes: Sizes = {T: 6, K: 2, E: 3, H: 4, I: 2};
const values = async (tensor: tf.Tensor) => Float32Array.from(await tensor.data());

/** [6, size] tokens also as [2, 3, size] and [1, 2, 3, size]. */
const leadingAxes = [[2, 3], [1, 2, 3], [6, 1, 1, 1]];

describeWithFlags('tokens along several axes', ALL_ENVS, () => {
  it('get the experts of rows from moeTopk', async () => {
    const logits = randomTensor([sizes.T, sizes.E], 3);
    const wanted = tf.moeTopk(logits, 2, {scoring: 'sigmoid'});
    const [weights, ids] = [await values(wanted.topkWeights), await wanted.topkIds.data()];
    for (const axes of leadingAxes) {
      const given = logits.reshape([...axes, sizes.E]);
      const before = tf.memory().numTensors;
      for (const {topkWeights, topkIds} of [tf.moeTopk(given, 2, {scoring: 'sigmoid'}), given.moeTopk(2, {scoring: 'sigmoid'})]) {
        expect(topkWeights.shape).toEqual([...axes, 2]);
        expect(topkIds.shape).toEqual([...axes, 2]);
        await expectFloats(topkWeights, weights, 'weights');
        await expectInts(topkIds, ids as Int32Array, 'ids');
        tf.dispose([topkWeights, topkIds]);
      }
      expect(tf.memory().numTensors).toBe(before);
    }
  });

  it('get the results of rows from fusedExperts and fusedMoe', async () => {
    const {x, ids, topkWeights, w1, w2} = tensors(caseOf(sizes), sizes);
    const logits = randomTensor([sizes.T, sizes.E], 3);
    const sharedExperts = {w1: randomTensor([6, sizes.H], 4), w2: randomTensor([sizes.H, 3], 5)};
    const experts = await values(tf.fusedExperts(x, w1, w2, topkWeights, ids, {sharedExperts}));
    const moe = await values(tf.fusedMoe(x, w1, w2, logits, 2, {sharedExperts}));
    for (const axes of leadingAxes) {
      const along = (tensor: tf.Tensor) => tf.reshape(tensor, [...axes, tensor.shape[1]!]);
      const ofExperts = tf.fusedExperts(along(x), w1, w2, along(topkWeights), along(ids), {sharedExperts});
      const ofMoe = tf.fusedMoe(along(x), w1, w2, along(logits), 2, {sharedExperts});
      expect([ofExperts.shape, ofMoe.shape]).toEqual([[...axes, sizes.H], [...axes, sizes.H]]);
      await expectFloats(ofExperts, experts, 'fusedExperts');
      await expectFloats(ofMoe, moe, 'fusedMoe');
    }
  });

  it('may be nested arrays', async () => {
    const {x, w1, w2} = tensors(caseOf(sizes), sizes);
    const logits = randomTensor([sizes.T, sizes.E], 3);
    const wanted = await values(tf.fusedMoe(x, w1, w2, logits, 2));
    const [arrays, logitArrays] = await Promise.all([
      tf.reshape<tf.Rank.R3>(x, [2, 3, sizes.H]).array(), tf.reshape<tf.Rank.R3>(logits, [2, 3, sizes.E]).array(),
    ]);
    const given = tf.fusedMoe(arrays, w1, w2, logitArrays, 2);
    expect(given.shape).toEqual([2, 3, sizes.H]);
    await expectFloats(given, wanted, 'fusedMoe');
  });

  it('have gradients in their own shape', async () => {
    const {x, w1, w2} = tensors(caseOf(sizes), sizes);
    const logits = randomTensor([sizes.T, sizes.E], 3);
    const f = (rows: tf.Tensor, router: tf.Tensor) => tf.square(tf.fusedMoe(rows, w1, w2, router, 2));
    const wanted = tf.grads(f)([x, logits]);
    const axes = [2, 3];
    const given = tf.grads(f)([x.reshape([...axes, sizes.H]), logits.reshape([...axes, sizes.E])]);
    expect(given.map(({shape}) => shape)).toEqual([[2, 3, sizes.H], [2, 3, sizes.E]]);
    for (const [i, name] of ['x', 'logits'].entries()) {
      await expectWithin(given[i], await values(wanted[i]), (_, value) => 1e-5 * Math.max(1, Math.abs(value)), name);
    }
  });

  it('may be none along any axis', () => {
    const {w1, w2} = tensors(caseOf(sizes), sizes);
    for (const axes of [[0, 3], [3, 0], [2, 0, 3]]) {
      const zeros = (size: number, dtype: 'float32' | 'int32' = 'float32') => tf.zeros([...axes, size] as [number, number], dtype);
      const {topkWeights, topkIds} = tf.moeTopk(zeros(sizes.E), 2);
      expect([topkWeights.shape, topkIds.shape]).toEqual([[...axes, 2], [...axes, 2]] as typeof topkIds.shape[]);
      const merged = tf.fusedExperts(zeros(sizes.H), w1, w2, zeros(2), zeros(2, 'int32'));
      const block = tf.fusedMoe(zeros(sizes.H), w1, w2, zeros(sizes.E), 2);
      expect([merged.shape, block.shape]).toEqual([[...axes, sizes.H], [...axes, sizes.H]] as typeof topkIds.shape[]);
    }
  });

  it('must be the same in every argument', () => {
    const {w1, w2} = tensors(caseOf(sizes), sizes);
    const x = tf.zeros<tf.Rank.R3>([2, 3, 4]);
    const calls: Array<[call: () => unknown, message: string]> = [
      [() => tf.fusedMoe(x, w1, w2, tf.zeros([3, 2, 3]), 2),
        'Error in fusedMoe: routerLogits must have the shape of hiddenStates [2,3,4] except for the last axis, but is [3,2,3].'],
      [() => tf.fusedMoe(x, w1, w2, tf.zeros([6, 3]), 2),
        'Error in fusedMoe: routerLogits must have the shape of hiddenStates [2,3,4] except for the last axis, but is [6,3].'],
      [() => tf.fusedMoe(x, w1, w2, tf.zeros([2, 3, 4]), 2),
        'Error in fusedMoe: routerLogits must have a column for each expert (E = 3, the number of experts of w1), but has 4.'],
      [() => tf.fusedExperts(x, w1, w2, tf.zeros([2, 3, 2]), tf.zeros([2, 2, 2], 'int32')),
        'Error in fusedExperts: topkIds must have the shape of hiddenStates [2,3,4] except for the last axis, but is [2,2,2].'],
      [() => tf.fusedExperts(x, w1, w2, tf.zeros([6, 2]), tf.zeros([2, 3, 2], 'int32')),
        'Error in fusedExperts: topkWeights must have the shape of topkIds [2,3,2], but is [6,2].'],
      [() => tf.fusedExperts(x, tf.zeros([3, 4, 5]), w2, tf.zeros([2, 3, 2]), tf.zeros([2, 3, 2], 'int32')),
        "Error in fusedExperts: w1 must be [L, 2I, H] with H = 4 for hiddenStates [2,3,4] and weightFormat 'outIn', but is " +
        "[3,4,5]. It fits weightFormat 'inOut'."],
      [() => tf.fusedMoe([1, 2, 3, 4], w1, w2, [[0, 0, 0]], 2),
        'Error in fusedMoe: hiddenStates must be rank 2 [T, H] or more, but got rank 1 [4]. Reshape it to [-1, H].'],
      [() => tf.fusedMoe(tf.zeros<tf.Rank.R3>([2, 3, 0]), w1, w2, [[0, 0, 0]], 2),
        'Error in fusedMoe: hiddenStates must have at least 1 column (H), but has 0.'],
    ];
    for (const [call, message] of calls) {
      expect(call).toThrowError(message);
    }
  });
});

describeWithFlags('returnRouting', ALL_ENVS, () => {
  it('gives what moeTopk chose, with the output', async () => {
    const {x, w1, w2} = tensors(caseOf(sizes), sizes);
    const logits = randomTensor([sizes.T, sizes.E], 3);
    const options = {scoring: 'sigmoid', routedScalingFactor: 2.5} as const;
    const wanted = tf.moeTopk(logits, 2, options);
    const wantedOutput = await values(tf.fusedMoe(x, w1, w2, logits, 2, options));
    const before = tf.memory().numTensors;
    const results = [
      tf.fusedMoe(x, w1, w2, logits, 2, {...options, returnRouting: true}),
      x.fusedMoe(w1, w2, logits, 2, {...options, returnRouting: true}),
    ];
    expect(tf.memory().numTensors).toBe(before + 6);
    for (const {output, topkWeights, topkIds} of results) {
      await expectFloats(output, wantedOutput, 'output');
      await expectFloats(topkWeights, await values(wanted.topkWeights), 'topkWeights');
      await expectInts(topkIds, (await wanted.topkIds.data()) as Int32Array, 'topkIds');
    }
    const along = tf.fusedMoe(x.reshape([2, 3, sizes.H]), w1, w2, logits.reshape([2, 3, sizes.E]), 2, {returnRouting: true});
    expect([along.output.shape, along.topkWeights.shape, along.topkIds.shape]).toEqual([[2, 3, sizes.H], [2, 3, 2], [2, 3, 2]]);
    const outputs = [false, null].map((returnRouting) => tf.fusedMoe(x, w1, w2, logits, 2, {...options, returnRouting}));
    await expectFloats((outputs as tf.Tensor[])[0], wantedOutput, 'false');
    await expectFloats((outputs as tf.Tensor[])[1], wantedOutput, 'null');
    expect(() => tf.fusedMoe(x, w1, w2, logits, 2, {returnRouting: 'yes' as never})).toThrowError(
      "Error in fusedMoe: returnRouting must be a boolean, but is the string 'yes'.");
  });

  it('has gradients through the weights together with gradients through the output', async () => {
    const {x, w1, w2} = tensors(caseOf(sizes), sizes);
    const logits = randomTensor([sizes.T, sizes.E], 3);
    const given = tf.grad((router) => {
      const {output, topkWeights} = tf.fusedMoe(x, w1, w2, router, 2, {returnRouting: true, renormalize: false});
      return tf.add(tf.sum(tf.square(output)), tf.sum(tf.square(topkWeights)));
    })(logits);
    const wanted = tf.grad((router) => {
      const {topkWeights, topkIds} = tf.moeTopk(router, 2, {renormalize: false});
      const output = tf.fusedExperts(x, w1, w2, topkWeights, topkIds);
      return tf.add(tf.sum(tf.square(output)), tf.sum(tf.square(topkWeights)));
    })(logits);
    await expectWithin(given, await values(wanted), (_, value) => 1e-5 * Math.max(1, Math.abs(value)), 'logits');
    const ofOutput = tf.grad((router) => tf.sum(tf.square(tf.fusedMoe(x, w1, w2, router, 2, {renormalize: false}))))(logits);
    const difference = await values(tf.max(tf.abs(tf.sub(given, ofOutput))));
    expect(difference[0]).toBeGreaterThan(1e-3);
  });
});
