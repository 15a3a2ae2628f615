/** Mistakes that are possible on every GPU backend, as expectations for the specs of each backend. */
import * as tf from '../../src/tf';
import {
  MoeGroupedMatMulBackpropActivation,
  MoeGroupedMatMulBackpropWeights,
  MoeRankRows,
  MoeTopKBackprop,
  MoeUnpermute,
  MoeUnpermuteBackpropRows,
  MoeUnpermuteBackpropWeights,
} from '../../src/contract/kernel_names';
import {runMoeKernel} from '../../src/contract/run_kernel';
import {expectFloats, expectInts} from './expect';
import {naivePermute} from '../naive/routing';
import {distinctIds} from './routings';
import {countingRows, countingRowsOf, idsTensor} from './tensors';

/** Every option at once: four inputs and six outputs. */
const ids = distinctIds(37, 12, 3, 5).map((tokenIds, t) => (t % 5 === 0 ? [-1, tokenIds[1], 12] : tokenIds));
const expertMap = Array.from({length: 12}, (_, e) => (e % 3 === 0 ? -1 : e % 4));
const options = {expertMap, numLocalExperts: 4, alignBlockSize: 4, fillInvalidExpert: -7};

export async function expectAllOptions(hiddenSize: number): Promise<void> {
  const naive = naivePermute({ids, topk: 3, numExperts: 12, ...options});
  const result = tf.moePermute(countingRows(37, hiddenSize), idsTensor(ids, 3), 12, {
    ...options,
    a1qScale: countingRows(37, 5),
  });
  await expectFloats(result.permutedHiddenStates, countingRowsOf(naive.rowToken, hiddenSize), 'rows');
  await expectInts(result.expertFirstTokenOffset, naive.expertFirstTokenOffset, 'offsets');
  await expectInts(result.invPermutedIdx, naive.invPermutedIdx, 'inv');
  await expectInts(result.mIndices, naive.mIndices, 'mIndices');
  await expectInts(result.permutedIdx, naive.permutedIdx, 'permutedIdx');
  await expectFloats(result.a1qScale!, countingRowsOf(naive.scaleToken, 5), 'a1qScale');
  tf.dispose(result);
}

/** Results are right whatever buffers or textures hold; `poison` fills buffers or textures of these shapes with NaN. */
export async function expectNothingOfPoison(poison: (shapes: number[][]) => Promise<void>): Promise<void> {
  const numRows = 148;
  await poison([[numRows, 8], [numRows], [111], [5], [numRows, 5], [4], [37, 3]]);
  await expectAllOptions(8);

  await poison([[6, 1], [3, 2], [6], [18]]);
  const rows = tf.tensor2d([[1], [2], [3], [4], [5], [6]]);
  const unpermute = (y: tf.Tensor) => tf.moeUnpermute(y, [[1, 2], [3, 4], [5, 6]], [5, 0, 9, 1, -1, 3]);
  await expectFloats(unpermute(rows), [8, 8, 24], 'moeUnpermute');
  await poison([[6, 1], [18], [6]]);
  await expectFloats(tf.grad(unpermute)(rows), [2, 4, 0, 6, 0, 1], 'moeUnpermuteBackpropRows');

  await poison([[3, 2], [3, 4], [3, 3], [1, 3700], [1, 2]]);
  const routed = tf.moeTopk([[1, 2, 3, 2], [4, 4, 4, 4], [0, 0, 1, 1]], 2, {numExpertGroups: 2, topkGroups: 1});
  await expectInts(routed.topkIds, [2, 3, 0, 1, 2, 3], 'topkIds');
  const chosen = (logits: tf.Tensor) => tf.moeTopk(logits, 2, {scoring: 'sigmoid', renormalize: false}).topkWeights;
  await poison([[3, 4], [3, 2]]);
  const dLogits = tf.grad(chosen)(tf.tensor2d([[0, -9, 0, -9], [-9, 0, 0, -9], [0, 0, -9, -9]]));
  await expectFloats(dLogits, [0.25, 0, 0.25, 0, 0, 0.25, 0.25, 0, 0.25, 0.25, 0, 0], 'moeTopKBackprop');
  const wide = tf.moeTopk([Float32Array.from({length: 3700}, (_, e) => e % 3000)], 2);
  await expectInts(wide.topkIds, [2999, 2998], 'topkIds of many experts');

  await poison([[20], [10], [1], [6], [44]]);
  const aligned = tf.moeAlignBlockSize([[2, 0], [0, 1], [2, 1]], 2, 4);
  await expectInts(aligned.sortedTokenIds, [1, 2, 3, 5, 0, 4, 6, 6, 6, 6], 'sortedTokenIds');
  await expectInts(aligned.expertIds, [0, 1, 2, 0, 0], 'expertIds');
}

/** Results are right between tfjs's own ops, with nothing read before the last op. */
export async function expectRightBetweenOtherOps(): Promise<void> {
  const x = countingRows(16, 8);
  const topkIds = idsTensor(distinctIds(16, 6, 2, 3), 2);
  const weights = tf.fill<tf.Rank.R2>([16, 2], 0.5);
  const results: tf.Tensor[] = [];
  for (let i = 0; i < 40; i++) {
    results.push(
      tf.tidy(() => {
        const shifted = tf.add<tf.Tensor2D>(x, tf.mod(tf.scalar(i), tf.scalar(7)));
        const permuted = tf.moePermute(shifted, topkIds, 6, {alignBlockSize: (i % 3) + 1});
        const outputs = tf.mul(permuted.permutedHiddenStates, tf.scalar(2));
        const merged = tf.moeUnpermute(outputs, weights, permuted.invPermutedIdx, permuted.expertFirstTokenOffset);
        return tf.gather(merged, tf.tensor1d([3, 0], 'int32'));
      }),
    );
  }
  for (let i = 0; i < 40; i++) {
    const row = (t: number) => Array.from({length: 8}, (_, h) => 2 * (t * 8 + h + (i % 7)));
    await expectFloats(results[i], [row(3), row(0)], `result ${i}`);
  }
}

/** No op, and no gradient, waits for the device. */
export async function expectNoReads(): Promise<void> {
  const backend = tf.backend();
  const reads = [spyOn(backend, 'read').and.callThrough(), spyOn(backend, 'readSync').and.callThrough()];
  const permuted = tf.moePermute(countingRows(5, 4), [[0], [1], [2], [1], [0]], 3);
  const gradient = tf.grad((y: tf.Tensor) => tf.moeUnpermute(y, tf.ones([5, 1]), permuted.invPermutedIdx));
  gradient(permuted.permutedHiddenStates);
  tf.moeAlignBlockSize([[0], [1]], 2, 2);
  const routerLoss = (logits: tf.Tensor) => {
    const {topkIds, topkWeights} = tf.moeTopk(logits, 2, {scoreCorrectionBias: [0, 1, 2], scoring: 'sigmoid'});
    return tf.add(tf.sum(topkWeights), tf.moeLoadBalancingLoss(logits, topkIds)) as tf.Scalar;
  };
  tf.grad(routerLoss)(countingRows(4, 3));
  reads.forEach((read) => expect(read).not.toHaveBeenCalled());
  await permuted.mIndices.data();
}

/** Calls that together run every kernel, on tensors that live outside the calls. */
export function callsOfAllKernels(): Array<[name: string, call: () => tf.TensorContainer]> {
  const x = tf.cast(tf.tensor2d([[1, 2], [3, 4]], undefined, 'int32'), 'float32') as tf.Tensor2D;
  const topkIds = tf.tensor2d([[0, 1], [1, -1]], [2, 2], 'int32');
  const chosenIds = tf.tensor2d([[0, 1], [1, 0]], [2, 2], 'int32');
  const expertMap = tf.tensor1d([1, 0], 'int32');
  const manyIds = idsTensor(distinctIds(300, 800, 1, 3), 1);
  const ofMany = tf.zeros<tf.Rank.R2>([300, 2]);
  const offset = tf.tensor1d([0, 1, 2], 'int32');
  const slots = {invPermutedIdx: topkIds, expertFirstTokenOffset: offset};
  const weights = tf.ones<tf.Rank.R3>([1, 2, 2]);
  const routing = {scoring: 'sigmoid', renormalize: true, routedScalingFactor: 1} as const;
  const activation = {activation: 'silu', gated: true, gateUp: 'concatenated', swigluAlpha: 1, swigluLimit: 1} as const;
  const rows = tf.slice(x, [0, 0], [2, 1]);
  const unquantized = tf.ones<tf.Rank.R3>([1, 2, 32]);
  const quantized = tf.moeQuantizeWeights(unquantized);
  const wide = tf.ones<tf.Rank.R2>([2, 32]);
  const rowOf2 = tf.ones<tf.Rank.R2>([1, 2]);
  const oneExpert = tf.tensor1d([0, 2], 'int32');
  return [
    ['moePermute', () => tf.moePermute(x, topkIds, 2, {a1qScale: x, expertMap, alignBlockSize: 2})],
    ['moePermute among many experts', () => tf.moePermute(ofMany, manyIds, 800, {alignBlockSize: 2})],
    ['moeAlignBlockSize', () => tf.moeAlignBlockSize(topkIds, 2, 2, {expertMap})],
    ['moeAlignBlockSize among many experts', () => tf.moeAlignBlockSize(manyIds, 2, 800)],
    ['MoeUnpermute', () => runMoeKernel(MoeUnpermute, {permutedHiddenStates: x, topkWeights: x, ...slots}, {})],
    ['MoeUnpermuteBackpropRows', () => runMoeKernel(MoeUnpermuteBackpropRows, {dy: x, topkWeights: x, ...slots}, {numRows: 3})],
    ['MoeUnpermuteBackpropWeights', () =>
      runMoeKernel(MoeUnpermuteBackpropWeights, {dy: x, permutedHiddenStates: x, ...slots}, {})],
    ['MoeRankRows', () => runMoeKernel(MoeRankRows, {values: tf.reshape(rows, [2]), expertFirstTokenOffset: offset}, {})],
    ['moeSum', () => tf.moeSum(tf.reshape<tf.Rank.R3>(x, [1, 2, 2]))],
    ['moeTopk', () =>
      tf.moeTopk(x, 1, {...routing, scoreCorrectionBias: [1, 2], numExpertGroups: 2, topkGroups: 1})],
    ['MoeTopKBackprop', () => runMoeKernel(MoeTopKBackprop, {dTopkWeights: x, routerLogits: x, topkIds: chosenIds}, routing)],
    ['moeGroupedMatMul', () => tf.moeGroupedMatMul(x, [weights, weights], offset, {...activation, bias: x})],
    ['fusedExperts of few tokens', () =>
      tf.fusedExperts(x, tf.ones([2, 4, 2]), tf.ones([2, 2, 2]), x, topkIds, {expertMap, w1Bias: tf.ones([2, 4]), w2Bias: x})],
    ['moeQuantizeWeights', () => tf.moeQuantizeWeights(unquantized, {symmetric: false})],
    ['moeQuantizeWeights to 16 bits', () => tf.moeQuantizeWeights(unquantized, {format: 'bfloat16'})],
    ['moeDequantizeWeights', () => tf.moeDequantizeWeights(quantized)],
    ['moeGroupedMatMul of codes', () => tf.moeGroupedMatMul(wide, quantized, oneExpert, {bias: rowOf2})],
    ['fusedExperts of codes', () =>
      tf.fusedExperts(wide, quantized, tf.ones([1, 32, 2]), tf.ones([2, 1]), tf.zeros([2, 1], 'int32'), {gated: false})],
    ['MoeGroupedMatMulBackpropActivation', () => runMoeKernel(MoeGroupedMatMulBackpropActivation, {dy: rows, z: x}, activation)],
    ['MoeGroupedMatMulBackpropWeights', () =>
      runMoeKernel(MoeGroupedMatMulBackpropWeights, {a: x, b: x, expertFirstTokenOffset: offset}, {firstExpert: 0, numExperts: 2})],
  ];
}

/**
 * A program that throws leaves neither a tensor of tfjs nor memory of the device, by `countUsed`. `onProgram` calls
 * back before each program of this package until its result is called.
 */
export async function expectNothingLeftByThrows(
  onProgram: (announce: () => void) => () => void,
  countUsed: () => Promise<number>,
): Promise<void> {
  for (const [name, call] of callsOfAllKernels()) {
    let numPrograms = 0;
    const undoCount = onProgram(() => numPrograms++);
    tf.dispose(tf.tidy(call));
    undoCount();
    const before = {numTensors: tf.memory().numTensors, numUsed: await countUsed()};
    for (let failing = 0; failing < numPrograms; failing++) {
      let program = 0;
      const undo = onProgram(() => {
        if (program++ === failing) {
          throw new Error('This program fails.');
        }
      });
      expect(() => tf.tidy(call)).withContext(name).toThrowError('This program fails.');
      undo();
      const after = {numTensors: tf.memory().numTensors, numUsed: await countUsed()};
      expect(after).withContext(`${name}, program ${failing} of ${numPrograms}`).toEqual(before);
    }
  }
}
