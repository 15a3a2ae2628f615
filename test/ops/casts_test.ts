/**
 * tf.cast changes no values if the new dtype can hold them, and tfjs keeps the tensor's array, buffer or texture. So
 * there are float32 tensors with the data of integers and booleans, and int32 tensors with the data of booleans. Ops go
 * by the dtype.
 */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectFloats, expectInts} from '../support/expect';

const integers = () => tf.cast(tf.tensor2d([[1, -2], [3, 4]], [2, 2], 'int32'), 'float32');
const booleans = (dtype: 'float32' | 'int32') => tf.cast(tf.tensor2d([[true, false], [false, true]]), dtype);
const scale = () => tf.cast(tf.tensor2d([[5], [6]], [2, 1], 'int32'), 'float32');
const ids = [[1], [0]];

describeWithFlags('casts', ALL_ENVS, (env) => {
  it('moePermute: rows and scales have the dtype of the tensor', async () => {
    const {permutedHiddenStates, a1qScale} = tf.moePermute(integers(), ids, 2, {a1qScale: scale()});
    await expectFloats(permutedHiddenStates, [3, 4, 1, -2], 'rows');
    await expectFloats(a1qScale!, [6, 5], 'a1qScale');
    const ofBooleans = tf.moePermute(booleans('float32'), ids, 2);
    await expectFloats(ofBooleans.permutedHiddenStates, [0, 1, 1, 0], 'rows of booleans');
  });

  it('moePermuteBlockAligned: rows and scales have the dtype of the tensor', async () => {
    const {permutedHiddenStates, a1qScale} = tf.moePermuteBlockAligned(integers(), ids, 2, 1, {a1qScale: scale()});
    await expectFloats(permutedHiddenStates, [3, 4, 1, -2], 'rows');
    await expectFloats(a1qScale!, [6, 5], 'a1qScale');
  });

  if (env.name !== 'webgl') {
    it('moves int32 rows of booleans as integers', async () => {
      const {permutedHiddenStates} = tf.moePermute(booleans('int32'), ids, 2);
      await expectInts(permutedHiddenStates, [0, 1, 1, 0], 'rows');
    });
  }

  it('takes words of codes of booleans', async () => {
    const codes = tf.cast(tf.tensor3d([[[true], [false]]] as unknown as number[][][], [1, 2, 1], 'bool'), 'int32');
    const weights: tf.QuantizedWeights = {format: 'int4', shape: [1, 2, 8], codes, groupSize: 8, scales: tf.ones([1, 2, 1]), zeroPoint: 0};
    const values = [1, ...new Array<number>(15).fill(0)];
    await expectFloats(tf.moeDequantizeWeights(weights), values, 'weights');
    await expectFloats(tf.moeGroupedMatMul([[3, 1, 1, 1, 1, 1, 1, 1]], weights, [0, 1]), [3, 0], 'product');
  });

  it('takes ids, maps and offsets of booleans', async () => {
    const topkIds = tf.cast(tf.tensor2d([[true], [false]]), 'int32');
    const expertMap = tf.cast(tf.tensor1d([true, false], 'bool'), 'int32');
    const {permutedHiddenStates, invPermutedIdx} = tf.moePermute([[1], [2]], topkIds, 2, {expertMap});
    await expectFloats(permutedHiddenStates, [1, 2], 'rows');
    await expectInts(invPermutedIdx, [0, 1], 'inv');
    const offset = tf.cast(tf.tensor1d([false, true], 'bool'), 'int32');
    await expectFloats(tf.moeGroupedMatMul([[2], [3]], [[[5]]], offset), [10, 0], 'product');
  });

  it('merges, sums, multiplies and routes', async () => {
    const x = integers();
    await expectFloats(tf.moeUnpermute(x, booleans('float32'), [[0, 1], [0, 1]]), [1, -2, 3, 4], 'moeUnpermute');
    await expectFloats(tf.moeSum(tf.expandDims(booleans('float32')) as tf.Tensor3D), [1, 1], 'moeSum');
    await expectFloats(tf.moeGroupedMatMul(x, tf.expandDims(x) as tf.Tensor3D, [0, 2]), [5, -5, -5, 25], 'moeGroupedMatMul');
    const {topkWeights, topkIds} = tf.moeTopk(x, 1, {scoring: 'sigmoid', renormalize: false, routedScalingFactor: 0});
    await expectFloats(topkWeights, [0, 0], 'topkWeights');
    await expectInts(topkIds, [0, 1], 'topkIds');
  });

  it('assigns them to a variable', async () => {
    const out = tf.variable(tf.zeros<tf.Rank.R2>([2, 2]));
    tf.moePermute(integers(), ids, 2, {out});
    await expectFloats(out, [3, 4, 1, -2], 'out');
    out.dispose();
  });

  it('has gradients in floats', async () => {
    const gradient = tf.grad((rows: tf.Tensor) => tf.moeUnpermute(rows, [[0.5], [0.25]], [1, 0]));
    await expectFloats(gradient(integers(), integers()), [0.75, 1, 0.5, -1], 'gradient');
  });
});
