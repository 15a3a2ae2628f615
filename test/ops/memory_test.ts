/** The memory of the ops: tf.memory() returns to its first value. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectFloats} from '../support/expect';

const x = [[1, 2], [3, 4]];
const ids = [[0, 1], [1, -1]];
const weights = [[1, 2], [3, 4]];
const map = [0, 1];
const scale = [[1], [2]];

/** Each op with every option, on arrays, so that the ops make the tensors too. */
const calls: Array<[name: string, call: () => tf.TensorContainer]> = [
  ['moePermute', () => tf.moePermute(x, ids, 2, {a1qScale: scale, expertMap: map, alignBlockSize: 2, fillInvalidExpert: 3})],
  ['moePermute with a scalar scale', () => tf.moePermute(x, ids, 2, {a1qScale: 0.5})],
  ['moePermute without tokens', () => tf.moePermute(tf.zeros([0, 2]), tf.zeros([0, 1], 'int32'), 2)],
  ['moeAlignBlockSize', () => tf.moeAlignBlockSize(ids, 2, 2, {expertMap: map, padSortedIds: true})],
  ['moePermuteBlockAligned', () => tf.moePermuteBlockAligned(x, ids, 2, 2, {expertMap: map, a1qScale: scale})],
  ['moeUnpermute', () => tf.moeUnpermute(x, weights, [0, 1, 1, 5], [0, 2])],
  ['moeUnpermute without an offset', () => tf.moeUnpermute(x, weights, ids)],
  ['moeUnpermuteAndReduce', () => tf.moeUnpermuteAndReduce(x, weights, ids)],
  ['moeUnpermuteAndReduce without an inverse', () => tf.moeUnpermuteAndReduce([...x, ...x], weights, null, {applyRouterWeightOnInput: true})],
  ['moeSum', () => tf.moeSum([x, x])],
  ['moeTopk', () => tf.moeTopk(x, 1)],
  ['moeTopk with every option', () => tf.moeTopk(x, 1, {scoring: 'softmax', renormalize: true, scoreCorrectionBias: [1, 2], numExpertGroups: 2, topkGroups: 1, routedScalingFactor: 2})],
  ['moeTopk of more experts than workgroup memory holds', () => tf.moeTopk([new Float32Array(3700)], 1)],
  ['moeLoadBalancingLoss', () => tf.moeLoadBalancingLoss(x, ids, {mask: [1, 0], scoring: 'sqrtSoftplus'})],
  ['moeLoadBalancingLoss of sequences', () => tf.moeLoadBalancingLoss([x, x], [ids, ids], {per: 'sequence'})],
  ['moeLoadBalancingLoss of counts', () => tf.moeLoadBalancingLoss(x, ids, {expertCounts: [1, 2]})],
  ['moeRouterZLoss', () => tf.moeRouterZLoss(x, {mask: [true, false]})],
  ['moeAddAuxiliaryLoss', () => tf.moeAddAuxiliaryLoss(x, 1)],
  ['moeGroupedMatMul', () => tf.moeGroupedMatMul(x, [x, x], [0, 1, 2], {bias: x, activation: 'silu', gated: true})],
  ['moeQuantizeWeights', () => tf.moeQuantizeWeights(new Array(2).fill([new Float32Array(32).fill(1)]), {symmetric: false, scaleFormat: 'float16'})],
  ['moeExpertMap', () => tf.moeExpertMap(4, 2, 1)],
  ['gradients', () =>
    tf.grads((rows: tf.Tensor, w: tf.Tensor, a1qScale: tf.Tensor) => {
      const permuted = tf.moePermute(rows, ids, 2, {a1qScale});
      const merged = tf.moeUnpermute(
        tf.mul(permuted.permutedHiddenStates, permuted.a1qScale!), w, permuted.invPermutedIdx, permuted.expertFirstTokenOffset);
      return tf.sum(tf.moeSum(tf.expandDims(merged, 1) as tf.Tensor3D));
    })([tf.tensor2d(x), tf.tensor2d(weights), tf.tensor2d(scale)])],
];

const routerLoss = (logits: tf.Tensor) => {
  const {topkIds, topkWeights} = tf.moeTopk(logits, 2);
  const balance = tf.add(tf.moeLoadBalancingLoss(logits, topkIds), tf.moeRouterZLoss(logits));
  return tf.sum(tf.square(tf.moeAddAuxiliaryLoss(topkWeights, balance as tf.Scalar))) as tf.Scalar;
};
calls.push(['gradients of a router', () => tf.grad(routerLoss)(tf.tensor2d(x))]);

/** With tensors of its own, in the caller's tidy. */
const callsOnTensors: typeof calls = [
  ['gradients of fusedExperts', () =>
    tf.grads((rows: tf.Tensor, w1: tf.Tensor, w2: tf.Tensor, topkWeights: tf.Tensor, w2Bias: tf.Tensor) =>
      tf.fusedExperts(rows, w1, w2, topkWeights, ids, {w2Bias}))(
      [tf.tensor2d(x), tf.ones([2, 2, 2]), tf.ones([2, 2, 1]), tf.tensor2d(weights), tf.ones([2, 2])])],
  ['moeGroupedMatMul of a list, and its gradients', () =>
    tf.grads((rows: tf.Tensor, w0: tf.Tensor, w1: tf.Tensor, bias: tf.Tensor) =>
      tf.moeGroupedMatMul(rows, [w0, w1], [0, 1, 2], {bias, activation: 'relu', gated: true}))(
      [tf.tensor2d(x), tf.tensor3d([x]), tf.tensor3d([x]), tf.tensor2d(x)])],
];

describeWithFlags('memory', ALL_ENVS, () => {
  for (const [name, call] of [...calls, ...callsOnTensors]) {
    it(`${name} leaves nothing but its result, and nothing after dispose`, async () => {
      const inTidy = () => tf.tidy(call);
      tf.dispose(inTidy());
      const before = tf.memory();
      const result = inTidy();
      const numResults = countTensors(result);
      expect(tf.memory().numTensors - before.numTensors).toBe(numResults);
      tf.dispose(result);
      expect(tf.memory().numTensors).toBe(before.numTensors);
      expect(tf.memory().numDataBuffers).toBe(before.numDataBuffers);
      expect(tf.memory().numBytes).toBe(before.numBytes);
    });
  }

  for (const [name, call] of calls) {
    it(`${name} disposes its own tensors outside a tidy`, () => {
      const constants = name.startsWith('gradients') || name === 'moePermute without tokens';
      const before = tf.memory().numTensors;
      tf.dispose(constants ? tf.tidy(call) : call());
      expect(tf.memory().numTensors).toBe(before);
    });
  }

  it('out keeps one tensor: the variable', async () => {
    const out = tf.variable(tf.zeros<tf.Rank.R2>([4, 2]));
    tf.dispose(tf.moePermute(x, ids, 2, {out}));
    const before = tf.memory();
    for (let i = 0; i < 3; i++) {
      tf.dispose(tf.moePermute(x, ids, 2, {out}));
    }
    expect(tf.memory().numTensors).toBe(before.numTensors);
    expect(tf.memory().numDataBuffers).toBe(before.numDataBuffers);
    await expectFloats(out, [1, 2, 1, 2, 3, 4, 0, 0], 'out');
    out.dispose();
  });

  it('a disposed result leaves the arguments alive', async () => {
    const rows = tf.tensor2d(x);
    const a1qScale = tf.scalar(2);
    tf.dispose(tf.moePermute(rows, ids, 2, {a1qScale}));
    await expectFloats(rows, [1, 2, 3, 4], 'rows');
    await expectFloats(a1qScale, [2], 'scale');
  });
});

/** Where the clones by which tfjs keeps tensors share their data. On wasm they are copies. */
const sharesClones = {predicate: ({backendName}: {backendName: string}) => backendName !== 'wasm'};

describeWithFlags('memory of a gradient', sharesClones, () => {
  const [T, K, E, H, I] = [12, 3, 4, 8, 4];
  const numIndices = 2 * T * K + E + 1;
  const topkIds = tf.util.flatten(Array.from({length: T}, (_, t) => [t % E, (t + 1) % E, t % 5 === 0 ? -1 : (t + 2) % E])) as number[];

  for (const gated of [true, false]) {
    it(`fusedExperts keeps the rows before the activation and indices, no outputs of experts${gated ? ', gated' : ''}`, () => {
      const w1 = tf.ones([E, gated ? 2 * I : I, H]);
      const given = [tf.ones([T, H]), w1, tf.ones([E, H, I]), tf.ones([T, K]), tf.ones([E, w1.shape[1]!]), tf.ones([E, H])];
      const slotIds = tf.tensor2d(topkIds, [T, K], 'int32');
      const keep = spyOn(tf.engine(), 'keep').and.callThrough();
      tf.dispose(tf.grads((...[hidden, up, down, topkWeights, w1Bias, w2Bias]: tf.Tensor[]) =>
        tf.fusedExperts(hidden, up, down, topkWeights, slotIds, {gated, w1Bias, w2Bias}))(given));
      const sizes = new Map(keep.calls.allArgs().map(([{dataId, size}]) => [dataId, size]));
      [...given, slotIds].forEach(({dataId}) => sizes.delete(dataId));
      const numKept = [...sizes.values()].reduce((sum, size) => sum + size, 0);
      expect(numKept).toBe(T * K * w1.shape[1]! + numIndices);
    });
  }
});

function countTensors(container: tf.TensorContainer): number {
  if (container instanceof tf.Tensor) {
    return 1;
  }
  return container instanceof Object
    ? Object.values(container).reduce((count: number, value) => count + countTensors(value as tf.TensorContainer), 0)
    : 0;
}
