import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as fc from 'fast-check';
import * as tf from '../../src/tf';
import {expectFloats, expectInts} from '../support/expect';
import {naivePermuteBlockAligned} from '../naive/routing';
import {anyRouting, nastyMaps, nastyRoutings} from '../support/routings';
import {countingRows, countingRowsOf, idsTensor} from '../support/tensors';

type Options = Parameters<typeof naivePermuteBlockAligned>[0] & {hiddenSize: number};

async function expectBlockAligned({hiddenSize, ...options}: Options): Promise<void> {
  const {ids, topk, blockSize, numExperts, expertMap} = options;
  const a1qScale = ids.length === 0 ? undefined : countingRows(ids.length, 2);
  const result = tf.moePermuteBlockAligned(
    countingRows(ids.length, hiddenSize), idsTensor(ids, topk), numExperts, blockSize, {expertMap, a1qScale});
  const naive = naivePermuteBlockAligned(options);
  await Promise.all([
    expectFloats(result.permutedHiddenStates, countingRowsOf(naive.rowToken, hiddenSize), 'rows'),
    expectInts(result.sortedTokenIds, naive.sortedTokenIds, 'sortedTokenIds'),
    expectInts(result.expertIds, naive.expertIds, 'expertIds'),
    expectInts(result.invPermutedIdx, naive.invPermutedIdx, 'invPermutedIdx'),
    // The [1, 2] scale of one token is gathered, like every other scale here.
    ...(a1qScale == null ? [] : [expectFloats(result.a1qScale!, countingRowsOf(naive.rowToken, 2), 'a1qScale')]),
  ]);
  tf.dispose(result);
}

describeWithFlags('moePermuteBlockAligned', ALL_ENVS, () => {
  for (const {name, ids, topk, numExperts, hiddenSize} of nastyRoutings) {
    it(`equals the naive loop: ${name}`, async () => {
      const blocks = [{blockSize: 1}, {blockSize: 4}];
      const maps = nastyMaps(numExperts).map(({expertMap}) => ({blockSize: 3, expertMap}));
      const routing = {ids, topk, numExperts, hiddenSize};
      await Promise.all([...blocks, ...maps].map((options) => expectBlockAligned({...routing, ...options})));
    });
  }

  it('equals the naive loop for any routing', async () => {
    await fc.assert(
      fc.asyncProperty(anyRouting, fc.boolean(), async ({sizes, ids, expertMap}, mapped) => {
        await expectBlockAligned({...sizes, ids, expertMap: mapped ? expertMap : undefined});
      }),
      {numRuns: 40},
    );
  });

  it('sorts as moeAlignBlockSize does', async () => {
    const ids = [[2, 0], [0, 1], [2, -1]];
    const aligned = tf.moeAlignBlockSize(ids, 4, 4, {padSortedIds: true});
    const permuted = tf.moePermuteBlockAligned(countingRows(3, 1), ids, 4, 4);
    const sorted = Array.from(await aligned.sortedTokenIds.data(), (i) => Math.min(i, 5));
    await expectInts(permuted.sortedTokenIds, sorted, 'sortedTokenIds');
  });
});
