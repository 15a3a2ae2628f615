/**
 * Numbers that are drawn before their count is known, so that a failure keeps its numbers while its sizes shrink. The
 * numbers of a tensor are all of one kind: if NaN were everywhere, no other failure would show.
 */
import * as fc from 'fast-check';

export const MIN_INT32 = -(2 ** 31);
export const MAX_INT32 = 2 ** 31 - 1;

/** Gives as many numbers as a tensor takes. */
export type Numbers = (length: number) => number[];

/** One of the ascending values. It shrinks to the first. A repeated value is drawn more often. */
export const oneOf = <Value>(...values: Value[]): fc.Arbitrary<Value> =>
  fc.nat({max: values.length - 1}).map((i) => values[i]);

/** One of several kinds, by weight. It shrinks to the first. */
export const someOf = <Value>(...kinds: Array<[weight: number, kind: fc.Arbitrary<Value>]>): fc.Arbitrary<Value> =>
  fc.oneof({withCrossShrink: true}, ...kinds.map(([weight, arbitrary]) => ({weight, arbitrary})));

/** Undefined in half of the draws. */
export const maybe = <Value>(value: fc.Arbitrary<Value>): fc.Arbitrary<Value | undefined> =>
  someOf<Value | undefined>([1, fc.constant(undefined)], [1, value]);

/** The different numbers of a tensor. Further numbers repeat these, at other distances each time. */
const NUM_DIFFERENT = 61;
const SHIFT = 17;

const repeated = <Value>(value: fc.Arbitrary<Value>): fc.Arbitrary<(i: number) => Value> =>
  fc
    .array(value, {minLength: NUM_DIFFERENT, maxLength: NUM_DIFFERENT})
    .map((different) => (i) => different[(i + SHIFT * Math.floor(i / NUM_DIFFERENT)) % NUM_DIFFERENT]);

export const numbersOf = (number: fc.Arbitrary<number>): fc.Arbitrary<Numbers> =>
  repeated(number).map((numberAt) => (length) => Array.from({length}, (_, i) => numberAt(i)));

const smallInteger = fc.integer({min: -4, max: 4});
/** Numbers of 22 bits, so that products and sums round. */
const ordinary = fc.integer({min: -(2 ** 22), max: 2 ** 22}).map((i) => i / 2 ** 20);
/** Numbers of any size that float32 has, subnormals too. */
const ofAnySize = fc
  .tuple(fc.integer({min: -(2 ** 23), max: 2 ** 23}), fc.integer({min: -150, max: 100}))
  .map(([i, exponent]) => Math.fround(i * 2 ** exponent));
const LARGE = Math.fround(1e38);
const special = oneOf(NaN, Infinity, -Infinity, -0, LARGE, -LARGE, 2 ** -149, -(2 ** -130), 2 ** -126);

export const flags = numbersOf(fc.nat({max: 1}));

/** float32. */
export const floats = someOf(
  [3, numbersOf(smallInteger)],
  [6, numbersOf(ordinary)],
  [1, flags],
  [1, numbersOf(ofAnySize)],
  [2, numbersOf(someOf([60, ordinary], [1, special]))],
  [1, numbersOf(special)],
);

/** float32, all finite and of ordinary size. */
export const ordinaryFloats = someOf([1, numbersOf(smallInteger)], [2, numbersOf(ordinary)]);

/** Router logits: as far apart as in real routers, masked by -Infinity, equal, or of any kind. */
export const logits = someOf(
  [4, numbersOf(ordinary)],
  [2, numbersOf(ordinary.map((value) => 4 * value))],
  [1, numbersOf(ordinary.map((value) => 32 * value))],
  [2, numbersOf(smallInteger)],
  [2, numbersOf(someOf([1, ordinary], [1, fc.constant(-Infinity)]))],
  [1, numbersOf(fc.constant(-Infinity))],
  [2, floats],
);

/** int32, small or of all bits. */
export const int32s = someOf(
  [2, numbersOf(smallInteger)],
  [1, numbersOf(someOf([4, fc.integer({min: -9, max: 9})], [1, fc.integer({min: MIN_INT32, max: MAX_INT32})]))],
);

/** Gives as many indices as a tensor takes, each of one of `count` things. */
export type Indices = (length: number, count: number) => number[];

const indicesOf = (index: fc.Arbitrary<(count: number) => number>): fc.Arbitrary<Indices> =>
  repeated(index).map((indexAt) => (length, count) => Array.from({length}, (_, i) => indexAt(i)(count)));

const within = fc.nat({max: 2 ** 30 - 1}).map((part) => (count: number) => Math.floor((part / 2 ** 30) * count));
const atAnEnd = oneOf<(count: number) => number>(
  () => -1, () => -2, (count) => count, (count) => count + 1, (count) => count - 1, () => 2 ** 24, () => 2 ** 24 + 1,
  () => -(2 ** 24) - 1, () => MAX_INT32, () => MIN_INT32, () => MIN_INT32 + 1,
);

/** All indices name an existing thing. */
export const goodIndices = indicesOf(within);
/** Some or all indices are around the ends of the range, of int32, or of the integers that float32 counts. */
export const anyIndices = someOf([2, indicesOf(someOf([5, within], [1, atAnEnd]))], [1, indicesOf(atAnEnd)]);
