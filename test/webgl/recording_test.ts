/** Kernels that repeat what they did for other tensors of the same shapes. */
import {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {tensor_util} from '@tensorflow/tfjs-core';
import {describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {webglRecorder} from '../../src/kernels/shared/webgl_steps';
import {expectFloats, expectInts} from '../support/expect';
import {callsOfAllKernels, expectAllOptions} from '../support/gpu_specs';
import {expectNothingKeptOfManyShapes, products, specsOfRepeatedKernels, times} from '../support/repeated_kernels';
import {backend, onDevice, onOwnBackend, withFlags} from '../support/webgl_backends';

const webgl = {predicate: ({backendName}: {backendName: string}) => backendName === 'webgl'};

const upTo = (count: number) => Array.from({length: count}, (_, i) => i);

/** The programs of this package that tfjs itself runs, where it passes no tensor as a uniform. */
function programsByTfjs(run: () => void): string[] {
  const target = backend();
  const names: string[] = [];
  target.runWebGLProgram = (...args) => {
    names.push(args[0].constructor.name);
    return Object.getPrototypeOf(target).runWebGLProgram.apply(target, args) as tf.TensorInfo;
  };
  try {
    run();
  } finally {
    delete (target as Partial<MathBackendWebGL>).runWebGLProgram;
  }
  return names.filter((name) => name.startsWith('Moe'));
}

/** The bits of all tensors of a result, as float32. */
async function bitsOf(call: () => tf.TensorContainer): Promise<number[]> {
  const results = tf.tidy(call);
  const tensors = tensor_util.getTensorsInContainer(results);
  const values = await Promise.all(tensors.map((tensor) => tensor.data()));
  tf.dispose(results);
  return values.flatMap((data) => Array.from(new Uint32Array(Float32Array.from(data).buffer)));
}

/** The same rows in all forms that tfjs gives to a texture of this shape. */
function rowsInAllForms(): Array<[name: string, x: tf.Tensor2D]> {
  const values = upTo(12).map((i) => i - 5);
  const x = tf.tensor2d(values, [4, 3]);
  const longer = (before: number) => tf.tensor2d([...new Array<number>(3 * before).fill(9), ...values], [4 + before, 3]);
  const sliceOf = (before: number) => tf.slice(onDevice(longer(before), false), [before, 0], [4, 3]);
  return [
    ['one element a texel', onDevice(x, false)],
    ['2 x 2 elements a texel', onDevice(x, true)],
    ['on the host', x],
    ['a slice', sliceOf(2)],
    ['a later slice', sliceOf(3)],
    ['a reshape of one element a texel', tf.reshape(onDevice(tf.tensor3d(values, [2, 2, 3]), false), [4, 3])],
    ['a reshape of 2 x 2 elements a texel', tf.reshape(onDevice(tf.tensor3d(values, [4, 1, 3]), true), [4, 3])],
  ];
}

describeWithFlags('a kernel that has run before on WebGL', webgl, () => {
  specsOfRepeatedKernels();

  const onTextures = (run: () => Promise<void>) => () => withFlags({WEBGL_SIZE_UPLOAD_UNIFORM: 0}, run);

  it('gives the same to the bit, and runs nothing by tfjs', onTextures(async () => {
    const calls = callsOfAllKernels();
    webglRecorder.forget(backend());
    const first: number[][] = [];
    for (const [, call] of calls) {
      first.push(await bitsOf(call));
    }
    for (const order of [calls, [...calls].reverse(), calls]) {
      for (const [name, call] of order) {
        const bits = await bitsOf(call);
        expect(bits).withContext(name).toEqual(first[calls.findIndex(([other]) => other === name)]);
      }
    }
    // The other calls have one tensor for two inputs, and run anew.
    const repeated = calls.filter(([name]) => /^(moeAlignBlockSize|moeTopk|moeSum|MoeRankRows)|many experts$/.test(name));
    expect(repeated.length).toBe(6);
    for (const [name, call] of repeated) {
      expect(programsByTfjs(() => tf.dispose(tf.tidy(call)))).withContext(name).toEqual([]);
    }
  }));

  it('takes rows of one shape in every form that textures have, in any order', async () => {
    const forms = rowsInAllForms();
    const inverse = tf.tensor2d([[3], [1], [0], [2]], [4, 1], 'int32');
    const ids = tf.tensor2d([[1], [0], [1], [0]], [4, 1], 'int32');
    const weights = tf.tensor3d(upTo(24), [2, 3, 4]);
    const run = (x: tf.Tensor2D) => [
      tf.moePermute(x, ids, 2).permutedHiddenStates,
      tf.moeUnpermute(x, [[1], [2], [3], [4]], inverse),
      tf.moeGroupedMatMul(x, weights, [0, 3, 4], {weightFormat: 'inOut'}),
      tf.moeTopk(x, 2).topkWeights,
      tf.moeSum(tf.reshape(x, [2, 2, 3])),
    ];
    webglRecorder.forget(backend());
    const wanted = await bitsOf(() => run(forms[0][1]));
    for (const order of [forms, [...forms].reverse(), forms]) {
      for (const [name, x] of order) {
        expect(await bitsOf(() => run(x))).withContext(name).toEqual(wanted);
      }
    }
    for (const packed of [false, true, false, true]) {
      const {permutedHiddenStates} = tf.moePermute(onDevice(tf.ones<tf.Rank.R2>([4, 3]), packed), ids, 2);
      expect(backend().texData.get(permutedHiddenStates.dataId).isPacked === true).toBe(packed);
    }
  });

  it('takes ids on the device, and ids on the host, which tfjs passes as uniforms', () =>
    withFlags({WEBGL_SIZE_UPLOAD_UNIFORM: 4}, async () => {
      const x = tf.tensor2d([[1, 2]]);
      for (const onHost of [true, false, true, true, false]) {
        const ids = tf.tensor2d([[1, 0]], [1, 2], 'int32');
        const given = onHost ? ids : onDevice(ids, false);
        const what = `on the host: ${onHost}`;
        await expectFloats(tf.moePermute(x, given, 2).permutedHiddenStates, [1, 2, 1, 2], what);
        await expectInts(tf.moePermute(x, given, 2).permutedIdx, [1, 0], what);
      }
    }));

  it('takes sizes and activations in turn', onTextures(async () => {
    const calls = [3, 4, 5].flatMap((size) => {
      const x = tf.fill<tf.Rank.R2>([2, size], 1);
      const w = tf.fill<tf.Rank.R3>([1, 1, size], -2);
      return [false, true].map((isRelu): [() => tf.Tensor, number] => [
        () => tf.moeGroupedMatMul(x, w, [0, 2], {activation: isRelu ? 'relu' : 'linear'}),
        isRelu ? 0 : -2 * size,
      ]);
    });
    for (let round = 0; round < 4; round++) {
      for (const [call, wanted] of round % 2 === 0 ? calls : [...calls].reverse()) {
        await expectFloats(call(), [wanted, wanted], `${wanted} in round ${round}`);
      }
    }
    const run = () => calls.forEach(([call]) => call());
    expect(programsByTfjs(run)).toEqual([]);
  }));

  it('keeps nothing of many shapes', () =>
    // tfjs's own programs would be compiled for each shape.
    withFlags({WEBGL_USE_SHAPES_UNIFORMS: true}, () =>
      expectNothingKeptOfManyShapes(() => backend().getTextureManager().getNumUsedTextures()),
    ));

  it('gives every reader labels of its own', async () => {
    const run = () => tf.moePermute([[1]], [[0]], 1, {fillInvalidExpert: -3, alignBlockSize: 2}).mIndices;
    run();
    const labels = await run().data();
    const wanted = Array.from(labels);
    labels.fill(8);
    await expectInts(run(), wanted, 'labels');
  });

  it('is timed as it was', async () => {
    const w = times(2);
    const namesOf = async () => (await tf.profile(() => products(w))).kernels.map(({name}) => name);
    webglRecorder.forget(backend());
    const names = await namesOf();
    products(w);
    expect(await namesOf()).toEqual(names);
  });

  it('throws each time what it threw', () => {
    const x = tf.zeros<tf.Rank.R2>([2, 1]);
    const ids = tf.zeros<tf.Rank.R2>([2, 1], 'int32');
    const run = (fillInvalidExpert: number) => tf.tidy(() => void tf.moePermute(x, ids, 2, {fillInvalidExpert}));
    for (let call = 0; call < 3; call++) {
      run(-1);
      expect(() => run(-(2 ** 25))).toThrowError(/^Error in moePermute: fillInvalidExpert must be at most 16777216/);
    }
  });

  it('asks the flags of tfjs again', async () => {
    const x = tf.zeros<tf.Rank.R2>([4, 1]);
    const ids = tf.zeros<tf.Rank.R2>([4, 1], 'int32');
    const run = () => tf.tidy(() => void tf.moePermute(x, ids, 2, {fillInvalidExpert: -3000}));
    run();
    await withFlags({WEBGL_RENDER_FLOAT32_ENABLED: false}, () => expect(run).toThrowError(/past which the 16-bit floats/));
    run();
    await withFlags({WEBGL_MAX_TEXTURE_SIZE: 1}, () => expect(run).toThrowError(/WEBGL_MAX_TEXTURE_SIZE is 1/));
    run();
    await withFlags({WEBGL_VERSION: 1}, () => expect(run).toThrowError(/must run on WebGL 2, but runs on WebGL 1/));
    run();
    for (const isPacked of [true, false, true]) {
      await withFlags({WEBGL_PACK: isPacked}, () => {
        const rows = tf.tensor2d([1, 2, 3, 4], [4, 1]);
        const {permutedHiddenStates} = tf.moePermute(rows, ids, 2);
        expect(backend().texData.get(permutedHiddenStates.dataId).isPacked === true).toBe(isPacked);
      });
    }
  });

  it('runs on each backend with what is of that backend', async () => {
    await expectAllOptions(5);
    await expectAllOptions(5);
    for (let i = 0; i < 2; i++) {
      await onOwnBackend(async () => {
        await expectAllOptions(5);
        await expectAllOptions(5);
      });
      await expectAllOptions(5);
    }
  });

  it('is right after another backend is removed, with which tfjs deletes the programs of both', onTextures(async () => {
    // tfjs gives both the same context, and the same cache of programs.
    tf.registerBackend('other-webgl', () => new MathBackendWebGL());
    tf.copyRegisteredKernels('webgl', 'other-webgl');
    const {gl} = backend().gpgpu;
    await expectFloats(products(times(2)), [6, 14], 'before');
    await tf.setBackend('other-webgl');
    expect(backend().gpgpu.gl).toBe(gl);
    await expectFloats(products(times(3)), [9, 21], 'on the other');
    await tf.setBackend('webgl');
    await expectFloats(products(times(4)), [12, 28], 'in turn');
    await withFlags({IS_TEST: false}, () => tf.removeBackend('other-webgl'));
    await expectFloats(products(times(5)), [15, 35], 'after');
  }));
});
