/** The experts of tokens: sizes, ids, and maps of local experts. */
import * as fc from 'fast-check';
import type {Routing} from '../naive/routing';
import {type Drawn, drawn} from './inputs';
import {anyIndices, goodIndices, oneOf, someOf} from './numbers';

/** T, K, E and H, with the ids of the assignments. */
export type RoutingDraw = {
  numTokens: number;
  topk: number;
  numExperts: number;
  hiddenSize: number;
  ids: Drawn;
};

export const topks = oneOf(1, 1, 2, 2, 2, 3, 4, 6, 8);
export const hiddenSizes = oneOf(1, 2, 3, 4, 4, 5, 8, 8, 16, 33, 68);
export const expertCounts = someOf(
  [12, oneOf(1, 2, 3, 4, 5, 8, 9, 16)],
  [3, oneOf(60, 129, 160)],
  [1, oneOf(257, 1025, 2050)],
);
export const tokenCounts = someOf(
  [32, oneOf(0, 1, 1, 2, 3, 4, 5, 7, 9)],
  [8, oneOf(13, 17, 33, 64, 65)],
  [1, oneOf(130, 260)],
);

type Sizes = Omit<RoutingDraw, 'ids'>;
const sizes: fc.Arbitrary<Sizes> = someOf(
  [300, fc.record({numTokens: tokenCounts, topk: topks, numExperts: expertCounts, hiddenSize: hiddenSizes})],
  // More assignments than one launch sorts.
  [1, fc.record({numTokens: oneOf(1030, 1200), topk: fc.constant(8), numExperts: oneOf(2, 60, 300), hiddenSize: oneOf(1, 4)})],
);

/** Ids of any experts, of few experts, or ids of which some name no expert. */
export const anyIds = drawn(
  someOf(
    [4, goodIndices],
    [1, goodIndices.map((indices) => (length: number, count: number) => indices(length, Math.min(2, count)))],
    [1, goodIndices.map((indices) => (length: number) => indices(length, 1))],
    [5, anyIndices],
  ),
);

export const routings: fc.Arbitrary<RoutingDraw> = fc
  .tuple(sizes, anyIds)
  .map(([size, ids]) => ({...size, ids: ids(size.numTokens * size.topk, size.numExperts)}));

/** The axes along which T tokens lie: one, or two. */
export type TokenAxes = (numTokens: number) => number[];
export const tokenAxes = oneOf<TokenAxes>(
  (T) => [T], (T) => [T], (T) => [1, T], (T) => [T, 1], (T) => (T % 2 === 0 ? [2, T / 2] : [T]),
);

/** The values in rows. */
export const rowsOf = <Value>(values: Value[], numRows: number): Value[][] => {
  const size = values.length / Math.max(1, numRows);
  return Array.from({length: numRows}, (_, row) => values.slice(row * size, (row + 1) * size));
};

export const naiveRouting = ({ids, numTokens, topk, numExperts}: RoutingDraw): Routing & {topk: number} => ({
  ids: rowsOf(ids.values, numTokens),
  topk,
  numExperts,
});

/** A map of E experts. It may merge experts, have entries that are no local index, or have no local expert. */
export const anyMap = drawn(
  someOf(
    [2, goodIndices],
    [1, goodIndices.map((indices) => (length: number, count: number) => indices(length, Math.ceil(count / 4)))],
    [2, anyIndices],
    [1, fc.constant((length: number) => new Array<number>(length).fill(-5))],
  ),
);

/** B, smaller if padding would make too many elements. */
export const blockSizes = oneOf(1, 2, 3, 4, 7, 16, 64);
export const blockSizeOf = (size: number, {numTokens, topk, numExperts, hiddenSize}: RoutingDraw): number =>
  (numTokens * topk + numExperts * size) * hiddenSize > 50_000 ? Math.min(size, 2) : size;
