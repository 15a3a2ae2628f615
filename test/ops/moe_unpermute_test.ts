import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as fc from 'fast-check';
import * as tf from '../../src/tf';
import {expectFloats, expectWithin} from '../support/expect';
import {naivePermute, naiveUnpermute} from '../naive/routing';
import {anyRouting, lcg, nastyRoutings} from '../support/routings';
import {idsTensor} from '../support/tensors';

const float = (next: () => number) => Math.fround(next() * 4 - 2);
const floats = (numRows: number, rowSize: number, next: () => number) =>
  Array.from({length: numRows}, () => Array.from({length: rowSize}, () => float(next)));
const matrix = (values: number[][], columns: number) => tf.tensor2d(values.flat(), [values.length, columns]);

describeWithFlags('moeUnpermute', ALL_ENVS, () => {
  for (const {name, ids, topk, numExperts, hiddenSize} of nastyRoutings) {
    it(`is the weighted sum of the naive loop, within the numerics: ${name}`, async () => {
      const next = lcg(ids.length + topk);
      for (const alignBlockSize of [undefined, 4]) {
        const naive = naivePermute({ids, topk, numExperts, alignBlockSize});
        const limit = naive.expertFirstTokenOffset[numExperts];
        // Rows that no slot may read hold NaN.
        const rows = floats(naive.numRows, hiddenSize, next).map((row, r) =>
          naive.rowToken[r] < 0 ? row.map(() => NaN) : row,
        );
        const weights = floats(ids.length, topk, next);
        const inverse = ids.map((_, t) => naive.invPermutedIdx.slice(t * topk, (t + 1) * topk));
        const {sums, magnitudes} = naiveUnpermute(rows, weights, inverse, hiddenSize, limit);
        const bounds = magnitudes.flat();
        const out = tf.moeUnpermute(
          matrix(rows, hiddenSize),
          matrix(weights, topk),
          tf.tensor1d(naive.invPermutedIdx, 'int32'),
          tf.tensor1d(naive.expertFirstTokenOffset, 'int32'),
        );
        expect(out.shape).toEqual([ids.length, hiddenSize]);
        await expectWithin(out, sums, (i) => (topk + 1) * 2 ** -24 * bounds[i], `B ${alignBlockSize}`);
        tf.dispose(out);
      }
    });
  }

  it('reverses moePermute for any routing: out = x * the weights of the slots with local experts', async () => {
    await fc.assert(
      fc.asyncProperty(anyRouting, fc.boolean(), async ({sizes, ids, expertMap, numLocalExperts}, aligned) => {
        const {topk, numExperts, hiddenSize, blockSize} = sizes;
        const next = lcg(7);
        // Small integers: every sum is exact.
        const x = Array.from({length: ids.length}, () => Array.from({length: hiddenSize}, () => Math.floor(next() * 9)));
        const weights = ids.map((tokenIds) => tokenIds.map(() => Math.floor(next() * 5)));
        const permuted = tf.moePermute(matrix(x, hiddenSize), idsTensor(ids, topk), numExperts, {
          expertMap,
          numLocalExperts,
          alignBlockSize: aligned ? blockSize : undefined,
        });
        const isHere = (id: number) =>
          id >= 0 && id < numExperts && expertMap[id] >= 0 && expertMap[id] < numLocalExperts;
        const wanted = x.map((row, t) =>
          row.map((value) => ids[t].reduce((sum, id, k) => sum + (isHere(id) ? weights[t][k] * value : 0), 0)),
        );
        const out = tf.moeUnpermute(
          permuted.permutedHiddenStates,
          matrix(weights, topk),
          permuted.invPermutedIdx,
          permuted.expertFirstTokenOffset,
        );
        await expectFloats(out, wanted, 'out');
        tf.dispose([permuted, out]);
      }),
      {numRuns: 40},
    );
  });

  it('skips an index below 0, at R, at V; the smaller of R and V counts', async () => {
    const rows = tf.tensor2d([[1], [10], [100], [1000]]);
    const weights = tf.ones<tf.Rank.R2>([3, 2]);
    const inverse = tf.tensor2d([[-1, 0], [4, 1], [2, 3]], [3, 2], 'int32');
    await expectFloats(tf.moeUnpermute(rows, weights, inverse, [0, 3]), [1, 10, 100], 'V = 3');
    await expectFloats(tf.moeUnpermute(rows, weights, inverse, [99]), [1, 10, 1100], 'V past R');
    await expectFloats(tf.moeUnpermute(rows, weights, inverse), [1, 10, 1100], 'without an offset');
    await expectFloats(tf.moeUnpermute(rows, weights, inverse, [4, 3, 0]), [0, 0, 0], 'V = 0');
    await expectFloats(tf.moeUnpermute(rows, weights, inverse, [-3]), [0, 0, 0], 'V < 0');
  });

  it('does not read the weight of a skipped slot', async () => {
    const weights = tf.tensor2d([[NaN, 2, Infinity]]);
    await expectFloats(tf.moeUnpermute([[3]], weights, [1, 0, -1], [0, 1]), [6], 'out');
  });

  it('passes NaN of a row that a slot names if no offset is given', async () => {
    await expectFloats(tf.moeUnpermute([[1], [NaN]], [[1, 1]], [0, 1]), [NaN], 'out');
  });

  it('reads rows that several slots name', async () => {
    await expectFloats(tf.moeUnpermute([[2], [3]], [[1, 10], [100, 1000]], [1, 1, 0, 1]), [33, 3200], 'out');
  });

  it('takes no tokens and no rows', async () => {
    const none = tf.moeUnpermute(tf.zeros([5, 3]), tf.zeros([0, 2]), tf.zeros([0], 'int32'), [0, 0]);
    expect(none.shape).toEqual([0, 3]);
    const noRows = tf.moeUnpermute(tf.zeros([0, 3]), tf.ones([2, 1]), tf.zeros([2, 1], 'int32'), [0]);
    await expectFloats(noRows, [0, 0, 0, 0, 0, 0], 'no rows');
  });

  it('assigns out; out may be the rows', async () => {
    const rows = tf.variable(tf.tensor2d([[1], [2]]));
    const result = tf.moeUnpermute(rows, [[3], [4]], [1, 0], null, {out: rows});
    await expectFloats(result, [6, 4], 'result');
    await expectFloats(rows, [6, 4], 'out');
  });

  it('takes the offset as an argument or among the options, which need no null before them', async () => {
    const rows = tf.tensor2d([[1], [2]]);
    const out = tf.variable(tf.zeros<tf.Rank.R2>([2, 1]));
    await expectFloats(tf.moeUnpermute(rows, [[3], [4]], [1, 0], {out}), [6, 4], 'out alone');
    await expectFloats(out, [6, 4], 'out');
    for (const result of [
      tf.moeUnpermute(rows, [[3], [4]], [1, 0], {expertFirstTokenOffset: [0, 1], out}),
      rows.moeUnpermute([[3], [4]], [1, 0], {expertFirstTokenOffset: [0, 1]}),
      tf.moeUnpermute(rows, [[3], [4]], [1, 0], null, {expertFirstTokenOffset: [0, 1]}),
      tf.moeUnpermute(rows, [[3], [4]], [1, 0], [0, 1], {expertFirstTokenOffset: null}),
      tf.moeUnpermute(rows, [[3], [4]], [1, 0], tf.tensor1d([0, 1], 'int32'), {}),
    ]) {
      await expectFloats(result, [0, 4], 'with an offset');
    }
    await expectFloats(out, [0, 4], 'out');
  });

  it('is chained', async () => {
    const rows = tf.tensor2d([[1], [2]]);
    await expectFloats(rows.moeUnpermute([[3], [4]], [1, 0]), [6, 4], 'out');
  });
});
