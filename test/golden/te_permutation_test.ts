/**
 * TransformerEngine's permutation cases, values and gradients, expressed by our ops:
 *   an index map is topkIds; fewer output tokens are fewer rows for moeUnpermute
 *   a routing mask [T, E] is topkIds [T, K = E] with e where the mask is set and -1 elsewhere
 *   sorting chunks is moePermute with one expert for each chunk, numbered by its place in the new order
 */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectInts, expectWithin} from '../support/expect';
import te from './te_permutation.json';

type Encoded = {shape: number[]; data: number[]};
type TeCase = {
  name: string;
  op: 'te_index_map' | 'te_mask_map' | 'te_sort_chunks_by_index';
  params?: {num_out_tokens?: number | null; align_size?: number | null};
  inputs: Record<string, Encoded>;
  expected: Record<string, Encoded>;
};

const cases = te.cases as unknown as TeCase[];
const matrix = ({data, shape}: Encoded) => tf.tensor2d(data, shape as [number, number]);
const expectTe = (actual: tf.Tensor, wanted: Encoded, what: string) =>
  expectWithin(actual, wanted.data, (_, value) => 1e-6 + 1e-6 * Math.abs(value), what);

async function checkUnpermute(
  {inputs, expected}: TeCase,
  weights: tf.Tensor2D,
  inverse: tf.Tensor,
  offset: tf.Tensor | null,
  names: {out: string; gradRows: string; gradWeights?: string},
): Promise<void> {
  const rows = matrix(inputs['unpermute_input']);
  const unpermute = (y: tf.Tensor, w: tf.Tensor) => tf.moeUnpermute(y, w, inverse, offset);
  await expectTe(unpermute(rows, weights), expected[names.out], names.out);
  const [gradRows, gradWeights] = tf.grads(unpermute)([rows, weights], matrix(inputs['grad_out']));
  await expectTe(gradRows, expected[names.gradRows], names.gradRows);
  if (names.gradWeights != null) {
    await expectTe(gradWeights, expected[names.gradWeights], names.gradWeights);
  }
}

async function checkIndexMap(c: TeCase): Promise<void> {
  const {inputs, expected} = c;
  const x = matrix(inputs['x']);
  const [numTokens, topk] = inputs['indices'].shape;
  const ids = tf.tensor2d(inputs['indices'].data, [numTokens, topk], 'int32');
  const numExperts = Math.max(...inputs['indices'].data) + 1;
  const numRows = c.params?.num_out_tokens ?? numTokens * topk;
  const permuted = tf.moePermute(x, ids, numExperts);
  const firstRows = (y: tf.Tensor) => tf.slice(tf.moePermute(y, ids, numExperts).permutedHiddenStates, 0, numRows);
  await expectTe(firstRows(x), expected['permuted'], 'permuted');
  await expectInts(tf.slice(permuted.permutedIdx, 0, numRows), expected['sorted_slot'].data, 'sorted_slot');

  const rowIdMap = expected['row_id_map_k_by_T'].data;
  const inverse = await permuted.invPermutedIdx.data();
  inverse.forEach((row, i) => {
    const wanted = rowIdMap[(i % topk) * numTokens + Math.floor(i / topk)];
    expect(row < numRows ? row : -1).withContext(`row_id_map of assignment ${i}`).toBe(wanted);
  });

  await expectTe(tf.grad(firstRows)(x, matrix(inputs['permute_cotangent'])), expected['grad_x'], 'grad_x');
  const weights = inputs['probs'] == null ? tf.ones<tf.Rank.R2>([numTokens, topk]) : matrix(inputs['probs']);
  await checkUnpermute(c, weights, permuted.invPermutedIdx, null, {
    out: 'unpermuted',
    gradRows: 'grad_unpermute_input',
    gradWeights: inputs['probs'] == null ? undefined : 'grad_probs',
  });
}

async function checkMaskMap(c: TeCase): Promise<void> {
  const {inputs, expected} = c;
  const [numTokens, numExperts] = inputs['routing_map'].shape;
  const mask = inputs['routing_map'].data;
  const ids = tf.tensor2d(mask.map((set, i) => (set ? i % numExperts : -1)), [numTokens, numExperts], 'int32');
  const x = matrix(inputs['x']);
  const alignBlockSize = c.params?.align_size;
  const permuted = tf.moePermute(x, ids, numExperts, {alignBlockSize});
  const [numRows] = expected['permuted'].shape;
  expect((expected['rows'] as unknown as number)).toBe(numRows);
  await expectTe(tf.slice(permuted.permutedHiddenStates, 0, numRows), expected['permuted'], 'permuted');

  const offset = await permuted.expertFirstTokenOffset.data();
  const rowsOfExperts = Array.from({length: numExperts}, (_, e) => offset[e + 1] - offset[e]);
  expect(rowsOfExperts).toEqual((expected['target_tokens_per_expert'] ?? expected['tokens_per_expert']).data);
  const tokens = Array.from(await permuted.permutedIdx.data(), (i) => (i < mask.length ? Math.floor(i / numExperts) : -1));
  expect(tokens.slice(0, numRows)).toEqual(expected['source_token_or_minus1'].data);
  const inverse = await permuted.invPermutedIdx.data();
  expect(Array.from(inverse, (row, i) => (mask[i] ? row : -1))).toEqual(expected['row_of_token_expert'].data);

  const {invPermutedIdx, expertFirstTokenOffset} = permuted;
  await checkUnpermute(c, tf.ones([numTokens, numExperts]), invPermutedIdx, expertFirstTokenOffset, {
    out: 'unpermuted_sum',
    gradRows: 'grad_unpermute_input',
  });
  if (inputs['probs'] != null) {
    await checkUnpermute(c, matrix(inputs['probs']), invPermutedIdx, expertFirstTokenOffset, {
      out: 'unpermuted_merging_probs',
      gradRows: 'grad_unpermute_input_merging',
      gradWeights: 'grad_probs',
    });
  }
}

async function checkSortChunks({inputs, expected}: TeCase): Promise<void> {
  const order = inputs['sorted_index'].data;
  const ids = inputs['split_sizes'].data.flatMap((size, chunk) => new Array<number>(size).fill(order.indexOf(chunk)));
  const idColumn = tf.tensor2d(ids, [ids.length, 1], 'int32');
  const sortChunks = (x: tf.Tensor) => tf.moePermute(x, idColumn, order.length).permutedHiddenStates;
  const x = matrix(inputs['x']);
  await expectTe(sortChunks(x), expected['out'], 'out');
  await expectInts(tf.moePermute(x, idColumn, order.length).permutedIdx, expected['row_map'].data, 'row_map');
  await expectTe(tf.grad(sortChunks)(x, matrix(inputs['grad_out'])), expected['grad_x'], 'grad_x');
  if (inputs['probs'] != null) {
    await expectTe(sortChunks(tf.tensor2d(inputs['probs'].data, [ids.length, 1])), expected['probs_out'], 'probs_out');
  }
}

describeWithFlags('TransformerEngine permutation', ALL_ENVS, () => {
  it('is 12 cases', () => expect(cases.length).toBe(12));

  const checks = {te_index_map: checkIndexMap, te_mask_map: checkMaskMap, te_sort_chunks_by_index: checkSortChunks};
  for (const c of cases) {
    it(c.name, () => checks[c.op](c));
  }
});
