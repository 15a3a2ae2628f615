/** Mistakes that only the WebGL kernels can make. */
import {type GPGPUContext, type GPGPUProgram, MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {exclusivePrefixSum, sortByKey} from '../../src/kernels/expert_sort/webgl';
import {webglRecorder} from '../../src/kernels/shared/webgl_steps';
import {expectFloats, expectInts} from '../support/expect';
import {
  expectAllOptions,
  expectNoReads,
  expectNothingLeftByThrows,
  expectNothingOfPoison,
  expectRightBetweenOtherOps,
} from '../support/gpu_specs';
import {naiveAlign, naivePermute} from '../naive/routing';
import {distinctIds, lcg} from '../support/routings';
import {countingRows, countingRowsOf, idsTensor, webglTakesFloats} from '../support/tensors';
import {backend, onDevice, onOwnBackend, withFlags} from '../support/webgl_backends';

const webgl = {predicate: ({backendName}: {backendName: string}) => backendName === 'webgl'};
const upTo = (count: number) => Array.from({length: count}, (_, i) => i);

/** Leaves textures full of NaN in the backend's pool, in the sizes of these tensors. */
async function poison(shapes: number[][]): Promise<void> {
  const textures = shapes.flatMap((outputShape) =>
    [false, true, false, true].map((packedOutput) => {
      const userCode = `void main() { setOutput(${packedOutput ? 'vec4(NAN)' : 'NAN'}); }`;
      const program: GPGPUProgram = {variableNames: [], outputShape, packedOutput, userCode};
      return backend().runWebGLProgram(program, [], 'float32');
    }),
  );
  textures.forEach((texture) => backend().disposeIntermediateTensorInfo(texture));
}

const fromInfo = (info: tf.TensorInfo) => tf.engine().makeTensorFromTensorInfo(info);

describeWithFlags('WebGL', webgl, () => {
  it('takes all options of moePermute at once', () => expectAllOptions(8));

  it('does not rely on what its textures hold', () => expectNothingOfPoison(poison));

  it('works between other ops', expectRightBetweenOtherOps);

  it('reads nothing back', expectNoReads);

  for (const hasRun of [false, true]) {
    it(`leaves no texture of a kernel that throws, when it has run before: ${hasRun}`, () => {
      const target = backend();
      const {gpgpu} = target;
      const onProgram = (announce: () => void) => {
        if (!hasRun) {
          webglRecorder.forget(target);
        }
        let isByTfjs = false;
        target.runWebGLProgram = (...args) => {
          if (args[0].constructor.name.startsWith('Moe')) {
            announce();
          }
          const before = isByTfjs;
          isByTfjs = true;
          try {
            return Object.getPrototypeOf(target).runWebGLProgram.apply(target, args) as tf.TensorInfo;
          } finally {
            isByTfjs = before;
          }
        };
        gpgpu.executeProgram = () => {
          if (!isByTfjs) {
            announce();
          }
          Object.getPrototypeOf(gpgpu).executeProgram.call(gpgpu);
        };
        return () => {
          delete (target as Partial<MathBackendWebGL>).runWebGLProgram;
          delete (gpgpu as Partial<GPGPUContext>).executeProgram;
        };
      };
      return expectNothingLeftByThrows(onProgram, async () => target.getTextureManager().getNumUsedTextures());
    });
  }

  it('sorts any number of keys, in one chunk, in many, and by two digits', async () => {
    const next = lcg(5);
    for (const [numAssignments, numKeys] of [[1, 1], [64, 70000], [700, 1], [700, 3], [1500, 2048], [1500, 2049], [700, 70000]]) {
      const keys = Int32Array.from({length: numAssignments}, () => Math.floor(next() * numKeys));
      const order = fromInfo(sortByKey(backend(), tf.tensor1d(keys, 'int32'), numKeys));
      const wanted = upTo(numAssignments).sort((a, b) => keys[a] - keys[b] || a - b);
      await expectInts(order, wanted, `N ${numAssignments}, ${numKeys} keys`);
    }
  });

  it('sums prefixes in one, two and three levels', async () => {
    const next = lcg(6);
    for (const [numRows, numColumns] of [[1, 1], [3, 256], [3, 257], [1, 17000]]) {
      const x = upTo(numRows).map(() => upTo(numColumns).map(() => Math.floor(next() * 900)));
      const sums = fromInfo(exclusivePrefixSum(backend(), tf.tensor2d(x, [numRows, numColumns], 'int32')));
      expect(sums.shape).toEqual([numRows, numColumns + 1]);
      const wanted = x.map((row) => row.reduce((before, value) => [...before, before[before.length - 1] + value], [0]));
      await expectInts(sums, wanted, `${numRows} rows of ${numColumns}`);
    }
  });

  it('permutes more keys than one digit holds', async () => {
    const [numTokens, numExperts] = [400, 1025];
    const ids = distinctIds(numTokens, numExperts, 2, 9);
    const expertMap = upTo(numExperts).map((e) => (e % 3 === 0 ? -1 : Math.floor(e / 2)));
    const options = {expertMap, numLocalExperts: 500, alignBlockSize: 2};
    const naive = naivePermute({ids, topk: 2, numExperts, ...options});
    const result = tf.moePermute(countingRows(numTokens, 3), idsTensor(ids, 2), numExperts, options);
    await expectFloats(result.permutedHiddenStates, countingRowsOf(naive.rowToken, 3), 'rows');
    await expectInts(result.expertFirstTokenOffset, naive.expertFirstTokenOffset, 'offsets');
    await expectInts(result.invPermutedIdx, naive.invPermutedIdx, 'inv');
    await expectInts(result.mIndices, naive.mIndices, 'mIndices');
    const aligned = tf.moeAlignBlockSize(idsTensor(ids, 2), 2, numExperts, {expertMap, ignoreInvalidExperts: true});
    const wanted = naiveAlign({ids, topk: 2, blockSize: 2, numExperts, expertMap, ignoreInvalidExperts: true});
    await expectInts(aligned.sortedTokenIds, wanted.sortedTokenIds, 'sortedTokenIds');
    await expectInts(aligned.expertIds, wanted.expertIds, 'expertIds');
  });

  it('sums the gradient of a row that many slots read, in slot order', async () => {
    const [numTokens, topk, numRows] = [400, 2, 5];
    const inverse = upTo(numTokens * topk).map((slot) => (slot * slot) % 7);
    const weights = tf.tensor2d(upTo(numTokens * topk).map((slot) => (slot % 5) - 2), [numTokens, topk]);
    const dy = upTo(numTokens).map((t) => [t % 11, 1]);
    const wanted = upTo(numRows).map((row) =>
      [0, 1].map((h) =>
        inverse.reduce((sum, read, slot) => (read === row ? sum + ((slot % 5) - 2) * dy[Math.floor(slot / topk)][h] : sum), 0),
      ),
    );
    const unpermute = (rows: tf.Tensor) => tf.moeUnpermute(rows, weights, inverse);
    await expectFloats(tf.grad(unpermute)(tf.zeros([numRows, 2]), tf.tensor2d(dy)), wanted, 'gradient');
  });

  it('sums the gradient of a weight over long rows', async () => {
    const hiddenSize = 1000;
    const rows = tf.tensor2d(upTo(2 * hiddenSize).map((i) => i % 7), [2, hiddenSize]);
    const unpermute = (weights: tf.Tensor) => tf.moeUnpermute(rows, weights, [0, 5, 1, 0]);
    const dy = tf.tensor2d(upTo(2 * hiddenSize).map((i) => i % 3), [2, hiddenSize]);
    const dot = (row: number, t: number) =>
      upTo(hiddenSize).reduce((sum, h) => sum + ((row * hiddenSize + h) % 7) * ((t * hiddenSize + h) % 3), 0);
    await expectFloats(tf.grad(unpermute)(tf.ones([2, 2]), dy), [dot(0, 0), 0, dot(1, 1), dot(0, 1)], 'gradient');
  });

  for (const packed of [false, true]) {
    it(`moves and merges rows of ${packed ? '2 x 2 elements' : 'one element'} a texel, of any shape`, async () => {
      for (const [numTokens, topk, hiddenSize] of [[1, 1, 1], [2, 1, 2], [1, 3, 5], [5, 3, 1], [5, 1, 5], [6, 2, 4], [7, 3, 3]]) {
        const ids = distinctIds(numTokens, 4, topk, hiddenSize).map((row, t) => (t === 3 ? row.map(() => -1) : row));
        const x = onDevice(countingRows(numTokens, hiddenSize), packed);
        for (const alignBlockSize of [undefined, 3]) {
          const what = `T ${numTokens}, K ${topk}, H ${hiddenSize}, B ${alignBlockSize}`;
          const naive = naivePermute({ids, topk, numExperts: 4, alignBlockSize});
          const result = tf.moePermute(x, idsTensor(ids, topk), 4, {alignBlockSize, a1qScale: x});
          expect(backend().texData.get(result.permutedHiddenStates.dataId).isPacked === true).withContext(what).toBe(packed);
          await expectFloats(result.permutedHiddenStates, countingRowsOf(naive.rowToken, hiddenSize), `${what}: rows`);
          await expectFloats(result.a1qScale!, countingRowsOf(naive.scaleToken, hiddenSize), `${what}: a1qScale`);

          const weights = upTo(numTokens).map((t) => upTo(topk).map((k) => (t % 3) + k - 1));
          const merged = tf.moeUnpermute(
            onDevice(result.permutedHiddenStates, packed), tf.tensor2d(weights), result.invPermutedIdx, result.expertFirstTokenOffset);
          expect(backend().texData.get(merged.dataId).isPacked === true).withContext(what).toBe(packed);
          const sums = upTo(numTokens).map((t) => (t === 3 ? 0 : weights[t].reduce((sum, weight) => sum + weight)));
          const wanted = upTo(numTokens * hiddenSize).map((i) => i * sums[Math.floor(i / hiddenSize)]);
          await expectFloats(merged, wanted, `${what}: merged`);
        }
      }
    });

    it(`lets no NaN through from a row that no slot reads, of ${packed ? '2 x 2 elements' : 'one element'} a texel`, async () => {
      const rows = onDevice(tf.tensor2d([[1, 2, 3], [NaN, NaN, NaN], [4, 5, 6], [Infinity, NaN, 1]]), packed);
      const merged = tf.moeUnpermute(rows, [[1, NaN], [2, 1], [NaN, NaN]], [0, 3, 2, 0, -1, 4], [0, 3]);
      await expectFloats(merged, [1, 2, 3, 9, 12, 15, 0, 0, 0], 'merged');
    });
  }

  it('leaves 0 past the last column of packed rows, where some programs of tfjs leave other values', async () => {
    // exp(0) = 1 is there too, and matMul multiplies it with the values past the last row of its other factor.
    const x = tf.exp(tf.zeros<tf.Rank.R2>([3, 3]));
    const ones = tf.exp(tf.zeros<tf.Rank.R2>([3, 2]));
    const {permutedHiddenStates, invPermutedIdx} = tf.moePermute(x, [[0], [1], [0]], 2);
    await expectFloats(tf.matMul(permutedHiddenStates, ones), new Array<number>(6).fill(3), 'rows');
    const merged = tf.moeUnpermute(x, tf.ones([3, 1]), invPermutedIdx);
    await expectFloats(tf.matMul(merged, ones), new Array<number>(6).fill(3), 'merged');
  });

  it('reads slices, which are an offset into a texture', async () => {
    const ids = onDevice(tf.tensor2d([[9, 9], [1, 0], [0, 1], [9, 9]], [4, 2], 'int32'), false);
    const x = onDevice(countingRows(5, 3), false);
    const result = tf.moePermute(tf.slice(x, [2, 0], [2, 3]), tf.slice(ids, [1, 0], [2, 2]), 2);
    await expectFloats(result.permutedHiddenStates, countingRowsOf([2, 3, 2, 3], 3), 'rows');
    await expectInts(result.invPermutedIdx, [2, 0, 1, 3], 'inv');
  });

  it('is right for a tensor that is folded into its texture, after the same program ran for an unfolded one', async () => {
    const longest = tf.env().getNumber('WEBGL_MAX_TEXTURE_SIZE');
    for (const numTokens of [5, longest + 3, 2 * longest + 3]) {
      const what = `T ${numTokens}`;
      const values = Float32Array.from({length: 2 * numTokens}, (_, i) => i);
      for (const shape of [[numTokens, 1, 2], [1, numTokens, 2], [numTokens, 2, 1]] as Array<[number, number, number]>) {
        const x = tf.tensor3d(values.map((value) => value % 7), shape);
        const wanted = await tf.sum(x, 1).data() as Float32Array;
        await expectFloats(tf.moeSum(onDevice(x, false)), wanted, `${what}: moeSum of [${shape}]`);
      }
      const ids = upTo(numTokens).map((t) => [(t * 5) % 3]);
      const naive = naivePermute({ids, topk: 1, numExperts: 3});
      for (const packed of [false, true]) {
        const x = onDevice(tf.tensor2d(values, [numTokens, 2]), packed);
        const result = tf.moePermute(x, idsTensor(ids, 1), 3);
        await expectFloats(result.permutedHiddenStates, countingRowsOf(naive.rowToken, 2), `${what}: rows`);
        await expectInts(result.invPermutedIdx, naive.invPermutedIdx, `${what}: inv`);
        const merged = tf.moeUnpermute(result.permutedHiddenStates, tf.ones([numTokens, 1]), result.invPermutedIdx);
        await expectFloats(merged, values, `${what}: merged`);
      }
    }
  });

  it('compiles nothing for other numbers of tokens', () =>
    withFlags({WEBGL_USE_SHAPES_UNIFORMS: true}, () =>
      onOwnBackend(async (own) => {
        const {binaryCache} = own as unknown as {binaryCache: object};
        const run = async (numTokens: number) => {
          const results = tf.tidy(() => {
            const ids = idsTensor(distinctIds(numTokens, 6, 2, 1), 2);
            const aligned = tf.moeAlignBlockSize(ids, 4, 6);
            const f = (x: tf.Tensor, w: tf.Tensor) => {
              const permuted = tf.moePermute(x, ids, 6, {alignBlockSize: 2});
              return tf.moeUnpermute(permuted.permutedHiddenStates, w, permuted.invPermutedIdx, permuted.expertFirstTokenOffset);
            };
            const {grads} = tf.valueAndGrads(f)([countingRows(numTokens, 4), tf.ones([numTokens, 2])]);
            return [...Object.values(aligned), ...grads, tf.moeSum(tf.ones([numTokens, 2, 3]))];
          });
          await Promise.all(results.map((result) => result.data()));
          tf.dispose(results);
        };
        // An odd and an even number each: of assignments that are one chunk, of many with one sort of the rows that the
        // gradient takes, and of many with two.
        for (const numTokens of [2, 3, 554, 555, 1023, 1024]) {
          await run(numTokens);
        }
        const numPrograms = Object.keys(binaryCache).length;
        expect(numPrograms).toBeGreaterThan(20);
        for (const numTokens of [7, 32, 101, 400, 777, 1000]) {
          await run(numTokens);
          expect(Object.keys(binaryCache).length).withContext(`T ${numTokens}`).toBe(numPrograms);
        }
      }),
    ));

  it('makes few draws', () => {
    const programs = spyOn(backend(), 'runWebGLProgram').and.callThrough();
    const countDraws = (run: () => void) => {
      programs.calls.reset();
      webglRecorder.forget(backend());
      tf.tidy(run);
      return programs.calls.allArgs().filter(([program]) => program.constructor.name.startsWith('Moe')).length;
    };
    const few = {x: tf.zeros<tf.Rank.R2>([8, 4]), ids: tf.zeros<tf.Rank.R2>([8, 2], 'int32')};
    const many = {x: tf.zeros<tf.Rank.R2>([300, 1]), ids: tf.zeros<tf.Rank.R2>([300, 2], 'int32')};
    const rows = tf.zeros<tf.Rank.R2>([16, 4]);
    const weights = tf.ones<tf.Rank.R2>([8, 2]);
    expect(countDraws(() => tf.moePermute(few.x, few.ids, 4))).toBe(7);
    expect(countDraws(() => tf.moePermute(onDevice(few.x, false), few.ids, 4))).toBe(7);
    expect(countDraws(() => tf.moePermute(many.x, many.ids, 4))).toBe(8);
    expect(countDraws(() => tf.moePermute(many.x, many.ids, 4, {alignBlockSize: 4}))).toBe(11);
    expect(countDraws(() => tf.moeUnpermute(rows, weights, few.ids))).toBe(2);
    expect(countDraws(() => tf.moeUnpermute(onDevice(rows, false), weights, few.ids))).toBe(1);
    expect(countDraws(() => tf.moeAlignBlockSize(few.ids, 4, 4))).toBe(9);
    expect(countDraws(() => tf.moeAlignBlockSize(many.ids, 4, 4))).toBe(10);
    expect(countDraws(() => tf.moeSum(tf.zeros([8, 2, 4])))).toBe(1);
    const bias = tf.zeros<tf.Rank.R1>([4]);
    const toWeights = (scoring: tf.MoeTopkScoring) => (y: tf.Tensor) => tf.moeTopk(y, 1, {scoring}).topkWeights;
    expect(countDraws(() => tf.moeTopk(few.x, 2, {scoring: 'sigmoid'}))).toBe(3);
    expect(countDraws(() => tf.moeTopk(few.x, 2))).toBe(4);
    expect(countDraws(() => tf.moeTopk(few.x, 2, {scoreCorrectionBias: bias, numExpertGroups: 2, topkGroups: 1}))).toBe(7);
    expect(countDraws(() => tf.grad(toWeights('sigmoid'))(few.x))).toBe(3 + 1);
    expect(countDraws(() => tf.grad(toWeights('softmax'))(few.x))).toBe(4 + 2);
  });

  it('is exact with half-float textures up to 2,048', () =>
    withFlags({WEBGL_RENDER_FLOAT32_ENABLED: false, WEBGL_SIZE_UPLOAD_UNIFORM: 0}, () =>
      onOwnBackend(async () => {
        const ids = distinctIds(1024, 60, 2, 4);
        const naive = naivePermute({ids, topk: 2, numExperts: 60});
        const result = tf.moePermute(countingRows(1024, 2), idsTensor(ids, 2), 60);
        await expectFloats(result.permutedHiddenStates, countingRowsOf(naive.rowToken, 2), 'rows');
        await expectInts(result.expertFirstTokenOffset, naive.expertFirstTokenOffset, 'offsets');
        await expectInts(result.invPermutedIdx, naive.invPermutedIdx, 'inv');
        await expectInts(result.permutedIdx, naive.permutedIdx, 'permutedIdx');
        tf.dispose(result);
      }),
    ));
});

const notExact = (opName: string, what: string, bits: number, value: number) =>
  `Error in ${opName}: ${what} must be at most ${bits === 32 ? 2 ** 24 : 2048} in magnitude, past which the ` +
  `${bits}-bit floats of this device's WebGL textures skip integers, but is ${value}.`;

describeWithFlags('errors of WebGL', webgl, () => {
  const expectErrors = (calls: Array<[call: () => unknown, message: string]>) => {
    const before = tf.memory().numTensors;
    for (const [call, message] of calls) {
      expect(call).toThrowError(message);
    }
    expect(tf.memory().numTensors).toBe(before);
  };

  it('name the number that is past 2^24', () => {
    const x = tf.zeros<tf.Rank.R2>([2, 1]);
    const ids = tf.zeros<tf.Rank.R2>([2, 1], 'int32');
    const blockSize = 2 ** 23 + 1;
    const past = 2 * blockSize;
    expectErrors([
      [() => tf.moePermute(x, ids, 2, {fillInvalidExpert: -past}), notExact('moePermute', 'fillInvalidExpert', 32, -past)],
      [() => tf.moePermute(x, ids, 2, {alignBlockSize: blockSize}), notExact('moePermute', 'the number of permuted rows', 32, past)],
      [() => tf.moePermuteBlockAligned(x, ids, 2, blockSize), notExact('moePermuteBlockAligned', 'the number of permuted rows', 32, past)],
      [() => tf.moeAlignBlockSize(ids, blockSize, 2), notExact('moeAlignBlockSize', 'the length of sortedTokenIds', 32, past)],
    ]);
  });

  it('name the number that is past 2,048 with half-float textures', () =>
    withFlags({WEBGL_RENDER_FLOAT32_ENABLED: false}, () => {
      const x = tf.zeros<tf.Rank.R2>([1025, 1]);
      const ids = tf.zeros<tf.Rank.R2>([1025, 2], 'int32');
      const one = tf.zeros<tf.Rank.R2>([1, 1], 'int32');
      const expertMap = tf.zeros<tf.Rank.R1>([1024], 'int32');
      const row = tf.zeros<tf.Rank.R2>([1, 1]);
      const rows = tf.zeros<tf.Rank.R2>([2049, 1]);
      expectErrors([
        [() => tf.moePermute(x, ids, 4), notExact('moePermute', 'the number of assignments (T*K)', 16, 2050)],
        [() => tf.moePermute(row, one, 2049), notExact('moePermute', 'numExperts', 16, 2049)],
        [() => tf.moePermute(row, one, 1024, {expertMap}), notExact('moePermute', 'the number of sort keys', 16, 2049)],
        [() => tf.moeAlignBlockSize(ids, 4, 4), notExact('moeAlignBlockSize', 'the number of assignments (T*K)', 16, 2050)],
        [() => tf.moeUnpermute(rows, [[1]], [0]), notExact('moeUnpermute', 'the number of permuted rows', 16, 2049)],
      ]);
    }));

  it('name the tensor that is past the size of a texture', () => {
    const maxTextureSize = tf.env().getNumber('WEBGL_MAX_TEXTURE_SIZE');
    const hiddenSize = 2 ** 16;
    const error = (topk: number, packed: boolean) =>
      `Error in moePermute: permutedHiddenStates [${topk},${hiddenSize}] takes ${topk * hiddenSize} elements of a texture, ` +
      `but this device's hold at most ${(packed ? 4 : 1) * maxTextureSize ** 2} (WEBGL_MAX_TEXTURE_SIZE is ${maxTextureSize}).`;
    for (const packed of [false, true]) {
      const x = onDevice(tf.zeros<tf.Rank.R2>([1, hiddenSize]), packed);
      const topk = ((packed ? 4 : 1) * maxTextureSize ** 2) / hiddenSize + 2;
      const ids = tf.zeros<tf.Rank.R2>([1, topk], 'int32');
      expectErrors([[() => tf.moePermute(x, ids, 1), error(topk, packed)]]);
    }
  });

  it('refuse int32 rows and scales', () => {
    const x = tf.zeros<tf.Rank.R2>([1, 1]);
    const integers = tf.zeros<tf.Rank.R2>([1, 1], 'int32');
    expectErrors([
      [() => tf.moePermute(integers, integers, 1), webglTakesFloats('moePermute', 'hiddenStates')],
      [() => tf.moePermute(x, integers, 1, {a1qScale: integers}), webglTakesFloats('moePermute', 'a1qScale')],
      [() => tf.moePermuteBlockAligned(integers, integers, 1, 2), webglTakesFloats('moePermuteBlockAligned', 'hiddenStates')],
    ]);
  });

  it('refuse WebGL 1', () =>
    withFlags({WEBGL_VERSION: 1}, () => {
      const error = (opName: string) => `Error in ${opName}: the webgl backend must run on WebGL 2, but runs on WebGL 1.`;
      expectErrors([
        [() => tf.moePermute([[1]], [[0]], 1), error('moePermute')],
        [() => tf.moeUnpermute([[1]], [[1]], [0]), error('moeUnpermute')],
        [() => tf.moeSum([[[1]]]), error('moeSum')],
      ]);
      expect(tf.moePermuteUnpermuteSupported()).toBeFalse();
    }));

  const nextEvent = (canvas: HTMLCanvasElement, name: string) =>
    new Promise((resolve) => canvas.addEventListener(name, resolve, {once: true}));
  /**
   * tfjs prevents the default of the first event, so that a browser restores the context. Here the extension restores
   * it.
   */
  const loseContext = async (canvas: HTMLCanvasElement) => {
    const extension = canvas.getContext('webgl2')!.getExtension('WEBGL_lose_context')!;
    const lost = nextEvent(canvas, 'webglcontextlost');
    extension.loseContext();
    await lost;
    return async () => {
      const restored = nextEvent(canvas, 'webglcontextrestored');
      // Not within the event.
      setTimeout(() => extension.restoreContext());
      await restored;
    };
  };
  const expectLost = () => {
    const error = (opName: string) =>
      `Error in ${opName}: the WebGL context is lost, and with it every tensor that it held. Remove the backend and ` +
      'register it again.';
    expectErrors([
      [() => tf.moePermute([[1]], [[0]], 1), error('moePermute')],
      [() => tf.moeAlignBlockSize([[0]], 2, 1), error('moeAlignBlockSize')],
      [() => tf.moeUnpermute([[1]], [[1]], [0]), error('moeUnpermute')],
      [() => tf.moeTopk([[1]], 1), error('moeTopk')],
      [() => tf.moeSum([[[1]]]), error('moeSum')],
    ]);
    expect(tf.moePermuteUnpermuteSupported()).toBeFalse();
    expect(tf.moePermuteUnpermuteSupported('webgl')).toBeTrue();
  };

  it('say that the context is lost, also when it is restored, and a new backend is right', async () => {
    await onOwnBackend(async (own, canvas) => {
      await expectAllOptions(5);
      expect(tf.moePermuteUnpermuteSupported()).toBeTrue();
      const restore = await loseContext(canvas);
      expectLost();
      await restore();
      expect(own.gpgpu.gl.isContextLost()).toBeFalse();
      expectLost();
    });
    await onOwnBackend(() => expectAllOptions(5));
    await expectAllOptions(5);
  });

  it('say so if it was lost and restored before the first kernel, and a new backend on the context is right', async () => {
    const canvas = document.createElement('canvas');
    const before = new MathBackendWebGL(canvas);
    const restore = await loseContext(canvas);
    await restore();
    await onOwnBackend(async () => expectLost(), before);
    await onOwnBackend(() => expectAllOptions(5), new MathBackendWebGL(canvas));
  });
});

describeWithFlags('the compilation of shaders ahead on WebGL', webgl, () => {
  it('leaves kernels right that were asked for meanwhile, however often', () =>
    onOwnBackend(async (own) => {
      const permute = () => tf.moePermute(countingRows(3, 2), tf.tensor2d([1, 0, 1], [3, 1], 'int32'), 2);
      tf.env().set('ENGINE_COMPILE_ONLY', true);
      try {
        tf.dispose([permute(), permute()]);
        await own.checkCompileCompletionAsync();
        own.getUniformLocations();
      } finally {
        tf.env().set('ENGINE_COMPILE_ONLY', false);
      }
      for (let call = 0; call < 3; call++) {
        await expectFloats(permute().permutedHiddenStates, [2, 3, 0, 1, 4, 5], `permutedHiddenStates of call ${call}`);
      }
    }));
});
