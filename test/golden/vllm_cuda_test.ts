/**
 * The results of vLLM's CUDA ops, 67 cases. Integer outputs are exact; rows that vLLM left unwritten (-1) are 0. With
 * fewer assignments than experts, vLLM had more padding at the end than blocks can need; the rest of its output is
 * padding alone.
 */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectFloats, expectInts, expectWithin} from '../support/expect';
import {naiveAlign, naiveUnpermute} from '../naive/routing';
import {countingRows, countingRowsOf, idsTensor} from '../support/tensors';
import golden from './vllm_cuda.json';

type PermuteCase = {
  op: 'moePermute';
  numTokens: number;
  hidden: number;
  topk: number;
  numExperts: number;
  numLocalExperts: number;
  expertMap: number[] | null;
  alignBlockSize: number | null;
  fillInvalidExpert: number;
  topkIds: number[][];
  permutedRows: number;
  rowToken: number[];
  expertFirstTokenOffset: number[];
  invPermutedIdx: number[];
  permutedIdx: number[];
  mIndices: number[];
  a1qScaleCols?: number;
  a1qScale?: number[][];
  unpermute: {weights: number[][]; usesOffset: boolean; out: number[][]};
};
type AlignCase = {
  op: 'moeAlignBlockSize';
  topk: number;
  numExperts: number;
  blockSize: number;
  expertMap: number[] | null;
  padSortedIds: boolean;
  topkIds: number[][];
  sortedTokenIds: number[];
  expertIds: number[];
  numTokensPostPad: number;
};
type SumCase = {op: 'moeSum'; x: number[][][]; out: number[][]};

const cases = golden.cases as unknown as Array<PermuteCase | AlignCase | SumCase>;
const casesOf = <Op extends (typeof cases)[number]['op']>(op: Op) =>
  cases.filter((c): c is Extract<(typeof cases)[number], {op: Op}> => c.op === op);

describeWithFlags('vLLM on CUDA', ALL_ENVS, () => {
  it('is 67 cases', () => {
    expect(cases.length).toBe(67);
    expect(casesOf('moePermute').length + casesOf('moeAlignBlockSize').length + casesOf('moeSum').length).toBe(67);
  });

  casesOf('moePermute').forEach((c, number) => {
    const title = `moePermute ${number}: T ${c.numTokens}, K ${c.topk}, E ${c.numExperts}, L ${c.numLocalExperts}, B ${c.alignBlockSize}`;
    it(title, async () => {
      const result = tf.moePermute(countingRows(c.numTokens, c.hidden), idsTensor(c.topkIds, c.topk), c.numExperts, {
        expertMap: c.expertMap,
        numLocalExperts: c.numLocalExperts,
        alignBlockSize: c.alignBlockSize,
        fillInvalidExpert: c.fillInvalidExpert,
        a1qScale:
          c.a1qScaleCols == null ? null : tf.div(countingRows(c.numTokens, c.a1qScaleCols), tf.scalar(4)),
      });
      const numAssignments = c.numTokens * c.topk;
      const numRows =
        c.alignBlockSize == null ? c.permutedRows : Math.min(c.permutedRows, numAssignments * c.alignBlockSize);
      const cut = <T>(values: T[], ofPadding: (value: T) => boolean) => {
        expect(values.slice(numRows).every(ofPadding)).toBeTrue();
        return values.slice(0, numRows);
      };
      const rowToken = cut(c.rowToken, (token) => token === -1);
      expect(result.permutedHiddenStates.shape).toEqual([numRows, c.hidden]);
      expect(result.a1qScale == null).toBe(c.a1qScale == null);
      await Promise.all([
        expectFloats(result.permutedHiddenStates, countingRowsOf(rowToken, c.hidden), 'permutedHiddenStates'),
        expectInts(result.expertFirstTokenOffset, c.expertFirstTokenOffset, 'expertFirstTokenOffset'),
        expectInts(result.invPermutedIdx, c.invPermutedIdx, 'invPermutedIdx'),
        expectInts(result.permutedIdx, cut(c.permutedIdx, (assignment) => assignment === numAssignments), 'permutedIdx'),
        expectInts(result.mIndices, cut(c.mIndices, (expert) => expert === c.fillInvalidExpert), 'mIndices'),
        ...(result.a1qScale == null ? [] : [expectFloats(result.a1qScale, c.a1qScale!.slice(0, numRows), 'a1qScale')]),
      ]);

      const {weights, usesOffset, out} = c.unpermute;
      const columns = out[0].length;
      const rows = Array.from({length: c.permutedRows}, (_, r) =>
        Array.from({length: columns}, (__, h) => (((r * columns + h) % 97) - 48) / 8),
      );
      const inverse = weights.map((_, t) => c.invPermutedIdx.slice(t * c.topk, (t + 1) * c.topk));
      const limit = usesOffset ? c.expertFirstTokenOffset[c.numLocalExperts] : c.permutedRows;
      const {magnitudes} = naiveUnpermute(rows, weights, inverse, columns, limit);
      await expectWithin(
        tf.moeUnpermute(
          tf.tensor2d(rows, [c.permutedRows, columns]),
          weights,
          result.invPermutedIdx,
          usesOffset ? result.expertFirstTokenOffset : null,
        ),
        out,
        // Each side may err by the bound of one sum.
        (i) => 2 * (c.topk + 1) * 2 ** -24 * magnitudes.flat()[i],
        'moeUnpermute',
      );
    });
  });

  casesOf('moeAlignBlockSize').forEach((c, number) => {
    it(`moeAlignBlockSize ${number}: N ${c.topkIds.flat().length}, E ${c.numExperts}, B ${c.blockSize}`, async () => {
      const {blockSize, numExperts, padSortedIds} = c;
      const numAssignments = c.topkIds.flat().length;
      const numSortedIds = Math.min(c.sortedTokenIds.length, numAssignments * blockSize);
      expect(c.sortedTokenIds.slice(numSortedIds).every((assignment) => assignment === numAssignments)).toBeTrue();
      const expertIds = c.expertIds.slice(0, Math.ceil(numSortedIds / blockSize));
      expect(c.expertIds.slice(expertIds.length).every((label) => label === (c.expertMap?.[0] ?? 0))).toBeTrue();
      const expertMap = c.expertMap ?? undefined;
      const result = tf.moeAlignBlockSize(idsTensor(c.topkIds, c.topk), blockSize, numExperts, {expertMap, padSortedIds});
      await expectInts(result.expertIds, expertIds, 'expertIds');
      await expectInts(result.numTokensPostPad, [c.numTokensPostPad], 'numTokensPostPad');
      // vLLM has an order of its own within an expert: each block range must have the same ids, ours in ascending
      // order.
      const naive = naiveAlign({ids: c.topkIds, topk: c.topk, blockSize, numExperts, expertMap, padSortedIds});
      await expectInts(result.sortedTokenIds, naive.sortedTokenIds, 'sortedTokenIds');
      const sorted = Array.from(await result.sortedTokenIds.data());
      expect(sorted.length).toBe(numSortedIds);
      expect(setsByExpert(sorted, c)).toEqual(setsByExpert(c.sortedTokenIds, c));
    });
  });

  casesOf('moeSum').forEach((c, number) => {
    it(`moeSum ${number}: K ${c.x[0].length}`, async () => {
      const magnitudes = c.x.flatMap((rows) => rows[0].map((_, h) => rows.reduce((sum, row) => sum + Math.abs(row[h]), 0)));
      const bound = 2 * (c.x[0].length + 1) * 2 ** -24;
      await expectWithin(tf.moeSum(tf.tensor3d(c.x)), c.out, (i) => bound * magnitudes[i], 'moeSum');
    });
  });
});

/** The sorted ids of each expert's blocks, as sorted lists; padding included. */
function setsByExpert(sortedTokenIds: number[], {topkIds, numExperts, blockSize}: AlignCase): number[][] {
  let start = 0;
  return Array.from({length: numExperts}, (_, expert) => {
    const count = topkIds.flat().filter((id) => id === expert).length;
    const end = start + Math.ceil(count / blockSize) * blockSize;
    const ids = sortedTokenIds.slice(start, end).sort((a, b) => a - b);
    start = end;
    return ids;
  });
}
