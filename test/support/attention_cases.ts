/** Layers of attention with random weights, and what they compute by definition. */
import type {CausalSelfAttention, CausalSelfAttentionArgs} from '../../src/layers/index';
import * as tf from '../../src/tf';
import rotary from '../golden/rotary_frequencies.json';
import {naiveAttention, type RotaryCase} from '../naive/attention';
import {randomizeWeights, weightsOf} from './layers';

export const rotaryCases = rotary.cases as unknown as RotaryCase[];

export type AttentionCase = {
  name: string;
  batchSize: number;
  numPositions: number;
  hiddenSize: number;
  args: CausalSelfAttentionArgs;
  /** Of each sequence, 0 for padding. */
  mask?: number[][];
  isForWebgl?: boolean;
};

/** The shapes that break things, and every option. */
export const attentionCases: AttentionCase[] = [
  {name: 'one position', batchSize: 1, numPositions: 1, hiddenSize: 4, args: {numHeads: 2}},
  {name: 'one head of two', batchSize: 2, numPositions: 3, hiddenSize: 2, args: {numHeads: 1}},
  {name: 'groups of heads', batchSize: 2, numPositions: 5, hiddenSize: 8, args: {numHeads: 4, numKeyValueHeads: 2}},
  {name: 'heads wider than H', batchSize: 1, numPositions: 4, hiddenSize: 3, args: {numHeads: 3, numKeyValueHeads: 1, headDim: 6, scale: 0.7}},
  {
    name: 'biases, norms of heads, padding on the left', batchSize: 2, numPositions: 5, hiddenSize: 8,
    args: {numHeads: 4, numKeyValueHeads: 2, useBias: true, useOutputBias: true, queryKeyNormalization: 'head', normalizationEpsilon: 0.1},
    mask: [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], isForWebgl: true,
  },
  {
    name: 'norms of all heads, padding on the right', batchSize: 3, numPositions: 4, hiddenSize: 6,
    args: {numHeads: 3, headDim: 4, queryKeyNormalization: 'all', rotaryBase: 100},
    mask: [[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]],
  },
  {
    name: 'sinks and a sliding window', batchSize: 2, numPositions: 6, hiddenSize: 8,
    args: {numHeads: 4, numKeyValueHeads: 2, slidingWindow: 2, useSinks: true, useBias: true},
    mask: [[1, 1, 1, 1, 1, 1], [1, 1, 0, 1, 1, 1]], isForWebgl: true,
  },
  {name: 'a window of one', batchSize: 1, numPositions: 3, hiddenSize: 4, args: {numHeads: 2, slidingWindow: 1}},
  ...rotaryCases.slice(0, 3).map((rotaryCase) => ({
    name: `rotary scaling ${rotaryCase.rotaryScaling.type}`, batchSize: 1, numPositions: 3, hiddenSize: 4,
    args: {numHeads: 2, numKeyValueHeads: 1, headDim: rotaryCase.headDim, rotaryBase: rotaryCase.rotaryBase, rotaryScaling: rotaryCase.rotaryScaling},
  })),
];

export function attentionLayer({args, hiddenSize}: Pick<AttentionCase, 'args' | 'hiddenSize'>): CausalSelfAttention {
  const layer = tf.layers.causalSelfAttention(args);
  layer.build([null, null, hiddenSize]);
  randomizeWeights(layer);
  return layer;
}

export const maskTensor = (mask: number[][] | undefined): tf.Tensor2D | undefined => mask && (tf.tensor2d(mask) as tf.Tensor2D);

/** By definition, with the weights of `layer`. Rows of padding are undefined. */
export async function naiveOutput(layer: CausalSelfAttention, x: tf.Tensor, {args, hiddenSize, mask}: AttentionCase) {
  const named = Object.entries(weightsOf(layer));
  const values = await Promise.all(named.map(([, weight]) => weight.data()));
  const weights = Object.fromEntries(named.map(([name], i) => [name, values[i] as Float32Array]));
  const headDim = args.headDim ?? hiddenSize / args.numHeads;
  const rotation = rotaryCases.find(({rotaryScaling}) => rotaryScaling === args.rotaryScaling);
  const sequences = (await x.array()) as number[][][];
  return sequences.map((sequence, b) =>
    naiveAttention(
      sequence,
      weights,
      {
        numHeads: args.numHeads,
        numKeyValueHeads: args.numKeyValueHeads ?? args.numHeads,
        headDim,
        rotaryBase: args.rotaryBase ?? 10000,
        frequencies: rotation?.frequencies,
        attentionFactor: rotation?.attentionFactor,
        queryKeyNormalization: args.queryKeyNormalization ?? undefined,
        normalizationEpsilon: args.normalizationEpsilon ?? 1e-6,
        slidingWindow: args.slidingWindow ?? undefined,
        scale: args.scale ?? headDim ** -0.5,
      },
      mask?.[b].map(Boolean),
    ),
  );
}

/** The rows that are wanted, one after the other, and those of `output`. Rows that are not wanted must be finite. */
export async function expectRows(
  output: tf.Tensor,
  wanted: Array<Array<number[] | undefined>>,
  what: string,
  tolerance = 2e-5,
): Promise<void> {
  const given = (await output.array()) as number[][][];
  expect(given.flat(2).every(Number.isFinite)).withContext(`${what}: finite`).toBeTrue();
  wanted.forEach((sequence, b) =>
    sequence.forEach((row, s) =>
      row?.forEach((value, h) => {
        const error = Math.abs(given[b][s][h] - value);
        if (!(error <= tolerance * Math.max(1, Math.abs(value)))) {
          fail(`${what}: [${b}, ${s}, ${h}] is ${given[b][s][h]}, wanted ${value}`);
        }
      }),
    ),
  );
}
