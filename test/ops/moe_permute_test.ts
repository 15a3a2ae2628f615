import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as fc from 'fast-check';
import * as tf from '../../src/tf';
import {expectFloats, expectInts} from '../support/expect';
import {type NaivePermute, naivePermute} from '../naive/routing';
import {anyRouting, nastyMaps, nastyRoutings} from '../support/routings';
import {countingRows, countingRowsOf, idsTensor, webglTakesFloats} from '../support/tensors';

async function expectPermuted(result: tf.MoePermuteResult, naive: NaivePermute, hiddenSize: number, what: string) {
  expect(result.permutedHiddenStates.shape).withContext(what).toEqual([naive.numRows, hiddenSize]);
  await Promise.all([
    expectFloats(result.permutedHiddenStates, countingRowsOf(naive.rowToken, hiddenSize), `${what}: rows`),
    expectInts(result.expertFirstTokenOffset, naive.expertFirstTokenOffset, `${what}: offsets`),
    expectInts(result.invPermutedIdx, naive.invPermutedIdx, `${what}: inv`),
    expectInts(result.mIndices, naive.mIndices, `${what}: mIndices`),
    expectInts(result.permutedIdx, naive.permutedIdx, `${what}: permutedIdx`),
    ...(result.a1qScale == null
      ? []
      : [expectFloats(result.a1qScale, countingRowsOf(naive.scaleToken, 3), `${what}: a1qScale`)]),
  ]);
}

describeWithFlags('moePermute', ALL_ENVS, ({backendName}) => {
  for (const {name, ids, topk, numExperts, hiddenSize} of nastyRoutings) {
    it(`equals the naive loop: ${name}`, async () => {
      const x = countingRows(ids.length, hiddenSize);
      const topkIds = idsTensor(ids, topk);
      const a1qScale = countingRows(ids.length, 3);
      const check = (alignBlockSize?: number) => {
        const result = tf.moePermute(x, topkIds, numExperts, {alignBlockSize, a1qScale, fillInvalidExpert: -9});
        const naive = naivePermute({ids, topk, numExperts, alignBlockSize, fillInvalidExpert: -9});
        return expectPermuted(result, naive, hiddenSize, `B ${alignBlockSize}`);
      };
      await Promise.all([check(), check(1), check(4), check(7)]);
    });
  }

  for (const {name, ids, topk, numExperts, hiddenSize} of nastyRoutings.slice(0, -1)) {
    it(`equals the naive loop with expert maps: ${name}`, async () => {
      const x = countingRows(ids.length, hiddenSize);
      const topkIds = idsTensor(ids, topk);
      const checks = nastyMaps(numExperts).flatMap(({name: mapName, expertMap, numLocalExperts}) =>
        [undefined, 4].map((alignBlockSize) => {
          const result = tf.moePermute(x, topkIds, numExperts, {expertMap, numLocalExperts, alignBlockSize});
          const naive = naivePermute({ids, topk, numExperts, expertMap, numLocalExperts, alignBlockSize});
          return expectPermuted(result, naive, hiddenSize, `${mapName}, B ${alignBlockSize}`);
        }),
      );
      await Promise.all(checks);
    });
  }

  it('equals the naive loop for any routing', async () => {
    await fc.assert(
      fc.asyncProperty(anyRouting, fc.boolean(), fc.boolean(), async (routing, aligned, mapped) => {
        const {sizes, ids} = routing;
        const {topk, numExperts, hiddenSize, fillInvalidExpert} = sizes;
        const options = {
          alignBlockSize: aligned ? sizes.blockSize : undefined,
          expertMap: mapped ? routing.expertMap : undefined,
          numLocalExperts: mapped ? routing.numLocalExperts : undefined,
          fillInvalidExpert,
        };
        const result = tf.moePermute(countingRows(ids.length, hiddenSize), idsTensor(ids, topk), numExperts, options);
        await expectPermuted(result, naivePermute({ids, topk, numExperts, ...options}), hiddenSize, 'any');
        tf.dispose(result);
      }),
      {numRuns: 60},
    );
  });

  it('keeps every bit of float32 rows: NaN payloads, infinities, -0, subnormals; on webgl the first and last may change', async () => {
    const patterns = [0x7fc00001, 0xffc12345, 0x7f800000, 0xff800000, 0x80000000, 0x00000001, 0x807fffff, 0x3f800001];
    const bits = Uint32Array.from(patterns);
    const x = tf.tensor2d(new Float32Array(bits.buffer), [4, 2]);
    const {permutedHiddenStates} = tf.moePermute(x, [[3], [2], [1], [0]], 4);
    const moved = new Uint32Array((await permutedHiddenStates.data()).slice().buffer);
    const wanted = [6, 7, 4, 5, 2, 3, 0, 1].map((i) => bits[i]);
    if (backendName === 'webgl') {
      const isSubnormal = (pattern: number) => (pattern & 0x7f800000) === 0;
      const isNaNPattern = (pattern: number) => (pattern & 0x7fffffff) > 0x7f800000;
      const sign = 0x80000000;
      moved.forEach((pattern, i) => {
        const what = `element ${i}, ${pattern.toString(16)}`;
        if (isNaNPattern(wanted[i])) {
          expect(isNaNPattern(pattern)).withContext(what).toBeTrue();
        } else if (isSubnormal(wanted[i])) {
          expect([wanted[i], 0, sign]).withContext(what).toContain(pattern);
        } else {
          expect(pattern).withContext(what).toBe(wanted[i]);
        }
      });
      return;
    }
    expect(Array.from(moved)).toEqual(wanted);
  });

  it('keeps every bit of int32 rows and scales, or refuses them', async () => {
    const values = [2 ** 31 - 1, -(2 ** 31), 16777217, 0x7f010203];
    const x = tf.tensor2d(values, [2, 2], 'int32');
    if (backendName === 'webgl') {
      expect(() => tf.moePermute(x, [[1], [0]], 2)).toThrowError(webglTakesFloats('moePermute', 'hiddenStates'));
      const rows = countingRows(2, 2);
      expect(() => tf.moePermute(rows, [[1], [0]], 2, {a1qScale: x})).toThrowError(
        webglTakesFloats('moePermute', 'a1qScale'),
      );
      return;
    }
    const result = tf.moePermute(x, [[1], [0]], 2, {a1qScale: x});
    await expectInts(result.permutedHiddenStates, [16777217, 0x7f010203, 2 ** 31 - 1, -(2 ** 31)], 'rows');
    await expectInts(result.a1qScale!, [16777217, 0x7f010203, 2 ** 31 - 1, -(2 ** 31)], 'scale');
  });

  it('gathers scales of any rank from 2', async () => {
    const a1qScale = tf.tensor(Float32Array.from({length: 12}, (_, i) => i), [2, 3, 2]);
    const result = tf.moePermute(countingRows(2, 1), [[1], [0]], 2, {a1qScale});
    expect(result.a1qScale!.shape).toEqual([2, 3, 2]);
    await expectFloats(result.a1qScale!, [6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5], 'scale');
  });

  it('returns the scale of the whole tensor as a new tensor', async () => {
    for (const a1qScale of [tf.scalar(0.5), tf.tensor1d([1, 2, 3, 4, 5]), tf.tensor2d([[0.25]]), tf.ones([1, 2, 3])]) {
      const result = tf.moePermute(countingRows(2, 1), [[1], [0]], 2, {a1qScale});
      expect(result.a1qScale).not.toBe(a1qScale);
      expect(result.a1qScale!.shape).toEqual(a1qScale.shape);
      tf.dispose(result);
      await expectFloats(a1qScale, Array.from(await a1qScale.data()), 'the argument lives on');
    }
  });

  it('gathers a [1, Q] scale when there is one token', async () => {
    const result = tf.moePermute(countingRows(1, 1), [[1, 0, 1]], 2, {a1qScale: [[3, 4]]});
    await expectFloats(result.a1qScale!, [3, 4, 3, 4, 3, 4], 'scale');
  });

  it('takes arrays and typed arrays for tensors', async () => {
    const nested = tf.moePermute([[1, 2], [3, 4]], [[1], [0]], 2, {expertMap: new Uint8Array([1, 0])});
    await expectFloats(nested.permutedHiddenStates, [1, 2, 3, 4], 'rows');
    const integers = [Int32Array.of(1, 2), Int32Array.of(3, 4)] as unknown as number[][];
    const permuteIntegers = () => tf.moePermute(integers, [[1], [0]], 2);
    if (backendName === 'webgl') {
      expect(permuteIntegers).toThrowError(webglTakesFloats('moePermute', 'hiddenStates'));
      return;
    }
    await expectInts(permuteIntegers().permutedHiddenStates, [3, 4, 1, 2], 'rows');
  });

  it('takes null for every option that is not given', async () => {
    const result = tf.moePermute(countingRows(2, 1), [[1], [0]], 2, {
      a1qScale: null, numLocalExperts: null, expertMap: null, alignBlockSize: null, fillInvalidExpert: null, out: null,
    });
    expect(Object.keys(result)).toEqual([
      'permutedHiddenStates', 'expertFirstTokenOffset', 'invPermutedIdx', 'mIndices', 'permutedIdx',
    ]);
    await expectInts(result.mIndices, [-1, -1], 'mIndices');
    expect(() => tf.moePermute(countingRows(2, 1), [[1], [0]], 2, null)).not.toThrow();
  });

  it('assigns out, which shares no handle with the result', async () => {
    const out = tf.variable(tf.zeros<tf.Rank.R2>([2, 2]));
    const {permutedHiddenStates} = tf.moePermute(countingRows(2, 2), [[1], [0]], 2, {out});
    await expectFloats(out, [2, 3, 0, 1], 'out');
    permutedHiddenStates.dispose();
    await expectFloats(out, [2, 3, 0, 1], 'out after the result is gone');
  });

  it('takes its input as out', async () => {
    const x = tf.variable(countingRows(2, 2));
    tf.moePermute(x, [[1], [0]], 2, {out: x});
    await expectFloats(x, [2, 3, 0, 1], 'out');
  });

  it('leaves out as it was when it throws', async () => {
    const out = tf.variable(countingRows(2, 2));
    expect(() => tf.moePermute(countingRows(2, 2), [[1], [0]], 2, {out, alignBlockSize: 8})).toThrowError(/out must be/);
    expect(() => tf.moePermute(countingRows(3, 2), [[1], [0]], 2, {out})).toThrowError(/topkIds must/);
    await expectFloats(out, [0, 1, 2, 3], 'out');
  });

  it('gives the same in tidy, chained, and run after run', async () => {
    const {ids, topk, numExperts} = nastyRoutings.find(({name}) => name === 'E = 60')!;
    const x = countingRows(ids.length, 2);
    const first = tf.tidy(() => tf.moePermute(x, idsTensor(ids, topk), numExperts));
    const again = x.moePermute(idsTensor(ids, topk), numExperts);
    await expectFloats(again.permutedHiddenStates, await first.permutedHiddenStates.data() as Float32Array, 'rows');
    await expectInts(again.invPermutedIdx, await first.invPermutedIdx.data() as Int32Array, 'inv');
  });
});
