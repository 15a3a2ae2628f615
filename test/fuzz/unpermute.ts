/** moeUnpermute, moeUnpermuteAndReduce and moeSum. */
import * as fc from 'fast-check';
import * as tf from '../../src/tf';
import {callsOf} from './attempt';
import {Sum, zeros} from './bounded';
import type {Gradient} from './call';
import {asFloats, asInts, drawn} from './inputs';
import {anyIndices, floats, goodIndices, maybe, oneOf, someOf} from './numbers';
import {hiddenSizes, tokenCounts, topks} from './routing';
import {type Wanted, wantedBits, wantedNear} from './wanted';

/** Slots of tokens that read rows. */
type Slots = {
  numTokens: number;
  topk: number;
  hiddenSize: number;
  rows: number[];
  weights: number[];
  /** The row of each slot, undefined for a skipped slot. */
  rowOfSlot: Array<number | undefined>;
};

const GRADIENT = {relative: 64 * 2 ** -24, absolute: 0};

function wantedMerged({numTokens, topk, hiddenSize, rows, weights, rowOfSlot}: Slots): Wanted {
  const merged = zeros(numTokens * hiddenSize);
  for (let at = 0; at < numTokens * hiddenSize; at++) {
    const [t, h] = [Math.floor(at / hiddenSize), at % hiddenSize];
    const sum = new Sum();
    for (let slot = t * topk; slot < (t + 1) * topk; slot++) {
      const row = rowOfSlot[slot];
      if (row != null) {
        sum.add(weights[slot], rows[row * hiddenSize + h]);
      }
    }
    sum.to(merged, at, {relative: (topk + 1) * 2 ** -24, absolute: 0});
  }
  return wantedNear(merged, [numTokens, hiddenSize]);
}

function wantedDRows({topk, hiddenSize, rows, weights, rowOfSlot}: Slots, dy: number[], shape: number[]): Wanted {
  const sums = Array.from(rows, () => new Sum());
  rowOfSlot.forEach((row, slot) => {
    for (let h = 0; row != null && h < hiddenSize; h++) {
      sums[row * hiddenSize + h].add(weights[slot], dy[Math.floor(slot / topk) * hiddenSize + h]);
    }
  });
  const dRows = zeros(rows.length);
  sums.forEach((sum, at) => sum.to(dRows, at, GRADIENT));
  return wantedNear(dRows, shape);
}

function wantedDWeights({numTokens, topk, hiddenSize, rows, rowOfSlot}: Slots, dy: number[]): Wanted {
  const dWeights = zeros(rowOfSlot.length);
  rowOfSlot.forEach((row, slot) => {
    const sum = new Sum();
    for (let h = 0; row != null && h < hiddenSize; h++) {
      sum.add(rows[row * hiddenSize + h], dy[Math.floor(slot / topk) * hiddenSize + h]);
    }
    sum.to(dWeights, slot, GRADIENT);
  });
  return wantedNear(dWeights, [numTokens, topk]);
}

/** The slots and dy with NaN in all rows, weights and dy that are not read: this NaN must reach no result. */
function poisoned(slots: Slots, dy: number[]): {slots: Slots; dy: number[]} {
  const {topk, hiddenSize, rows, weights, rowOfSlot} = slots;
  const readRows = new Set(rowOfSlot);
  const isTokenHere = (t: number) => rowOfSlot.slice(t * topk, (t + 1) * topk).some((row) => row != null);
  return {
    slots: {
      ...slots,
      rows: rows.map((value, i) => (readRows.has(Math.floor(i / hiddenSize)) ? value : NaN)),
      weights: weights.map((value, slot) => (rowOfSlot[slot] == null ? NaN : value)),
    },
    dy: dy.map((value, i) => (isTokenHere(Math.floor(i / hiddenSize)) ? value : NaN)),
  };
}

const sizes = fc.record({
  numTokens: tokenCounts,
  topk: topks,
  hiddenSize: hiddenSizes,
  numRows: oneOf(0, 1, 2, 3, 5, 8, 17, 64, 130),
});

/** Rows that slots read. All of them exist, or some do not. */
const anyInverse = drawn(someOf([1, goodIndices], [2, anyIndices]));

const unpermuteDraws = fc
  .record({
    size: sizes,
    rows: drawn(floats),
    weights: drawn(floats),
    inverse: anyInverse,
    isInverseFlat: fc.boolean(),
    isOptionGiven: fc.boolean(),
    offset: maybe(fc.tuple(drawn(anyIndices), oneOf(1, 2, 5))),
    withOut: fc.boolean(),
    isPoisoned: fc.boolean(),
    dy: maybe(drawn(floats)),
  })
  .map(({size, offset, ...draw}) => ({
    ...draw,
    size,
    rows: draw.rows(size.numRows * size.hiddenSize),
    weights: draw.weights(size.numTokens * size.topk),
    inverse: draw.inverse(size.numTokens * size.topk, size.numRows),
    /** Only the last value counts. */
    offset: offset && offset[0](offset[1], size.numRows),
    dy: draw.dy?.(size.numTokens * size.hiddenSize),
  }));

export const unpermuteCalls = callsOf(
  6,
  'moeUnpermute',
  unpermuteDraws,
  ({inverse}) => inverse.values.length,
  ({size: {numTokens, topk, hiddenSize, numRows}, inverse, offset, isInverseFlat, isOptionGiven, withOut, isPoisoned, ...draw}) => {
    const limit = Math.min(numRows, offset?.values[offset.values.length - 1] ?? numRows);
    const asDrawn: Slots = {
      numTokens,
      topk,
      hiddenSize,
      rows: draw.rows.values,
      weights: draw.weights.values,
      rowOfSlot: inverse.values.map((row) => (row >= 0 && row < limit ? row : undefined)),
    };
    const dyValues = draw.dy?.values ?? [];
    const {slots, dy} = isPoisoned ? poisoned(asDrawn, dyValues) : {slots: asDrawn, dy: dyValues};
    const merged = wantedMerged(slots);
    return {
      inputs: {
        rows: asFloats({...draw.rows, values: slots.rows}, [numRows, hiddenSize]),
        weights: asFloats({...draw.weights, values: slots.weights}, [numTokens, topk]),
        inverse: asInts(inverse, isInverseFlat ? [numTokens * topk] : [numTokens, topk]),
        ...(offset && {offset: asInts(offset, [offset.values.length])}),
      },
      out: withOut ? {shape: [numTokens, hiddenSize], dtype: 'float32'} : undefined,
      run: ({rows, weights, inverse: rowOfSlot, offset: expertFirstTokenOffset}, out) => ({
        merged: isOptionGiven
          ? tf.moeUnpermute(rows, weights, rowOfSlot, {expertFirstTokenOffset, out})
          : tf.moeUnpermute(rows, weights, rowOfSlot, expertFirstTokenOffset, {out}),
      }),
      wanted: () => ({merged, ...(withOut && {out: merged})}),
      gradient: draw.dy && {
        of: 'merged',
        dy: asFloats({...draw.dy, values: dy}, [numTokens, hiddenSize]),
        wanted: () => ({
          rows: wantedDRows(slots, dy, [numRows, hiddenSize]),
          weights: wantedDWeights(slots, dy),
        }),
      },
    };
  },
);

const reduceDraws = fc
  .record({
    size: sizes,
    rows: drawn(floats),
    weights: drawn(floats),
    inverse: maybe(anyInverse),
    isOptionGiven: fc.boolean(),
    isRank3: fc.boolean(),
    applyRouterWeightOnInput: fc.boolean(),
    withOut: fc.boolean(),
    isPoisoned: fc.boolean(),
    dy: maybe(drawn(floats)),
  })
  .map(({inverse, ...draw}) => {
    const {numTokens, topk, hiddenSize} = draw.size;
    const numRows = inverse == null ? numTokens * topk : draw.size.numRows;
    return {
      ...draw,
      size: {...draw.size, numRows},
      rows: draw.rows(numRows * hiddenSize),
      weights: draw.weights(numTokens * topk),
      inverse: inverse?.(numTokens * topk, numRows),
      dy: draw.dy?.(numTokens * hiddenSize),
    };
  });

export const unpermuteAndReduceCalls = callsOf(
  3,
  'moeUnpermuteAndReduce',
  reduceDraws,
  ({weights}) => weights.values.length,
  ({size: {numTokens, topk, hiddenSize, numRows}, inverse, applyRouterWeightOnInput, isOptionGiven, withOut, isPoisoned, ...draw}) => {
    const asDrawn: Slots = {
      numTokens,
      topk,
      hiddenSize,
      rows: draw.rows.values,
      weights: draw.weights.values,
      rowOfSlot: draw.weights.values.map((_, slot) => {
        const row = inverse?.values[slot] ?? slot;
        return row >= 0 && row < numRows ? row : undefined;
      }),
    };
    const dyValues = draw.dy?.values ?? [];
    const {slots, dy} = isPoisoned ? poisoned(asDrawn, dyValues) : {slots: asDrawn, dy: dyValues};
    const summed = applyRouterWeightOnInput ? {...slots, weights: slots.weights.map(() => 1)} : slots;
    const merged = wantedMerged(summed);
    const rowsShape = inverse == null && draw.isRank3 ? [numTokens, topk, hiddenSize] : [numRows, hiddenSize];
    const gradient: Gradient | undefined = draw.dy && {
      of: 'merged',
      dy: asFloats({...draw.dy, values: dy}, [numTokens, hiddenSize]),
      wanted: () => ({
        rows: wantedDRows(summed, dy, rowsShape),
        weights: applyRouterWeightOnInput
          ? wantedBits(slots.weights.map(() => 0), [numTokens, topk])
          : wantedDWeights(slots, dy),
      }),
    };
    return {
      inputs: {
        rows: asFloats({...draw.rows, values: slots.rows}, rowsShape),
        weights: asFloats({...draw.weights, values: slots.weights}, [numTokens, topk]),
        ...(inverse && {inverse: asInts(inverse, [numTokens, topk])}),
      },
      out: withOut ? {shape: [numTokens, hiddenSize], dtype: 'float32'} : undefined,
      run: ({rows, weights, inverse: invPermutedIdx}, out) => ({
        merged: isOptionGiven
          ? tf.moeUnpermuteAndReduce(rows, weights, {invPermutedIdx, applyRouterWeightOnInput, out})
          : tf.moeUnpermuteAndReduce(rows, weights, invPermutedIdx, {applyRouterWeightOnInput, out}),
      }),
      wanted: () => ({merged, ...(withOut && {out: merged})}),
      gradient,
    };
  },
);

const sumDraws = fc
  .record({size: sizes, x: drawn(floats), withOut: fc.boolean(), dy: maybe(drawn(floats))})
  .map(({size: {numTokens, topk, hiddenSize}, ...draw}) => ({
    ...draw,
    size: {numTokens, topk, hiddenSize},
    x: draw.x(numTokens * topk * hiddenSize),
    dy: draw.dy?.(numTokens * hiddenSize),
  }));

export const sumCalls = callsOf(
  2,
  'moeSum',
  sumDraws,
  ({size: {numTokens, topk}}) => numTokens * topk,
  ({size: {numTokens, topk, hiddenSize}, x, withOut, dy}) => {
    const slots = Array.from({length: numTokens * topk}, (_, slot) => slot);
    const sums = wantedMerged({
      numTokens, topk, hiddenSize, rows: x.values, weights: slots.map(() => 1), rowOfSlot: slots,
    });
    return {
      inputs: {x: asFloats(x, [numTokens, topk, hiddenSize])},
      out: withOut ? {shape: [numTokens, hiddenSize], dtype: 'float32'} : undefined,
      run: (args, out) => ({sums: tf.moeSum(args.x, {out})}),
      wanted: () => ({sums, ...(withOut && {out: sums})}),
      gradient: dy && {
        of: 'sums',
        dy: asFloats(dy, [numTokens, hiddenSize]),
        wanted: () => {
          const values = slots.flatMap((slot) => {
            const from = Math.floor(slot / topk) * hiddenSize;
            return dy.values.slice(from, from + hiddenSize);
          });
          // A product with 1 copies every value except subnormals.
          const errors = values.map((value) => (Math.abs(value) < 2 ** -126 ? Math.abs(value) : 0));
          return {x: {values, errors, shape: [numTokens, topk, hiddenSize], dtype: 'float32'}};
        },
      },
    };
  },
);
