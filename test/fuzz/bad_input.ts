/** Calls that an op refuses: one clear error, nothing lost, nothing left behind. */
import * as fc from 'fast-check';
import * as tf from '../../src/tf';
import type {Attempts} from './attempt';
import {assertNoDeviceErrors, assertSameMemory, memoryInUse} from './backend';
import {assertThrows} from './call';

const x = [[1, 2], [3, 4]];
const ids = [[0], [1]];
const weights = [x, x];

const refused: Record<string, {run: () => tf.TensorContainer; message: string}> = {
  'ids of other tokens': {run: () => tf.moePermute(x, [[0], [1], [0]], 2), message: 'Error in moePermute: topkIds must'},
  'ids of floats': {run: () => tf.moePermute(x, [[0.5], [1]], 2), message: 'topkIds must hold integers'},
  'no experts': {run: () => tf.moePermute(x, ids, 0), message: 'Error in moePermute: numExperts must'},
  'a map of other experts': {run: () => tf.moePermute(x, ids, 2, {expertMap: [0]}), message: 'Error in moePermute: expertMap must'},
  'more rows than int32 counts': {run: () => tf.moePermute(x, ids, 2, {alignBlockSize: 2 ** 31 - 1, a1qScale: x}), message: 'Error in moePermute:'},
  'blocks of nothing': {run: () => tf.moeAlignBlockSize(ids, 0, 2), message: 'Error in moeAlignBlockSize: blockSize must'},
  'scales of other tokens': {
    run: () => tf.moePermuteBlockAligned(x, ids, 2, 2, {a1qScale: [[1], [2], [3]]}),
    message: 'Error in moePermuteBlockAligned: a1qScale must',
  },
  'an inverse of other slots': {run: () => tf.moeUnpermute(x, x, [0]), message: 'Error in moeUnpermute: invPermutedIdx must'},
  'an unknown option': {run: () => tf.moeUnpermuteAndReduce(x, ids, null, {other: 1} as object), message: "unknown option 'other'"},
  'rank 2 in place of 3': {run: () => tf.moeSum(x), message: 'Error in moeSum: x must be rank 3'},
  'more experts than there are': {run: () => tf.moeTopk(x, 3), message: 'Error in moeTopk: topk must'},
  'a mask of other tokens': {run: () => tf.moeRouterZLoss(x, {mask: [1]}), message: 'Error in moeRouterZLoss: mask must'},
  'ids of floats, in a loss': {run: () => tf.moeLoadBalancingLoss(x, [[0.5], [1]]), message: 'topkIds must hold integers'},
  'offsets of other experts': {run: () => tf.moeGroupedMatMul(x, weights, [0, 2]), message: 'Error in moeGroupedMatMul: expertFirstTokenOffset must'},
  'w2 of other experts': {run: () => tf.fusedExperts(x, weights, [x], ids, ids), message: 'Error in fusedExperts: w2 must'},
  'logits of other experts': {run: () => tf.fusedMoe(x, weights, [[[1], [1]], [[1], [1]]], [[1], [2]], 1), message: 'Error in fusedMoe: routerLogits must'},
  'codes of other weights': {
    run: () => tf.tidy(() => tf.moeGroupedMatMul(x, {...tf.moeQuantizeWeights([[[1, 2], [3, 4]]], {format: 'float16'}), shape: [2, 2, 2]}, [0, 1, 2])),
    message: 'Error in moeGroupedMatMul: weights.codes must be int32',
  },
  'a disposed tensor': {
    run: () => {
      const disposed = tf.tensor2d(x);
      disposed.dispose();
      return tf.moePermute(disposed, ids, 2);
    },
    message: 'hiddenStates is disposed',
  },
  'a cast of integers, and ids of other tokens': {
    run: () => tf.tidy(() => tf.moePermute(tf.cast(tf.tensor2d(x, [2, 2], 'int32'), 'float32'), [[0]], 2)),
    message: 'Error in moePermute: topkIds must',
  },
};

export const badInputs: Attempts = {
  weight: 1,
  arbitrary: fc.constantFrom(...Object.keys(refused)).map((name) => ({
    name: 'bad input',
    input: {name},
    numAssignments: 0,
    check: async () => {
      const before = await memoryInUse();
      assertThrows(refused[name].run, refused[name].message);
      assertSameMemory(before, await memoryInUse());
      await assertNoDeviceErrors();
    },
  })),
};
