/** Causal self-attention by definition, in float64 and one element at a time, independent of src/. */
import type {RotaryScaling} from '../../src/layers/index';

export type NaiveAttentionOptions = {
  numHeads: number;
  numKeyValueHeads: number;
  headDim: number;
  rotaryBase: number;
  /** Of transformers' functions, as they depend on the scaling. Default: those without a scaling. */
  frequencies?: number[];
  attentionFactor?: number;
  queryKeyNormalization?: 'head' | 'all';
  normalizationEpsilon: number;
  slidingWindow?: number;
  scale: number;
};
export type RotaryCase = {
  headDim: number;
  rotaryBase: number;
  rotaryScaling: RotaryScaling;
  frequencies: number[];
  attentionFactor: number;
};
type Weights = Record<string, ArrayLike<number>>;

const sum = (values: number[]) => values.reduce((a, b) => a + b, 0);
const range = (length: number) => Array.from({length}, (_, i) => i);

export function naiveRmsNorm(row: number[], gamma: ArrayLike<number>, epsilon: number): number[] {
  const root = Math.sqrt(sum(row.map((value) => value * value)) / row.length + epsilon);
  return row.map((value, i) => (value / root) * gamma[i]);
}

function dense(row: number[], name: string, weights: Weights): number[] {
  const kernel = weights[`${name}_kernel`];
  const numOut = kernel.length / row.length;
  return range(numOut).map((o) => sum(row.map((value, i) => value * kernel[i * numOut + o])) + (weights[`${name}_bias`]?.[o] ?? 0));
}

/** The heads of one position: normalized, and turned by the angle of the position. */
function headsOf(row: number[], name: 'query' | 'key', position: number, weights: Weights, options: NaiveAttentionOptions): number[][] {
  const {headDim, rotaryBase, attentionFactor = 1, queryKeyNormalization, normalizationEpsilon} = options;
  const gamma = weights[`${name}_norm`];
  let all = dense(row, name, weights);
  if (queryKeyNormalization === 'all') {
    all = naiveRmsNorm(all, gamma, normalizationEpsilon);
  }
  return range(all.length / headDim).map((n) => {
    const plain = all.slice(n * headDim, (n + 1) * headDim);
    const head = queryKeyNormalization === 'head' ? naiveRmsNorm(plain, gamma, normalizationEpsilon) : plain;
    const half = headDim / 2;
    return range(headDim).map((d) => {
      const pair = d % half;
      const angle = position * (options.frequencies?.[pair] ?? rotaryBase ** ((-2 * pair) / headDim));
      const [a, b] = [head[pair], head[pair + half]];
      const turned = d < half ? a * Math.cos(angle) - b * Math.sin(angle) : b * Math.cos(angle) + a * Math.sin(angle);
      return turned * attentionFactor;
    });
  });
}

/** One sequence [S, H]. `isToken` is false for padding, whose rows of the result are undefined. */
export function naiveAttention(
  x: number[][],
  weights: Weights,
  options: NaiveAttentionOptions,
  isToken: boolean[] = x.map(() => true),
): Array<number[] | undefined> {
  const {numHeads, numKeyValueHeads, headDim, slidingWindow = Infinity, scale} = options;
  const queries = x.map((row, s) => headsOf(row, 'query', s, weights, options));
  const keys = x.map((row, s) => headsOf(row, 'key', s, weights, options));
  const values = x.map((row) => dense(row, 'value', weights));
  return x.map((_, i) => {
    if (!isToken[i]) {
      return undefined;
    }
    const seen = range(x.length).filter((j) => j <= i && j > i - slidingWindow && isToken[j]);
    const heads = range(numHeads).map((n) => {
      const m = Math.floor((n * numKeyValueHeads) / numHeads);
      const scores = seen.map((j) => scale * sum(queries[i][n].map((q, d) => q * keys[j][m][d])));
      const sink: number | undefined = weights.sinks?.[n];
      const most = Math.max(...scores, sink ?? -Infinity);
      const powers = scores.map((score) => Math.exp(score - most));
      const total = sum(powers) + (sink == null ? 0 : Math.exp(sink - most));
      return range(headDim).map((d) => sum(seen.map((j, k) => (powers[k] / total) * values[j][m * headDim + d])));
    });
    return dense(heads.flat(), 'output', weights);
  });
}
