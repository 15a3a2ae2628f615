/** The checks of quantized weights: each error as a sentence with its path, before any work. */
import {describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {convertQuantizedWeights, isQuantized} from '../../src/arguments/quantized_weights';
import type {MoeWeightFormat} from '../../src/contract/kernel_names';
import * as tf from '../../src/tf';

const ints = (...shape: number[]) => tf.zeros(shape, 'int32');
const untyped = <T>(value: unknown) => value as T;

/** int4 [2, 3, 64], two groups a row. */
const weights = (other: object = {}) =>
  ({format: 'int4', shape: [2, 3, 64], codes: ints(2, 3, 8), groupSize: 32, scales: tf.ones([2, 3, 2]), ...other}) as tf.QuantizedWeights;
const of16Bits = (other: object = {}) => ({format: 'float16', shape: [1, 1, 8], codes: ints(1, 1, 4), ...other}) as tf.QuantizedWeights;
const ofFp4 = (other: object = {}) => weights({format: 'fp4', scaleFormat: 'e8m0', scales: ints(3), ...other});

const errors: Array<[what: string, given: () => unknown, message: string, weightFormat?: MoeWeightFormat]> = [
  ['codes of another shape',
    () => weights({shape: [32, 1024, 1024], codes: ints(32, 1024, 256)}),
    'w1.codes must be int32 [L, D, C/8] = [32,1024,128] for int4 of shape [32,1024,1024], but is [32,1024,256].'],
  ['an unknown field', () => weights({zeros: 1}), "unknown field 'w1.zeros'. The fields of quantized weights are format, shape, codes, groupSize, scales, scaleFormat, zeroPoint, offsets."],
  ['an unknown format', () => weights({format: 'q4_0'}), "w1.format must be one of int4, int8, fp4, float8, float16, bfloat16, but is 'q4_0'."],
  ['no format', () => weights({format: undefined}), 'w1.format must be one of int4, int8, fp4, float8, float16, bfloat16, but is undefined.'],
  ['a shape of rank 2', () => weights({shape: [3, 64]}), 'w1.shape must be [L, D, C], positive integers, but is the array [3, 64].'],
  ['half a word', () => weights({shape: [2, 3, 60]}), 'w1.shape must be [L, D, C] with C a multiple of 8 for int4, whole words, but is [2,3,60].'],
  ['a group size', () => weights({groupSize: 24}), 'w1.groupSize must be a multiple of 16, or C = 64, but is 24.'],
  ['no group size', () => weights({groupSize: undefined}), 'w1.groupSize must be a multiple of 16, or C = 64, but is undefined.'],
  ['a scale format', () => weights({scaleFormat: 'e4m3'}), "w1.scaleFormat must be one of float32, float16, bfloat16, e8m0, but is 'e4m3'."],
  ['no scales', () => weights({scales: null}), 'w1.scales must be given for int4.'],
  ['scales of another shape', () => weights({scales: tf.ones([2, 3, 1])}), 'w1.scales must be float32 [L, D, G] = [2,3,2] for float32 scales of groupSize 32 and shape [2,3,64], but is [2,3,1].'],
  ['packed scales of another size', () => ofFp4({scales: ints(4)}), 'w1.scales must be int32 [n], 4 to a word, = [3] for e8m0 scales of groupSize 32 and shape [2,3,64], but is [4].'],
  ['offsets of another shape', () => weights({offsets: tf.ones([12])}), 'w1.offsets must be float32 [L, D, G] = [2,3,2] for float32 scales of groupSize 32 and shape [2,3,64], but is [12].'],
  ['zeroPoint and offsets', () => weights({zeroPoint: 8, offsets: tf.ones([2, 3, 2])}), 'w1 must have a zeroPoint or offsets, but has both.'],
  ['a zero point', () => weights({zeroPoint: 16}), 'w1.zeroPoint must be an integer 0 to 15 for int4, but is 16.'],
  ['a zero point of floats', () => ofFp4({zeroPoint: 0}), 'w1.zeroPoint must not be given for fp4, which has none.'],
  ['offsets of floats', () => ofFp4({offsets: ints(3)}), 'w1.offsets must not be given for fp4, which has none.'],
  ['scales of 16-bit floats', () => of16Bits({scales: tf.ones([1, 1, 1])}), 'w1.scales must not be given for float16, which has none.'],
  ['weightFormat', () => weights(), "weightFormat must be 'outIn' where w1 is quantized, but is 'inOut'.", 'inOut'],
  ['a part of another format', () => [weights(), ofFp4()], "w1[1].format must be that of w1[0], 'int4', but is 'fp4'."],
  ['a part of another group size', () => [weights(), weights({groupSize: 64, scales: tf.ones([2, 3, 1])})], 'w1[1].groupSize must be that of w1[0], 32, but is 64.'],
  ['a part of another zero point', () => [weights(), weights({zeroPoint: 7})], 'w1[1].zeroPoint must be that of w1[0], 8, but is 7.'],
  ['a part with offsets', () => [weights(), weights({offsets: tf.ones([2, 3, 2])})], 'w1[1] must have offsets if w1[0] has, but w1[1] alone has them.'],
  ['a part of another shape', () => [weights(), weights({shape: [2, 1, 64], codes: ints(2, 1, 8), scales: tf.ones([2, 1, 2])})], 'w1[1].shape must be that of w1[0] [2,3,64] except for axis 0, but is [2,1,64].'],
  ['a part that is a tensor', () => [weights(), tf.ones([2, 3, 64])], 'w1[1] must be quantized weights like the other parts, but is a float32 tensor [2,3,64].'],
];

describeWithFlags('quantized weights', {predicate: ({backendName}) => backendName === 'cpu'}, () => {
  for (const [what, given, message, weightFormat = 'outIn'] of errors) {
    it(`error of ${what}`, () => {
      expect(() => convertQuantizedWeights(untyped(given()), 'w1', weightFormat, 'fusedMoe')).toThrowError(`Error in fusedMoe: ${message}`);
    });
  }

  it('error of codes of floats', () => {
    expect(() => convertQuantizedWeights(weights({codes: tf.zeros([2, 3, 8])}), 'w1', 'outIn', 'fusedMoe'))
      .toThrowError("Argument 'w1.codes' passed to 'fusedMoe' must be int32 tensor, but got float32 tensor");
    expect(() => convertQuantizedWeights(ofFp4({scales: tf.zeros([3])}), 'w1', 'outIn', 'fusedMoe'))
      .toThrowError("Argument 'w1.scales' passed to 'fusedMoe' must be int32 tensor, but got float32 tensor");
  });

  it('gives one encoding for equal weights, and all parts', () => {
    const parts = [weights(), weights({shape: [1, 3, 64], codes: ints(1, 3, 8), scales: tf.ones([1, 3, 2]), zeroPoint: 8, scaleFormat: 'float32'})];
    const converted = convertQuantizedWeights(parts, 'w1', 'outIn', 'fusedMoe');
    expect(converted.encoding).toBe(convertQuantizedWeights(weights(), 'w2', 'outIn', 'fusedMoe').encoding);
    expect({...converted.encoding}).toEqual({format: 'int4', groupSize: 32, scaleFormat: 'float32', zeroPoint: 8, hasOffsets: false});
    expect([converted.numExperts, converted.numOut, converted.numIn]).toEqual([3, 3, 64]);
    expect(converted.parts.map(({codes}) => codes)).toEqual(parts.map(({codes}) => codes));
  });

  it('are told from tensors and arrays', () => {
    expect([weights(), [weights()], [weights(), tf.ones([1])]].map(isQuantized)).toEqual([true, true, true]);
    expect([tf.ones([1]), [tf.ones([1])], [[[1]]], null, []].map(isQuantized)).toEqual([false, false, false, false, false]);
  });
});
