/** How a token is chosen from logits. */
import {argMax, type Tensor2D, tidy} from '@tensorflow/tfjs-core';
import {assert, assertPositiveInteger, checkCount, describeValue} from '../arguments/checks';
import {seedOf} from '../layers/seeds';

export type SamplingOptions = {
  /** 0 (default) takes the likeliest token. Logits are divided by any other temperature, and a token is drawn. */
  temperature?: number | null;
  /** Draws from so many of the likeliest tokens. Default: from all. */
  topK?: number | null;
  /** Draws from the fewest of the likeliest tokens whose probabilities reach this sum. Default 1: from all. */
  topP?: number | null;
  /** The seed of the draws: the same seed gives the same tokens. */
  seed?: number | null;
};

export const samplingOptionNames = ['temperature', 'topK', 'topP', 'seed'] as const;

/** The token ids for logits [B, V]. */
export type Sampler = (logits: Tensor2D) => Promise<number[]>;

export function sampler({temperature, topK, topP, seed}: SamplingOptions, opName: string): Sampler {
  const $temperature = temperature ?? 0;
  assert(
    typeof $temperature === 'number' && $temperature >= 0 && Number.isFinite($temperature),
    opName,
    () => `temperature must be a number of at least 0, but is ${describeValue(temperature)}.`,
  );
  if (topK != null) {
    assertPositiveInteger(topK, 'topK', opName);
  }
  assert(
    topP == null || (typeof topP === 'number' && topP > 0 && topP <= 1),
    opName,
    () => `topP must be a number above 0, at most 1, but is ${describeValue(topP)}.`,
  );
  const random = randomNumbers(seed == null ? Math.floor(Math.random() * 2 ** 31) : checkCount(seed, 'seed', opName));
  return $temperature === 0
    ? likeliest
    : (logits) => draw(logits, {temperature: $temperature, topK: topK ?? Infinity, topP: topP ?? 1, random});
}

/** Only ids are read from the device. */
async function likeliest(logits: Tensor2D): Promise<number[]> {
  const ids = tidy(() => argMax(logits, 1));
  try {
    return Array.from(await ids.data());
  } finally {
    ids.dispose();
  }
}

type Drawing = {temperature: number; topK: number; topP: number; random: () => number};

/** On the host, because tf.multinomial gives class 0 on webgpu. */
async function draw(logits: Tensor2D, drawing: Drawing): Promise<number[]> {
  const [batchSize, vocabSize] = logits.shape;
  const values = (await logits.data()) as Float32Array;
  return Array.from({length: batchSize}, (_, b) =>
    drawOne(values.subarray(b * vocabSize, (b + 1) * vocabSize), drawing),
  );
}

function drawOne(logits: Float32Array, {temperature, topK, topP, random}: Drawing): number {
  const largest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const weights = logits.map((logit) => Math.exp((logit - largest) / temperature));
  const ids = topK < weights.length || topP < 1 ? allowedIds(weights, topK, topP) : Array.from(weights.keys());
  let left = random() * sumOf(ids, weights);
  return ids.find((id) => (left -= weights[id]) < 0) ?? ids[ids.length - 1];
}

/** The ids that topK and topP leave, the likeliest first. */
function allowedIds(weights: Float32Array, topK: number, topP: number): number[] {
  const ids = likeliestIds(weights, topK, topP).slice(0, topK);
  if (topP === 1) {
    return ids;
  }
  const enough = topP * (topK < weights.length ? sumOf(ids, weights) : sum(weights));
  let reached = 0;
  const last = ids.findIndex((id) => (reached += weights[id]) >= enough);
  return last === -1 ? ids : ids.slice(0, last + 1);
}

/**
 * The likeliest ids in order, so many that the first topK are among them, or without topK those that reach topP. Most
 * of a large vocabulary has next to no weight and need not be sorted. The largest weight is 1.
 */
function likeliestIds(weights: Float32Array, topK: number, topP: number): number[] {
  const enough = topP * sum(weights);
  for (let least = 1e-2; ; least = least > 1e-30 ? least / 1e3 : 0) {
    const ids: number[] = [];
    weights.forEach((weight, id) => {
      if (weight >= least) {
        ids.push(id);
      }
    });
    const suffices = topK < weights.length ? ids.length >= topK : sumOf(ids, weights) >= enough;
    if (suffices || least === 0) {
      return ids.sort((a, b) => weights[b] - weights[a] || a - b);
    }
  }
}

const sum = (weights: Float32Array): number => weights.reduce((all, weight) => all + weight, 0);

const sumOf = (ids: readonly number[], weights: Float32Array): number => ids.reduce((sum, id) => sum + weights[id], 0);

/** Numbers from 0 to 1, excluding 1, of a seed: the generator mulberry32. */
function randomNumbers(seed: number): () => number {
  let state = seedOf(seed, 1);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let bits = Math.imul(state ^ (state >>> 15), 1 | state);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), 61 | bits);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  };
}
