/** moeLoadBalancingLoss and moeRouterZLoss. */
import * as fc from 'fast-check';
import * as tf from '../../src/tf';
import {naiveScores, naiveSoftmax} from '../naive/topk';
import {callsOf} from './attempt';
import {type Bounded, Sum, zeros} from './bounded';
import {asFloats, asInts, type Drawn, drawn, type Input} from './inputs';
import {flags, logits, maybe, oneOf} from './numbers';
import {anyIds, rowsOf, tokenCounts, topks} from './routing';
import {scorings, slopeOf} from './topk';
import {wantedNear} from './wanted';

type MaskDraw = {dtype: Input['dtype']; given: Drawn} | undefined;
const maskInput = (mask: MaskDraw, numTokens: number) =>
  mask && {mask: {...mask.given, dtype: mask.dtype, shape: [numTokens]}};

const lossDraws = fc
  .record({
    size: fc.record({numTokens: tokenCounts, numExperts: oneOf(1, 2, 3, 4, 8, 9, 60), topk: topks}),
    logits: drawn(logits),
    ids: anyIds,
    mask: maybe(fc.record({dtype: oneOf<Input['dtype']>('bool', 'int32', 'float32'), given: drawn(flags)})),
    scoring: scorings,
    dy: maybe(fc.integer({min: -4, max: 4})),
  })
  .map(({size: {numTokens, numExperts, topk}, mask, ...draw}) => ({
    ...draw,
    size: {numTokens, numExperts, topk},
    logits: draw.logits(numTokens * numExperts),
    ids: draw.ids(numTokens * topk, numExperts),
    mask: mask && {dtype: mask.dtype, given: mask.given(numTokens)},
  }));

const scalar = (value: number): Input => ({values: [value], source: 'host', shape: [], dtype: 'float32'});
const isUnknown = (row: number[]) => row.some((logit) => Number.isNaN(logit) || Math.abs(logit) > 1e15 && logit !== -Infinity);
const hasNone = (row: number[]) => row.every((logit) => logit === -Infinity);
const TOLERANCE = {relative: 2e-5, absolute: 1e-6};
const unknown = (length: number): Bounded => ({values: new Float64Array(length), errors: new Float64Array(length).fill(Infinity)});

/** The tokens that count, with their logits: a token counts unless it is masked or all of its logits are -Infinity. */
function countedOf(rows: number[][], mask: MaskDraw): Array<{t: number; row: number[]}> {
  return rows.map((row, t) => ({t, row})).filter(({t, row}) => (mask == null || mask.given.values[t] !== 0) && !hasNone(row));
}

/** log(sum of exp); NaN if it is not a number or not of ordinary size. */
function logSumExp(row: number[]): number {
  const max = Math.max(...row);
  return max + Math.log(row.reduce((sum, x) => sum + Math.exp(x - max), 0));
}

export const zLossCalls = callsOf(
  1,
  'moeRouterZLoss',
  lossDraws,
  ({size: {numTokens, topk}}) => numTokens * topk,
  ({size: {numTokens, numExperts}, mask, dy, ...draw}) => {
    const counted = countedOf(rowsOf(draw.logits.values, numTokens), mask);
    const isOpen = counted.some(({row}) => isUnknown(row));
    const loss = zeros(1);
    const sum = new Sum();
    const dLogits = zeros(numTokens * numExperts);
    for (const {t, row} of counted) {
      const z = logSumExp(row);
      sum.add(z, z / counted.length);
      naiveSoftmax(row).forEach((p, e) => {
        const magnitude = (2 * Math.abs(dy ?? 0)) / counted.length;
        const tolerance = {relative: 2e-5, absolute: 1e-6 * magnitude * (1 + Math.abs(z))};
        new Sum().add(p * z, (2 * (dy ?? 0)) / counted.length).to(dLogits, t * numExperts + e, tolerance);
      });
    }
    sum.to(loss, 0, TOLERANCE);
    return {
      inputs: {logits: asFloats(draw.logits, [numTokens, numExperts]), ...maskInput(mask, numTokens)},
      run: (args) => ({loss: tf.moeRouterZLoss(args.logits, {mask: args.mask})}),
      wanted: () => ({loss: wantedNear(isOpen ? unknown(1) : loss, [])}),
      gradient: dy == null ? undefined : {
        of: 'loss',
        dy: scalar(dy),
        wanted: () => ({logits: wantedNear(isOpen ? unknown(numTokens * numExperts) : dLogits, [numTokens, numExperts])}),
      },
    };
  },
);

function probabilitiesOf(row: number[], scoring: tf.MoeTopkScoring): number[] {
  return scoring === 'sigmoid' || scoring === 'sqrtSoftplus' ? naiveSoftmax(row.map((x) => logScore(x, scoring))) : naiveSoftmax(row);
}
/** Below -600 scores underflow in float64 too. */
const logScore = (x: number, scoring: 'sigmoid' | 'sqrtSoftplus') =>
  x < -600 ? (scoring === 'sigmoid' ? x : x / 2) : Math.log(naiveScores[scoring](x));

export const loadBalancingLossCalls = callsOf(
  2,
  'moeLoadBalancingLoss',
  lossDraws,
  ({ids}) => ids.values.length,
  ({size: {numTokens, numExperts, topk}, ids, mask, scoring, dy, ...draw}) => {
    const counted = countedOf(rowsOf(draw.logits.values, numTokens), mask);
    const idRows = rowsOf(ids.values, numTokens);
    const assigned = counted.flatMap(({t}) => idRows[t]).filter((id) => id >= 0 && id < numExperts);
    const shares = Array.from({length: numExperts}, () => 0);
    assigned.forEach((id) => (shares[id] += 1 / assigned.length));
    const isOpen = counted.some(({row}) => isUnknown(row));
    const loss = zeros(1);
    const sum = new Sum();
    const dLogits = zeros(numTokens * numExperts);
    for (const {t, row} of counted) {
      const probabilities = probabilitiesOf(row, scoring);
      const slopes = shares.map((share) => (numExperts * share) / counted.length);
      probabilities.forEach((p, e) => sum.add(p, slopes[e]));
      probabilities.forEach((p, e) => {
        const toLogit = p * slopeOf(row[e], scoring) * (dy ?? 0);
        const dLogit = new Sum().add(toLogit, slopes[e]);
        probabilities.forEach((other, i) => dLogit.add(toLogit * other, -slopes[i]));
        dLogit.to(dLogits, t * numExperts + e, {relative: 3e-5, absolute: 1e-6 * Math.abs(dy ?? 0) * numExperts});
      });
    }
    sum.to(loss, 0, {...TOLERANCE, absolute: 1e-6 * numExperts});
    return {
      inputs: {
        logits: asFloats(draw.logits, [numTokens, numExperts]),
        ids: asInts(ids, [numTokens, topk]),
        ...maskInput(mask, numTokens),
      },
      run: (args) => ({loss: tf.moeLoadBalancingLoss(args.logits, args.ids, {mask: args.mask, scoring})}),
      wanted: () => ({loss: wantedNear(isOpen ? unknown(1) : loss, [])}),
      gradient: dy == null ? undefined : {
        of: 'loss',
        dy: scalar(dy),
        wanted: () => ({logits: wantedNear(isOpen ? unknown(numTokens * numExperts) : dLogits, [numTokens, numExperts])}),
      },
    };
  },
);
