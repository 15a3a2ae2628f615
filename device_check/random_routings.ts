/**
 * Random routings beside the naive loops. Many small routings lie side by side in one launch, each with tokens and
 * experts of its own.
 */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../src/tf';
import {naiveAlign, naivePermute, naiveUnpermute} from '../test/naive/routing';
import {naiveIds, naiveWeights} from '../test/naive/topk';
import {expectFloats, expectInts, expectWithin} from '../test/support/expect';
import {lcg} from '../test/support/routings';
import {countingRows, countingRowsOf, idsTensor} from '../test/support/tensors';

const WANTED = 100_000;
const ROUTINGS_PER_LAUNCH = 1_000;
const MAX_TOKENS = 9;
const MAX_EXPERTS = 8;
const HIDDEN_SIZE = 3;
/** The most launches whose results are awaited together. Each round has twice as many as the one before. */
const MOST_AT_ONCE = 16;

export const randomRoutings = {
  /** Launch i draws from `seed` + i. */
  seed: 1,
  wanted: WANTED,
  /** After this moment no launch begins, in ms of performance.now(): a software GPU does not get through them all. */
  end: Infinity,
  /** What there is time for in any case. */
  leastSeconds: 2,
  onProgress: (_done: number): void => {},
};

type Launch = {ids: number[][]; topk: number; numExperts: number; next: () => number};

/** Ids from -1 to E of each routing; both ends name no expert. */
function drawLaunch(seed: number): Launch {
  // Seeds in a row give unlike draws.
  const next = lcg(Math.imul(seed, 0x9e3779b1));
  const below = (count: number) => Math.floor(next() * count);
  const topk = 1 + below(5);
  const ids: number[][] = [];
  let numExperts = 0;
  for (let r = 0; r < ROUTINGS_PER_LAUNCH; r++) {
    const numOwn = 1 + below(MAX_EXPERTS);
    const numTokens = below(MAX_TOKENS + 1);
    // Some routings use few of their experts.
    const numUsed = 1 + below(numOwn);
    for (let t = 0; t < numTokens; t++) {
      ids.push(
        Array.from({length: topk}, () => {
          const id = below(numUsed + 2) - 1;
          return id < 0 || id >= numOwn ? -1 : numExperts + id;
        }),
      );
    }
    numExperts += numOwn;
  }
  return {ids, topk, numExperts, next};
}

async function checkMovement({ids, topk, numExperts, next}: Launch): Promise<void> {
  const alignBlockSize = next() < 0.5 ? undefined : 1 + Math.floor(next() * 4);
  const x = countingRows(ids.length, HIDDEN_SIZE);
  const topkIds = idsTensor(ids, topk);
  const permuted = tf.moePermute(x, topkIds, numExperts, {alignBlockSize});
  // Quarters of small integers: their sums are exact.
  const weights = ids.map((slots) => slots.map(() => Math.floor(next() * 9) / 4 - 1));
  const merged = tf.moeUnpermute(
    permuted.permutedHiddenStates,
    tf.tensor2d(weights.flat(), [ids.length, topk]),
    permuted.invPermutedIdx,
    permuted.expertFirstTokenOffset,
  );
  const blockSize = 1 + Math.floor(next() * 7);
  const aligned = tf.moeAlignBlockSize(topkIds, blockSize, numExperts);

  const naive = naivePermute({ids, topk, numExperts, alignBlockSize});
  const rows = naive.rowToken.map((token) =>
    Array.from({length: HIDDEN_SIZE}, (_, h) => (token < 0 ? 0 : token * HIDDEN_SIZE + h)),
  );
  const inverse = ids.map((_, t) => naive.invPermutedIdx.slice(t * topk, (t + 1) * topk));
  const {sums} = naiveUnpermute(rows, weights, inverse, HIDDEN_SIZE, naive.expertFirstTokenOffset[numExperts]);
  const naiveBlocks = naiveAlign({ids, topk, blockSize, numExperts});
  await Promise.all([
    expectFloats(permuted.permutedHiddenStates, countingRowsOf(naive.rowToken, HIDDEN_SIZE), 'permutedHiddenStates'),
    expectInts(permuted.expertFirstTokenOffset, naive.expertFirstTokenOffset, 'expertFirstTokenOffset'),
    expectInts(permuted.invPermutedIdx, naive.invPermutedIdx, 'invPermutedIdx'),
    expectInts(permuted.permutedIdx, naive.permutedIdx, 'permutedIdx'),
    expectInts(permuted.mIndices, naive.mIndices, 'mIndices'),
    expectFloats(merged, sums, 'moeUnpermute'),
    expectInts(aligned.sortedTokenIds, naiveBlocks.sortedTokenIds, 'sortedTokenIds'),
    expectInts(aligned.expertIds, naiveBlocks.expertIds, 'expertIds'),
    expectInts(aligned.numTokensPostPad, naiveBlocks.numTokensPostPad, 'numTokensPostPad'),
  ]);
}

/** A row of logits for each routing, some of them equal. */
async function checkChoice({topk, next}: Launch): Promise<void> {
  const logits = Array.from({length: ROUTINGS_PER_LAUNCH}, () =>
    Array.from({length: MAX_EXPERTS}, () => Math.floor(next() * 64) / 8 - 4),
  );
  const options = {scoring: next() < 0.5 ? ('softmax' as const) : ('sigmoid' as const), renormalize: next() < 0.5};
  const {topkIds, topkWeights} = tf.moeTopk(tf.tensor2d(logits), topk, options);
  const wantedIds = logits.map((row) => naiveIds(row, {topk, ...options}));
  const wantedWeights = logits.map((row, t) => naiveWeights(row, wantedIds[t], {topk, ...options}));
  await Promise.all([
    expectInts(topkIds, wantedIds, 'topkIds'),
    expectWithin(topkWeights, wantedWeights, (_, wanted) => 1e-5 * wanted + 1e-6, 'topkWeights'),
  ]);
}

/** Throws with the seed of the launch. The launch's tensors are gone once it is through. */
async function checkLaunch(seed: number): Promise<void> {
  const launch = drawLaunch(seed);
  try {
    await Promise.all([checkMovement(launch), checkChoice(launch)]);
  } catch (error) {
    throw new Error(`Launch of seed ${seed}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

export const describeRandomRoutings = (): void =>
  describeWithFlags('random routings', ALL_ENVS, () => {
    it('are what the naive loops make of them', async () => {
      const {seed, wanted, leastSeconds} = randomRoutings;
      const end = Math.max(randomRoutings.end, performance.now() + 1000 * leastSeconds);
      let done = 0;
      let atOnce = 1;
      while (done < wanted && (done === 0 || performance.now() < end)) {
        const first = seed + done / ROUTINGS_PER_LAUNCH;
        tf.engine().startScope();
        try {
          await Promise.all(Array.from({length: atOnce}, (_, i) => checkLaunch(first + i)));
        } finally {
          tf.engine().endScope();
        }
        done += atOnce * ROUTINGS_PER_LAUNCH;
        randomRoutings.onProgress(Math.min(wanted, done));
        atOnce = Math.min(2 * atOnce, MOST_AT_ONCE);
      }
      expect(done).toBeGreaterThan(0);
    });
  });
