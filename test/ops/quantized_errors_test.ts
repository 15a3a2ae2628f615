/** The errors of quantized weights as arguments of ops: the whole sentence with its path, before any work. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';

/** A value that only callers without types can pass. */
const untyped = (value: unknown) => value as never;

const [E, H, I] = [2, 32, 32];
const x = tf.zeros<tf.Rank.R2>;

/** int4 [2, D, 32], two groups a row. */
const quantized = (numOut: number, other: object = {}) =>
  untyped({format: 'int4', shape: [E, numOut, 32], codes: tf.zeros([E, numOut, 4], 'int32'), groupSize: 16, scales: tf.ones([E, numOut, 2]), ...other});

type Place = {
  path: string;
  numOut: number;
  /** Calls the op with these weights at `path`. */
  call: (weights: never, options?: object) => unknown;
};

const w1 = () => quantized(2 * I);
const w2 = () => quantized(H);
const fusedExperts = (first: never, second: never, options?: object) =>
  tf.fusedExperts(x([3, H]), first, second, x([3, 1]), tf.zeros([3, 1], 'int32'), options);
const fusedMoe = (first: never, second: never, options?: object) => tf.fusedMoe(x([3, H]), first, second, x([3, E]), 1, options);

const places: Record<string, Place> = {
  moeGroupedMatMul: {path: 'weights', numOut: 64, call: (weights, options) => tf.moeGroupedMatMul(x([3, 32]), weights, [0, 1, 3], options)},
  'a part of moeGroupedMatMul': {path: 'weights[1]', numOut: 64, call: (weights, options) => tf.moeGroupedMatMul(x([3, 32]), untyped([w1(), weights]), [0, 1, 2, 2, 3], options)},
  fusedExperts: {path: 'w1', numOut: 2 * I, call: (weights, options) => fusedExperts(weights, w2(), options)},
  'a part of fusedExperts': {path: 'w2[1]', numOut: H, call: (weights, options) => fusedExperts(untyped([w1(), w1()]), untyped([w2(), weights]), options)},
  fusedMoe: {path: 'w2', numOut: H, call: (weights, options) => fusedMoe(w1(), weights, options)},
  'a part of fusedMoe': {path: 'w1[0]', numOut: 2 * I, call: (weights, options) => fusedMoe(untyped([weights, w1()]), untyped([w2(), w2()]), options)},
};

/** What is wrong, the fields, and the sentence without its first words; `path` and D are those of the place. */
type Fault = [what: string, fields: (numOut: number) => object, message: (path: string, numOut: number) => string];

const formats = 'int4, int8, fp4, float8, float16, bfloat16';
const faults: Fault[] = [
  ['format', () => ({format: 'int2'}), (path) => `${path}.format must be one of ${formats}, but is 'int2'.`],
  ['an unknown field', () => ({zeros: 8}), (path) => `unknown field '${path}.zeros'. The fields of quantized weights are format, shape, codes, groupSize, scales, scaleFormat, zeroPoint, offsets.`],
  ['shape', (D) => ({shape: [E * D, 32]}), (path, D) => `${path}.shape must be [L, D, C], positive integers, but is the array [${E * D}, 32].`],
  ['shape of no whole words', (D) => ({shape: [E, D, 36]}), (path, D) => `${path}.shape must be [L, D, C] with C a multiple of 8 for int4, whole words, but is [${E},${D},36].`],
  ['codes', (D) => ({codes: tf.zeros([E, D, 8], 'int32')}), (path, D) => `${path}.codes must be int32 [L, D, C/8] = [${E},${D},4] for int4 of shape [${E},${D},32], but is [${E},${D},8].`],
  ['groupSize', () => ({groupSize: 24}), (path) => `${path}.groupSize must be a multiple of 16, or C = 32, but is 24.`],
  ['groupSize that is absent', () => ({groupSize: null}), (path) => `${path}.groupSize must be a multiple of 16, or C = 32, but is null.`],
  ['scales', (D) => ({scales: tf.ones([E, D, 1])}), (path, D) => `${path}.scales must be float32 [L, D, G] = [${E},${D},2] for float32 scales of groupSize 16 and shape [${E},${D},32], but is [${E},${D},1].`],
  ['scales in words', (D) => ({scaleFormat: 'float16', scales: tf.zeros([E * D * 2], 'int32')}), (path, D) => `${path}.scales must be int32 [n], 2 to a word, = [${E * D}] for float16 scales of groupSize 16 and shape [${E},${D},32], but is [${E * D * 2}].`],
  ['scales that are absent', () => ({scales: undefined}), (path) => `${path}.scales must be given for int4.`],
  ['scaleFormat', () => ({scaleFormat: 'float8'}), (path) => `${path}.scaleFormat must be one of float32, float16, bfloat16, e8m0, but is 'float8'.`],
  ['zeroPoint', () => ({zeroPoint: 7.5}), (path) => `${path}.zeroPoint must be an integer 0 to 15 for int4, but is 7.5.`],
  ['offsets', (D) => ({offsets: tf.ones([E, D])}), (path, D) => `${path}.offsets must be float32 [L, D, G] = [${E},${D},2] for float32 scales of groupSize 16 and shape [${E},${D},32], but is [${E},${D}].`],
  ['zeroPoint and offsets', (D) => ({zeroPoint: 8, offsets: tf.ones([E, D, 2])}), (path) => `${path} must have a zeroPoint or offsets, but has both.`],
  ['zeroPoint of floats', () => ({format: 'fp4', zeroPoint: 0}), (path) => `${path}.zeroPoint must not be given for fp4, which has none.`],
  ['scales of 16-bit floats', (D) => ({format: 'bfloat16', codes: tf.zeros([E, D, 16], 'int32'), groupSize: undefined}), (path) => `${path}.scales must not be given for bfloat16, which has none.`],
];

describeWithFlags('errors of quantized weights', ALL_ENVS, ({backendName}) => {
  for (const [where, {path, numOut, call}] of Object.entries(places)) {
    const opName = where.split(' ').at(-1)!;
    for (const [what, fields, message] of backendName === 'cpu' ? faults : faults.slice(0, 1)) {
      it(`${where}: ${what}`, () => {
        expect(() => call(quantized(numOut, fields(numOut)))).toThrowError(`Error in ${opName}: ${message(path, numOut)}`);
      });
    }
    it(`${where}: dtypes`, () => {
      expect(() => call(quantized(numOut, {codes: tf.zeros([E, numOut, 4])}))).toThrowError(
        `Argument '${path}.codes' passed to '${opName}' must be int32 tensor, but got float32 tensor`);
      expect(() => call(quantized(numOut, {scaleFormat: 'bfloat16'}))).toThrowError(
        `Argument '${path}.scales' passed to '${opName}' must be int32 tensor, but got float32 tensor`);
      expect(() => call(quantized(numOut, {codes: null}))).toThrowError(
        `Argument '${path}.codes' passed to '${opName}' must be a Tensor or TensorLike, but got 'null'`);
    });
    it(`${where}: weightFormat`, () => {
      const argName = path.startsWith('weights') ? 'weights' : 'w1';
      expect(() => call(quantized(numOut), {weightFormat: 'inOut'})).toThrowError(
        `Error in ${opName}: weightFormat must be 'outIn' where ${argName} is quantized, but is 'inOut'.`);
    });
  }

  it('weightFormat of w2 alone', () => {
    expect(() => fusedMoe(untyped(tf.zeros([E, H, 2 * I])), w2(), {weightFormat: 'inOut'})).toThrowError(
      "Error in fusedMoe: weightFormat must be 'outIn' where w2 is quantized, but is 'inOut'.");
  });

  it('sizes that do not fit the rows, and each other', () => {
    const wide = quantized(64, {shape: [E, 64, 40], codes: tf.zeros([E, 64, 5], 'int32'), scales: tf.ones([E, 64, 3])});
    expect(() => tf.moeGroupedMatMul(x([3, 32]), wide, [0, 1, 3])).toThrowError(
      'Error in moeGroupedMatMul: weights.shape must be [L, D, C] with C = 32 for x [3,32], but is [2,64,40].');
    expect(() => fusedMoe(wide, w2())).toThrowError(
      'Error in fusedMoe: w1.shape must be [L, 2I, H] with H = 32 for hiddenStates [3,32], but is [2,64,40].');
    expect(() => fusedMoe(quantized(80), w2())).toThrowError(
      'Error in fusedMoe: w2.shape must be [L, H, I] with I = 40 for w1 [2,80,32], but is [2,32,32].');
    expect(() => fusedMoe(w1(), quantized(40))).toThrowError(
      'Error in fusedMoe: w2 must have as many outputs as hiddenStates has columns (H = 32), but has 40.');
    expect(() => fusedMoe(w1(), untyped([w2(), w2()]))).toThrowError(
      'Error in fusedMoe: w2 must have as many experts as w1 (L = 2), but has 4.');
    expect(() => fusedMoe(quantized(63), w2())).toThrowError(
      'Error in fusedMoe: w1 must have an even 2I when gated (a gate and an up for each of I), but 2I = 63.');
  });

  it('parts that are unlike, and a list of both kinds', () => {
    const eight = quantized(64, {format: 'int8', codes: tf.zeros([E, 64, 8], 'int32')});
    expect(() => tf.moeGroupedMatMul(x([3, 32]), untyped([w1(), eight]), [0, 0, 0, 0, 3])).toThrowError(
      "Error in moeGroupedMatMul: weights[1].format must be that of weights[0], 'int4', but is 'int8'.");
    expect(() => tf.moeGroupedMatMul(x([3, 32]), untyped([w1(), tf.zeros([E, 64, 32])]), [0, 0, 0, 0, 3])).toThrowError(
      'Error in moeGroupedMatMul: weights[1] must be quantized weights like the other parts, but is a float32 tensor [2,64,32].');
  });

  it('shared experts, which are float32', () => {
    const shared = {w1: quantized(2 * I), w2: tf.zeros([H, I])};
    expect(() => fusedMoe(w1(), w2(), {sharedExperts: shared})).toThrowError(
      'Error in fusedMoe: sharedExperts.w1 must be float32, but is quantized. moeDequantizeWeights makes float32 of it.');
  });

  it('leave no tensor behind', () => {
    const given = {first: w1(), second: w2(), x: x([3, H]), scales: tf.ones([1, 1, 1])};
    const before = tf.memory().numTensors;
    const wrong = untyped({...(given.second as object), scales: given.scales});
    expect(() => tf.fusedMoe(given.x, given.first, wrong, [[1, 2], [1, 2], [1, 2]], 1, {w1Bias: [[1]]})).toThrowError();
    expect(() => tf.fusedMoe(given.x, given.first, given.second, [[1, 2], [1, 2], [1, 2]], 3)).toThrowError();
    expect(() => tf.moeGroupedMatMul(given.x, given.first, [0, 1, 3], {bias: [[1]]})).toThrowError();
    expect(tf.memory().numTensors).toBe(before);
  });
});
