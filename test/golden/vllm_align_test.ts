/** moeAlignBlockSize on the docstring examples of vLLM and on its test grid. The grid is compared by hashes. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectInts} from '../support/expect';
import {distinctIds} from '../support/routings';
import {idsTensor} from '../support/tensors';
import align from './vllm_align.json';

type IntArray = {shape: number[]; data: number[]};
type AlignCase = {
  name: string;
  op: string;
  params: {block_size: number; num_experts: number; pad_sorted_ids: boolean; ignore_invalid_experts: boolean};
  inputs: {topk_ids: IntArray; expert_map?: IntArray};
  expected: {num_tokens_post_pad: number; sorted_token_ids: IntArray; expert_ids: IntArray};
  expected_seed_era: {num_tokens_post_pad: number; expert_ids: IntArray};
};

const cases = (align.cases as unknown as AlignCase[]).filter(({op}) => op === 'moe_align_block_size');

/** The hash of the grid's values: sum of (a[i] + 1) * (i * 2654435761 + 1) mod 2^32. */
function hash32(values: ArrayLike<number>, length: number): number {
  let hash = 0;
  for (let i = 0; i < length; i++) {
    hash = (hash + Math.imul(values[i] + 1, Math.imul(i, 2654435761) + 1)) >>> 0;
  }
  return hash;
}

describeWithFlags('vLLM align cases', ALL_ENVS, (env) => {
  it('are 8 and 160', () => {
    expect(cases.length).toBe(8);
    expect(align.grid.length).toBe(160);
  });

  for (const {name, params, inputs, expected, expected_seed_era: seedEra} of cases) {
    it(name, async () => {
      const result = tf.moeAlignBlockSize(
        tf.tensor2d(inputs.topk_ids.data, inputs.topk_ids.shape as [number, number], 'int32'),
        params.block_size,
        params.num_experts,
        {
          expertMap: inputs.expert_map?.data,
          padSortedIds: params.pad_sorted_ids,
          ignoreInvalidExperts: params.ignore_invalid_experts,
        },
      );
      // Our tails are those of vLLM at the time of the recording. Dropped experts, and fewer blocks for few
      // assignments, came later.
      const dropsExperts = params.ignore_invalid_experts;
      const wanted = dropsExperts ? expected : seedEra;
      const numBlocks = expected.expert_ids.data.length;
      await expectInts(result.numTokensPostPad, [wanted.num_tokens_post_pad], 'numTokensPostPad');
      await expectInts(result.expertIds, wanted.expert_ids.data.slice(0, numBlocks), 'expertIds');
      await expectInts(result.sortedTokenIds, expected.sorted_token_ids.data, 'sortedTokenIds');
    });
  }

  // The larger points take too long on software GPUs. The bench checks large shapes on real GPUs.
  const points = env.name.startsWith('web') ? align.grid.filter((point) => point.n_token * point.topk <= 256) : align.grid;
  it(`${points.length} of 160 grid points by hash`, async () => {
    const check = async (point: (typeof points)[number]) => {
      const {n_token: numTokens, n_expert: numExperts, topk, block: blockSize} = point;
      const what = `T ${numTokens}, E ${numExperts}, K ${topk}, B ${blockSize}`;
      const ids = distinctIds(numTokens, numExperts, topk, numTokens * 7919 + numExperts * 31 + topk);
      const result = tf.moeAlignBlockSize(idsTensor(ids, topk), blockSize, numExperts);
      const [sorted, experts, [postPad]] = await Promise.all([
        result.sortedTokenIds.data(),
        result.expertIds.data(),
        result.numTokensPostPad.data(),
      ]);
      tf.dispose(result);
      expect(postPad).withContext(what).toBe(point.post_pad);
      expect(sorted.length).withContext(what).toBe(point.len_new);
      expect(hash32(sorted, postPad)).withContext(what).toBe(point.hash_sorted_prefix);
      expect(hash32(experts, postPad / blockSize)).withContext(what).toBe(point.hash_expert_ids_prefix);
      const padded = tf.moeAlignBlockSize(idsTensor(ids, topk), blockSize, numExperts, {padSortedIds: true});
      const padSize = Math.min(point.len_seed_era_padded, numTokens * topk * blockSize);
      expect(padded.sortedTokenIds.size).withContext(what).toBe(padSize);
      tf.dispose(padded);
    };
    // A few at a time, because each waits for its results.
    for (let first = 0; first < points.length; first += 16) {
      await Promise.all(points.slice(first, first + 16).map(check));
    }
  });
});
