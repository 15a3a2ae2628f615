/** moePermute, moePermuteBlockAligned and moeAlignBlockSize. */
import * as fc from 'fast-check';
import * as tf from '../../src/tf';
import {naiveAlign, naivePermute, naivePermuteBlockAligned} from '../naive/routing';
import {callsOf} from './attempt';
import {type Bounded, Sum, zeros} from './bounded';
import type {Gradient} from './call';
import {asFloats, asInts, type Drawn, drawn, type Input} from './inputs';
import {floats, int32s, MAX_INT32, maybe, MIN_INT32, oneOf, someOf} from './numbers';
import {anyMap, blockSizeOf, blockSizes, naiveRouting, type RoutingDraw, routings} from './routing';
import {type Wanted, wantedBits, wantedInts, wantedNear} from './wanted';

/** Rows or scales that ops move: float32, or int32 with any bits. */
type MovedDraw = {dtype: 'float32' | 'int32'; given: Drawn};
const moved: fc.Arbitrary<(length: number) => MovedDraw> = someOf(
  [5, drawn(floats).map((valuesOf) => (length: number): MovedDraw => ({dtype: 'float32', given: valuesOf(length)}))],
  [1, drawn(int32s).map((valuesOf) => (length: number): MovedDraw => ({dtype: 'int32', given: valuesOf(length)}))],
);
const inputOf = ({dtype, given}: MovedDraw, shape: number[]): Input => ({...given, shape, dtype});

/** A scale [T, …] is gathered with the rows; any other scale is returned unchanged. */
type ScaleDraw = {shape: number[]; moved: MovedDraw};
const scales: fc.Arbitrary<(numTokens: number) => ScaleDraw> = fc
  .tuple(oneOf<(numTokens: number) => number[]>(
    () => [], () => [3], (T) => [T, 1], (T) => [T, 4], (T) => [T, 2, 3], (T) => [Math.min(T, 1), 2],
  ), moved)
  .map(([shapeOf, movedOf]) => (numTokens) => {
    const shape = shapeOf(numTokens);
    return {shape, moved: movedOf(tf.util.sizeFromShape(shape))};
  });
const isPerToken = ({shape}: ScaleDraw, numTokens: number) => shape.length >= 2 && !(shape[0] === 1 && numTokens > 1);

/** The outputs that have a gradient, and the gradient that comes in, with as many values as the output has. */
type GradientDraw = {of: 'permutedHiddenStates' | 'a1qScale'; dy: (length: number) => Drawn};
const gradients: fc.Arbitrary<GradientDraw | undefined> = maybe(
  fc.record({of: oneOf('permutedHiddenStates' as const, 'a1qScale' as const), dy: drawn(floats)}),
);

/** The gradient to the rows of tokens: the sum of the incoming rows of its assignments. NaN comes in at other rows. */
function gradientOf(
  draw: {numTokens: number; topk: number},
  {of, ...given}: GradientDraw,
  to: {name: string; shape: number[]},
  numRows: number,
  rowOfAssignment: Array<number | undefined>,
): Gradient {
  const [, ...rowShape] = to.shape;
  const rowSize = tf.util.sizeFromShape(rowShape);
  const rowsInUse = new Set(rowOfAssignment);
  const dy = given.dy(numRows * rowSize);
  const values = dy.values.map((value, i) => (rowsInUse.has(Math.floor(i / rowSize)) ? value : NaN));
  return {
    of,
    dy: asFloats({...dy, values}, [numRows, ...rowShape]),
    wanted: () => {
      const sums: Bounded = zeros(draw.numTokens * rowSize);
      for (let at = 0; at < draw.numTokens * rowSize; at++) {
        const [t, c] = [Math.floor(at / rowSize), at % rowSize];
        const sum = new Sum();
        for (let k = 0; k < draw.topk; k++) {
          const row = rowOfAssignment[t * draw.topk + k];
          if (row != null) {
            sum.add(values[row * rowSize + c]);
          }
        }
        sum.to(sums, at, {relative: 64 * 2 ** -24, absolute: 0});
      }
      return {[to.name]: wantedNear(sums, to.shape)};
    },
  };
}

/** Rows of tokens after the move, 0 for -1. */
function movedRows({dtype, given}: MovedDraw, tokens: number[], rowShape: number[]): Wanted {
  const rowSize = tf.util.sizeFromShape(rowShape);
  const rows = tokens.flatMap((token) =>
    token < 0 ? new Array<number>(rowSize).fill(0) : given.values.slice(token * rowSize, (token + 1) * rowSize),
  );
  return wantedBits(rows, [tokens.length, ...rowShape], dtype);
}

/** Scales with the rows of `tokens`, or the scale of the whole tensor. */
function wantedScale(scale: ScaleDraw | undefined, numTokens: number, tokens: number[]): Record<string, Wanted> {
  if (scale == null) {
    return {};
  }
  const {shape, moved: {dtype, given}} = scale;
  return {
    a1qScale: isPerToken(scale, numTokens)
      ? movedRows(scale.moved, tokens, shape.slice(1))
      : wantedBits(given.values, shape, dtype),
  };
}

/** The first int32 input that webgl refuses, because its textures hold floats. */
function webglRefuses(rows: MovedDraw, scale: ScaleDraw | undefined, numTokens: number, fill = 0): string | undefined {
  if (tf.getBackend() !== 'webgl') {
    return undefined;
  }
  if (rows.dtype !== 'int32' && Math.abs(fill) > 2 ** 24) {
    return 'must be at most 16777216 in magnitude';
  }
  const isGatheredInt = scale?.moved.dtype === 'int32' && isPerToken(scale, numTokens);
  return rows.dtype === 'int32' || isGatheredInt ? 'must be float32 on the webgl backend' : undefined;
}

/** The float32 input that the gradient of this output goes to, if there is one. */
function differentiated(
  of: 'permutedHiddenStates' | 'a1qScale' | undefined,
  {numTokens, hiddenSize}: RoutingDraw,
  rows: MovedDraw,
  scale: ScaleDraw | undefined,
): {name: string; shape: number[]} | undefined {
  if (of === 'a1qScale') {
    const isFloat = scale?.moved.dtype === 'float32' && isPerToken(scale, numTokens);
    return isFloat ? {name: 'a1qScale', shape: scale.shape} : undefined;
  }
  return of != null && rows.dtype === 'float32' ? {name: 'hiddenStates', shape: [numTokens, hiddenSize]} : undefined;
}

const permuteDraws = fc
  .record({
    routing: routings,
    rows: moved,
    map: maybe(anyMap),
    localPart: maybe(oneOf(0, 0.5, 1)),
    alignBlockSize: maybe(blockSizes),
    fillInvalidExpert: oneOf(undefined, 0, -1, 9, 2 ** 24, MIN_INT32, MAX_INT32),
    scale: maybe(scales),
    withOut: fc.boolean(),
    gradient: gradients,
  })
  .map(({routing, localPart, ...draw}) => ({
    ...draw,
    routing,
    rows: draw.rows(routing.numTokens * routing.hiddenSize),
    map: draw.map?.(routing.numExperts, routing.numExperts),
    numLocalExperts: localPart == null || draw.map == null ? undefined : Math.max(1, Math.ceil(localPart * routing.numExperts)),
    alignBlockSize: draw.alignBlockSize && blockSizeOf(draw.alignBlockSize, routing),
    scale: draw.scale?.(routing.numTokens),
  }));

export const permuteCalls = callsOf(
  6,
  'moePermute',
  permuteDraws,
  ({routing}) => routing.ids.values.length,
  ({routing, rows, map, scale, alignBlockSize, fillInvalidExpert, numLocalExperts, withOut, gradient}) => {
    const {numTokens, topk, numExperts, hiddenSize, ids} = routing;
    const naive = naivePermute({
      ...naiveRouting(routing), expertMap: map?.values, numLocalExperts, alignBlockSize, fillInvalidExpert,
    });
    const permutedHiddenStates = movedRows(rows, naive.rowToken, [hiddenSize]);
    const to = differentiated(gradient?.of, routing, rows, scale);
    const rowOfAssignment = naive.invPermutedIdx.map((row, i) => (naive.permutedIdx[row] === i ? row : undefined));
    return {
      inputs: {
        hiddenStates: inputOf(rows, [numTokens, hiddenSize]),
        topkIds: asInts(ids, [numTokens, topk]),
        ...(map && {expertMap: asInts(map, [numExperts])}),
        ...(scale && {a1qScale: inputOf(scale.moved, scale.shape)}),
      },
      out: withOut ? {shape: [naive.numRows, hiddenSize], dtype: rows.dtype} : undefined,
      run: ({hiddenStates, topkIds, expertMap, a1qScale}, out) =>
        tf.moePermute(hiddenStates, topkIds, numExperts, {
          expertMap, a1qScale, out, numLocalExperts, alignBlockSize, fillInvalidExpert,
        }),
      wanted: () => ({
        permutedHiddenStates,
        expertFirstTokenOffset: wantedInts(naive.expertFirstTokenOffset),
        invPermutedIdx: wantedInts(naive.invPermutedIdx),
        mIndices: wantedInts(naive.mIndices),
        permutedIdx: wantedInts(naive.permutedIdx),
        ...wantedScale(scale, numTokens, naive.scaleToken),
        ...(withOut && {out: permutedHiddenStates}),
      }),
      gradient: gradient && to && gradientOf(routing, gradient, to, naive.numRows, rowOfAssignment),
      throws: webglRefuses(rows, scale, numTokens, fillInvalidExpert),
    };
  },
);

/** Labels are unchanged entries of the map, so entries must be in the range that every backend counts exactly. */
const MAX_LABEL = 2 ** 24;
const labelsOf = (map: Drawn | undefined): Drawn | undefined =>
  map && {...map, values: map.values.map((label) => Math.min(Math.max(label, -MAX_LABEL), MAX_LABEL))};

const blockAlignedDraws = fc
  .record({routing: routings, rows: moved, map: maybe(anyMap), blockSize: blockSizes, scale: maybe(scales), gradient: gradients})
  .map(({routing, ...draw}) => ({
    ...draw,
    routing,
    rows: draw.rows(routing.numTokens * routing.hiddenSize),
    map: labelsOf(draw.map?.(routing.numExperts, routing.numExperts)),
    blockSize: blockSizeOf(draw.blockSize, routing),
    scale: draw.scale?.(routing.numTokens),
  }));

export const permuteBlockAlignedCalls = callsOf(
  3,
  'moePermuteBlockAligned',
  blockAlignedDraws,
  ({routing}) => routing.ids.values.length,
  ({routing, rows, map, scale, blockSize, gradient}) => {
    const {numTokens, topk, numExperts, hiddenSize, ids} = routing;
    const naive = naivePermuteBlockAligned({...naiveRouting(routing), expertMap: map?.values, blockSize});
    const numRows = naive.sortedTokenIds.length;
    const to = differentiated(gradient?.of, routing, rows, scale);
    const rowOfAssignment = naive.invPermutedIdx.map((row) => (row < numRows ? row : undefined));
    return {
      inputs: {
        hiddenStates: inputOf(rows, [numTokens, hiddenSize]),
        topkIds: asInts(ids, [numTokens, topk]),
        ...(map && {expertMap: asInts(map, [numExperts])}),
        ...(scale && {a1qScale: inputOf(scale.moved, scale.shape)}),
      },
      run: ({hiddenStates, topkIds, expertMap, a1qScale}) =>
        tf.moePermuteBlockAligned(hiddenStates, topkIds, numExperts, blockSize, {expertMap, a1qScale}),
      wanted: () => ({
        permutedHiddenStates: movedRows(rows, naive.rowToken, [hiddenSize]),
        sortedTokenIds: wantedInts(naive.sortedTokenIds),
        expertIds: wantedInts(naive.expertIds),
        invPermutedIdx: wantedInts(naive.invPermutedIdx),
        ...wantedScale(scale, numTokens, naive.rowToken),
      }),
      gradient: gradient && to && gradientOf(routing, gradient, to, numRows, rowOfAssignment),
      throws: webglRefuses(rows, scale, numTokens),
    };
  },
);

const alignDraws = fc
  .record({
    routing: routings,
    map: maybe(anyMap),
    blockSize: blockSizes,
    padSortedIds: fc.boolean(),
    ignoreInvalidExperts: fc.boolean(),
  })
  .map(({routing, ...draw}) => ({
    ...draw,
    routing,
    map: labelsOf(draw.map?.(routing.numExperts, routing.numExperts)),
    blockSize: blockSizeOf(draw.blockSize, {...routing, hiddenSize: 1}),
  }));

export const alignCalls = callsOf(
  3,
  'moeAlignBlockSize',
  alignDraws,
  ({routing}) => routing.ids.values.length,
  ({routing, map, blockSize, ...options}) => {
    const {numTokens, topk, numExperts, ids} = routing;
    const naive = naiveAlign({...naiveRouting(routing), expertMap: map?.values, blockSize, ...options});
    return {
      inputs: {
        topkIds: asInts(ids, [numTokens, topk]),
        ...(map && {expertMap: asInts(map, [numExperts])}),
      },
      run: ({topkIds, expertMap}) => tf.moeAlignBlockSize(topkIds, blockSize, numExperts, {expertMap, ...options}),
      wanted: () => ({
        sortedTokenIds: wantedInts(naive.sortedTokenIds),
        expertIds: wantedInts(naive.expertIds),
        numTokensPostPad: wantedInts(naive.numTokensPostPad),
      }),
    };
  },
);
