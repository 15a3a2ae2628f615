/** moeTopk and the losses by definition, in float64 and one element at a time, independent of src/. */
import type * as tf from '../../src/tf';

export type NaiveTopkOptions = {
  topk: number;
  scoring?: tf.MoeTopkScoring;
  renormalize?: boolean;
  scoreCorrectionBias?: number[];
  numExpertGroups?: number;
  topkGroups?: number;
  sparsemixerJitter?: number;
  routedScalingFactor?: number;
};

const sum = (values: number[]) => values.reduce((a, b) => a + b, 0);
const softplus = (x: number) => (x > 0 ? x + Math.log1p(Math.exp(-x)) : Math.log1p(Math.exp(x)));

export const naiveScores = {
  sigmoid: (x: number) => 1 / (1 + Math.exp(-x)),
  sqrtSoftplus: (x: number) => Math.sqrt(softplus(x)),
};
/** The scorings whose weights are made of a score of each logit. */
type OfScores = Exclude<tf.MoeTopkScoring, 'sparsemixer'>;
/** Logarithms of scores that underflow in float64 too, exact to the last bit. */
export const naiveLogScores: Record<OfScores, (x: number) => number> = {
  softmax: (x) => x,
  softmaxAfterTopk: (x) => x,
  sigmoid: (x: number) => (x < -600 ? x : Math.log(naiveScores.sigmoid(x))),
  sqrtSoftplus: (x: number) => (x < -600 ? x / 2 : Math.log(naiveScores.sqrtSoftplus(x))),
};

/** The derivatives of the logarithms of scores. */
export const logSlopes: Record<OfScores, (x: number) => number> = {
  softmax: () => 1,
  softmaxAfterTopk: () => 1,
  sigmoid: (x) => 1 / (1 + Math.exp(x)),
  sqrtSoftplus: (x) => (x < -600 ? 1 : naiveScores.sigmoid(x) / softplus(x)) / 2,
};

/** 0 if all are -Infinity. */
export function naiveSoftmax(x: number[]): number[] {
  if (x.every((value) => value === -Infinity)) {
    return x.map(() => 0);
  }
  const max = Math.max(...x);
  const exps = x.map((value) => Math.exp(value - max));
  const total = sum(exps);
  return exps.map((value) => value / total);
}

/** Larger first, NaN last, then by index. */
const inOrder = (values: number[]) => (a: number, b: number) => {
  const [x, y] = [values[a], values[b]];
  if (Number.isNaN(x) || Number.isNaN(y)) {
    return Number(Number.isNaN(x)) - Number(Number.isNaN(y)) || a - b;
  }
  return x === y ? a - b : x > y ? -1 : 1;
};
const indicesOf = (values: unknown[]) => values.map((_, i) => i);

export function comparedOf(logits: number[], {scoring = 'softmax', scoreCorrectionBias}: NaiveTopkOptions): number[] {
  if (scoreCorrectionBias == null || logits.every((logit) => logit === -Infinity)) {
    return logits;
  }
  const scores = scoring === 'sigmoid' || scoring === 'sqrtSoftplus' ? logits.map(naiveScores[scoring]) : naiveSoftmax(logits);
  return scores.map((score, e) => score + scoreCorrectionBias[e]);
}

export function naiveIds(logits: number[], options: NaiveTopkOptions): number[] {
  const {topk, numExpertGroups = 1, topkGroups = 1, scoreCorrectionBias} = options;
  const compared = comparedOf(logits, options);
  const groupSize = logits.length / numExpertGroups;
  const groupOf = (e: number) => Math.floor(e / groupSize);
  const values = Array.from({length: numExpertGroups}, (_, g) => {
    const members = indicesOf(logits).filter((e) => groupOf(e) === g).sort(inOrder(compared));
    return sum(members.slice(0, scoreCorrectionBias == null ? 1 : 2).map((e) => compared[e]));
  });
  const kept = indicesOf(values).sort(inOrder(values)).slice(0, topkGroups);
  return indicesOf(logits).filter((e) => kept.includes(groupOf(e))).sort(inOrder(compared)).slice(0, topk);
}

/**
 * The gradient of the weights times dy to the logits, the choice held fixed: by the chain rule, but 0 for -Infinity.
 */
export function naiveGradient(logits: number[], ids: number[], dy: number[], options: NaiveTopkOptions): number[] {
  const {topk, scoring = 'softmax', renormalize = topk > 1, routedScalingFactor = 1} = options;
  if (scoring === 'sparsemixer') {
    const rows = ids.map((_, k) => sparsemixerSoftmax(logits, ids, k, options.sparsemixerJitter));
    return logits.map((_, e) => routedScalingFactor * sum(rows.map((p, k) => dy[k] * p[ids[k]] * (Number(e === ids[k]) - p[e]))));
  }
  const weights = naiveWeights(logits, ids, {...options, routedScalingFactor: 1});
  const g = dy.map((value) => value * routedScalingFactor);
  const isOverAll = scoring === 'softmax' && !renormalize;
  const isSoftmax = renormalize || scoring === 'softmax' || scoring === 'softmaxAfterTopk';
  if (isSoftmax && weights.some(Number.isNaN)) {
    return logits.map((_, e) => (scoring === 'softmax' || ids.includes(e) ? NaN : 0));
  }
  const probabilities = isOverAll ? naiveSoftmax(logits) : logits.map(() => 0);
  const mean = isSoftmax ? sum(weights.map((w, k) => w * g[k])) : 0;
  return logits.map((x, e) => {
    const k = ids.indexOf(e);
    if (x === -Infinity || (k < 0 && !isOverAll)) {
      return 0;
    }
    const weight = k < 0 ? probabilities[e] : weights[k];
    // The slope of a score of Infinity is 0.
    return weight === Infinity ? 0 : weight * ((k < 0 ? 0 : g[k]) - mean) * logSlopes[scoring](x);
  });
}

/** The softmax of slot k of a sparsemixer, 0 for experts that it leaves out. */
function sparsemixerSoftmax(logits: number[], ids: number[], k: number, jitter = 0.01): number[] {
  const pick = logits[ids[k]];
  return naiveSoftmax(logits.map((x, e) => {
    const isFar = pick - x > 2 * jitter * Math.max(Math.abs(x), pick);
    return isFar || ids.slice(0, k).includes(e) ? -Infinity : x;
  }));
}

export function naiveWeights(logits: number[], ids: number[], options: NaiveTopkOptions): number[] {
  const {topk, scoring = 'softmax', renormalize = topk > 1, routedScalingFactor = 1} = options;
  const chosen = ids.map((e) => logits[e]);
  const unscaled = () => {
    if (scoring === 'sparsemixer') {
      return ids.map((id, k) => sparsemixerSoftmax(logits, ids, k, options.sparsemixerJitter)[id]);
    }
    if (scoring === 'softmaxAfterTopk') {
      return naiveSoftmax(chosen);
    }
    if (scoring === 'softmax') {
      const probabilities = naiveSoftmax(logits);
      const weights = ids.map((e) => probabilities[e]);
      return renormalize && !weights.some(Number.isNaN) ? naiveSoftmax(chosen) : weights;
    }
    const weights = chosen.map(naiveScores[scoring]);
    if (!renormalize) {
      return weights;
    }
    return sum(weights) === Infinity ? weights.map((w) => w / Infinity) : naiveSoftmax(chosen.map(naiveLogScores[scoring]));
  };
  return unscaled().map((weight) => weight * routedScalingFactor);
}
