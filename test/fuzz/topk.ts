/** moeTopk. */
import * as fc from 'fast-check';
import * as tf from '../../src/tf';
import {comparedOf, naiveIds, type NaiveTopkOptions, naiveWeights} from '../naive/topk';
import {callsOf} from './attempt';
import {type Bounded, isSubnormal, Sum, zeros} from './bounded';
import type {Values} from './call';
import {asFloats, type Drawn, drawn} from './inputs';
import {floats, logits, maybe, oneOf, someOf} from './numbers';
import {rowsOf, tokenAxes, tokenCounts} from './routing';
import {type Wanted, wantedBits, wantedNear} from './wanted';

export const scorings: fc.Arbitrary<tf.MoeTopkScoring> = oneOf('softmax', 'softmaxAfterTopk', 'sigmoid', 'sqrtSoftplus');

/** How experts are chosen, and from how many. */
export type RouterDraw = {
  topk: number;
  numExperts: number;
  scoring: tf.MoeTopkScoring;
  renormalize: boolean | undefined;
  routedScalingFactor: number | undefined;
  groups: {numExpertGroups: number; topkGroups: number} | undefined;
  bias: Drawn | undefined;
};

/** Larger numbers would compile programs of their own. */
const MAX_TOPK = 8;

/** `part` of 1..max. */
const partOf = (part: number, max: number) => 1 + Math.floor(part * max);
const parts = fc.nat({max: 999}).map((thousandths) => thousandths / 1000);

/** A router of E experts. */
export const routers: fc.Arbitrary<(numExperts: number) => RouterDraw> = fc
  .record({
    topk: parts,
    scoring: scorings,
    renormalize: oneOf(undefined, false, true),
    routedScalingFactor: oneOf(undefined, 2.5, -1, 0),
    groups: maybe(fc.record({numExpertGroups: parts, topkGroups: parts})),
    bias: maybe(drawn(someOf([3, logits], [1, floats]))),
  })
  .map(({topk, groups, bias, ...router}) => (numExperts) => {
    const divisors = Array.from({length: Math.min(16, numExperts)}, (_, i) => i + 1).filter((d) => numExperts % d === 0);
    const numExpertGroups = divisors[partOf(groups?.numExpertGroups ?? 0, divisors.length) - 1];
    const topkGroups = partOf(groups?.topkGroups ?? 0, numExpertGroups);
    const numKept = (topkGroups * numExperts) / numExpertGroups;
    return {
      ...router,
      numExperts,
      topk: partOf(topk, Math.min(MAX_TOPK, numKept)),
      groups: groups && {numExpertGroups, topkGroups},
      bias: router.scoring === 'softmaxAfterTopk' ? undefined : bias?.(numExperts),
    };
  });

/** The options of the op, except the bias. */
export const routerOptions = ({scoring, renormalize, routedScalingFactor, groups}: RouterDraw) => ({
  scoring,
  renormalize,
  routedScalingFactor,
  ...groups,
});

export const naiveOptions = ({topk, bias, ...router}: RouterDraw): NaiveTopkOptions => ({
  topk,
  scoring: router.scoring,
  renormalize: router.renormalize,
  routedScalingFactor: router.routedScalingFactor,
  ...router.groups,
  scoreCorrectionBias: bias?.values,
});

/**
 * Whether rounding decides the choice: with a bias, scores are compared, and devices compute scores slightly
 * differently.
 */
function isUndecided(row: number[], options: NaiveTopkOptions): boolean {
  if (options.scoreCorrectionBias == null) {
    return false;
  }
  const compared = comparedOf(row, options).filter((value) => !Number.isNaN(value)).sort((a, b) => a - b);
  const groupSize = row.length / (options.numExpertGroups ?? 1);
  // The values of groups are sums of two.
  const scale = groupSize === row.length ? 1 : 2 * Math.max(...compared.map(Math.abs));
  return compared.some((value, i) => {
    const before = compared[i - 1];
    return i > 0 && !(value - before > 4e-6 * Math.max(1, scale, Math.abs(value), Math.abs(before)));
  });
}

/** Values of groups may be as close as sums of any two. */
const hasGroups = ({numExpertGroups = 1}: NaiveTopkOptions) => numExpertGroups > 1;

/** The ids of a token, or undefined if rounding decides. */
export function decidedIds(row: number[], options: NaiveTopkOptions): number[] | undefined {
  const isOpen = isUndecided(row, options) || (options.scoreCorrectionBias != null && hasGroups(options));
  return isOpen ? undefined : naiveIds(row, options);
}

/** The ids of all tokens. If rounding decides, these are the given ids, if they are possible. */
export const acceptedIds = (rows: number[][], given: ArrayLike<number>, options: NaiveTopkOptions): number[][] =>
  rows.map((row, t) => {
    const {topk} = options;
    const ids = decidedIds(row, options) ?? Array.from(given).slice(t * topk, (t + 1) * topk);
    const areExperts = ids.every((id) => id >= 0 && id < row.length);
    return areExperts && new Set(ids).size === topk ? ids : naiveIds(row, options);
  });

export const weightErrors = (weights: number[], {routedScalingFactor = 1}: NaiveTopkOptions): number[] =>
  weights.map((weight) => 1e-5 * Math.abs(weight) + 1e-6 * Math.max(1, Math.abs(routedScalingFactor)));

/** The gradient to a token's logits; the choice is held fixed. */
export function topkGradient(
  row: number[],
  ids: number[],
  dWeights: Bounded,
  options: NaiveTopkOptions,
): Bounded {
  const {topk, scoring = 'softmax', renormalize = topk > 1, routedScalingFactor = 1} = options;
  const gradient = zeros(row.length);
  if (row.some((logit) => Number.isNaN(logit) || logit === Infinity)) {
    gradient.errors.fill(Infinity);
    return gradient;
  }
  const unscaled = naiveWeights(row, ids, {...options, routedScalingFactor: 1});
  const isSoftmaxOfAll = scoring === 'softmax' && !renormalize;
  const isSoftmax = scoring === 'softmaxAfterTopk' || renormalize || scoring === 'softmax';
  const g = (k: number) => dWeights.values[k] * routedScalingFactor;
  // A value that is subnormal before it is scaled may count as 0.
  const gError = (k: number, weight: number) =>
    dWeights.errors[k] * Math.abs(routedScalingFactor) + (isSubnormal(weight * dWeights.values[k]) ? Math.abs(g(k)) : 0);
  const probabilities = isSoftmaxOfAll ? naiveWeights(row, row.map((_, e) => e), {...options, topk: row.length, renormalize: false, routedScalingFactor: 1}) : unscaled;
  const among = isSoftmaxOfAll ? row.map((_, e) => e) : ids;
  among.forEach((e, i) => {
    const k = isSoftmaxOfAll ? ids.indexOf(e) : i;
    const slope = slopeOf(row[e], scoring);
    const weight = probabilities[i] * slope;
    const sum = new Sum();
    if (k >= 0) {
      sum.add(weight, g(k), 0, gError(k, weight));
    }
    if (isSoftmax) {
      unscaled.forEach((w, j) => sum.add(weight * w, -g(j), 0, gError(j, weight * w)));
    }
    sum.to(gradient, e, {relative: 2e-5, absolute: 1e-7 * Math.max(...ids.map((_, j) => Math.abs(g(j))))});
  });
  return gradient;
}

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
const softplus = (x: number) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

/** d log(score) / d logit */
export function slopeOf(x: number, scoring: tf.MoeTopkScoring): number {
  switch (scoring) {
    case 'sigmoid':
      return sigmoid(-x);
    case 'sqrtSoftplus':
      return (x < -40 ? 1 : sigmoid(x) / softplus(x)) / 2;
    default:
      return 1;
  }
}

const topkDraws = fc
  .record({
    numTokens: tokenCounts,
    numExperts: someOf(
      [12, oneOf(1, 2, 3, 4, 5, 8, 9, 16, 60)],
      [2, oneOf(129, 160, 257)],
      // More experts than workgroup memory holds.
      [1, fc.constant(3700)],
    ),
    axes: tokenAxes,
    router: routers,
    logits: drawn(logits),
    dy: maybe(drawn(floats)),
  })
  .map(({numExperts, axes, ...draw}) => {
    const router = draw.router(numExperts);
    const numTokens = numExperts > 1000 ? Math.min(2, draw.numTokens) : draw.numTokens;
    return {
      numTokens,
      axes: axes(numTokens),
      router,
      logits: draw.logits(numTokens * numExperts),
      dy: draw.dy?.(numTokens * router.topk),
    };
  });

export const topkCalls = callsOf(
  6,
  'moeTopk',
  topkDraws,
  ({numTokens, router}) => numTokens * router.topk,
  ({numTokens, axes, router, dy, ...draw}) => {
    const {topk, numExperts, bias} = router;
    const values = tf.getBackend() === 'webgl' ? draw.logits.values.map(withoutSubnormals) : draw.logits.values;
    const options = naiveOptions(router);
    const rows = rowsOf(values, numTokens);
    const idsOf = ({topkIds}: Values) => acceptedIds(rows, topkIds, options);
    return {
      inputs: {
        logits: asFloats({...draw.logits, values}, [...axes, numExperts]),
        ...(bias && {bias: asFloats(bias, [numExperts])}),
      },
      run: (args) => tf.moeTopk(args.logits, topk, {...routerOptions(router), scoreCorrectionBias: args.bias}),
      wanted: (given): Record<string, Wanted> => {
        const ids = idsOf(given);
        const weights = rows.flatMap((row, t) => naiveWeights(row, ids[t], options));
        return {
          topkIds: {values: ids.flat(), shape: [...axes, topk], dtype: 'int32'},
          topkWeights: {
            values: weights, errors: weightErrors(weights, options), shape: [...axes, topk], dtype: 'float32',
          },
        };
      },
      gradient: dy && {
        of: 'topkWeights',
        dy: asFloats(dy, [...axes, topk]),
        wanted: (given) => {
          const ids = idsOf(given);
          const dLogits = zeros(numTokens * numExperts);
          rows.forEach((row, t) => {
            const dWeights = {
              values: Float64Array.from(dy.values.slice(t * topk, (t + 1) * topk)),
              errors: new Float64Array(topk),
            };
            const ofToken = topkGradient(row, ids[t], dWeights, options);
            dLogits.values.set(ofToken.values, t * numExperts);
            dLogits.errors.set(ofToken.errors, t * numExperts);
          });
          return {
            logits: wantedNear(dLogits, [...axes, numExperts]),
            ...(bias && {bias: wantedBits(bias.values.map(() => 0), [numExperts])}),
          };
        },
      },
    };
  },
);

const withoutSubnormals = (value: number) => (Math.abs(value) < 2 ** -126 ? 0 : value);
