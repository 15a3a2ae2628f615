import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as fc from 'fast-check';
import * as tf from '../../src/tf';
import {expectInts} from '../support/expect';
import {naiveAlign} from '../naive/routing';
import {anyRouting, nastyMaps, nastyRoutings} from '../support/routings';
import {idsTensor} from '../support/tensors';

async function expectAligned(args: Parameters<typeof naiveAlign>[0]): Promise<void> {
  const {ids, topk, blockSize, numExperts, expertMap, padSortedIds, ignoreInvalidExperts} = args;
  const options = {expertMap, padSortedIds, ignoreInvalidExperts};
  const result = tf.moeAlignBlockSize(idsTensor(ids, topk), blockSize, numExperts, options);
  const naive = naiveAlign(args);
  const what = `B ${blockSize} ${JSON.stringify(options).slice(0, 200)}`;
  await Promise.all([
    expectInts(result.sortedTokenIds, naive.sortedTokenIds, `${what}: sortedTokenIds`),
    expectInts(result.expertIds, naive.expertIds, `${what}: expertIds`),
    expectInts(result.numTokensPostPad, naive.numTokensPostPad, `${what}: numTokensPostPad`),
  ]);
  tf.dispose(result);
}

describeWithFlags('moeAlignBlockSize', ALL_ENVS, ({backendName}) => {
  for (const {name, ids, topk, numExperts} of nastyRoutings) {
    it(`equals the naive loop: ${name}`, async () => {
      const blocks = [1, 3, 16].flatMap((blockSize) => [
        {blockSize},
        {blockSize, padSortedIds: true},
        {blockSize, ignoreInvalidExperts: true},
      ]);
      const maps = nastyMaps(numExperts).flatMap(({expertMap}) => [
        {blockSize: 4, expertMap},
        {blockSize: 4, expertMap, ignoreInvalidExperts: true},
      ]);
      await Promise.all([...blocks, ...maps].map((options) => expectAligned({ids, topk, numExperts, ...options})));
    });
  }

  it('equals the naive loop where few assignments leave a few hundred places to fill, or many hundred thousand', async () => {
    for (const blockSize of [60, 250, 1000, 2 ** 16]) {
      await expectAligned({ids: [[3, 1], [1, 0]], topk: 2, blockSize, numExperts: 4});
    }
  });

  it('equals the naive loop for any routing', async () => {
    await fc.assert(
      fc.asyncProperty(anyRouting, fc.boolean(), fc.boolean(), fc.boolean(), async (routing, mapped, padSortedIds, ignoreInvalidExperts) => {
        const {sizes, ids} = routing;
        const expertMap = mapped ? routing.expertMap : undefined;
        await expectAligned({ids, ...sizes, expertMap, padSortedIds, ignoreInvalidExperts});
      }),
      {numRuns: 60},
    );
  });

  it('labels blocks with map entries unchanged, whatever the entries are', async () => {
    // On webgl no int32 tensor holds numbers past 2^24 exactly.
    const expertMap = backendName === 'webgl' ? [-(2 ** 24), 2 ** 24 - 1] : [-(2 ** 31), 2 ** 31 - 1];
    const result = tf.moeAlignBlockSize([[1], [0]], 2, 2, {expertMap});
    await expectInts(result.expertIds, expertMap, 'expertIds');
  });
});
