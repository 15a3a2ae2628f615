/**
 * The time that the host takes to ask for an op, as a multiple of tf.add's: what JavaScript costs where the GPU is not
 * waited for. It needs no GPU: on a device that does no work the host's part is all there is.
 */
import * as tf from '../src/tf';
import {deviceIsDone, endedByDeviceErrors} from './device';
import {formatTable, threeDigits} from './harness';
import {randomIds} from './inputs';
import type {BenchOptions} from './run';
import type {Shape} from './shapes';

/** Calls in a row, after which what they recorded is submitted. */
const CALLS = 30;
const WARM_UP_SAMPLES = 10;
/** Samples are short, so that many are taken: what else the machine does counts little in their median. */
const SAMPLES_PER_RUN = 5;

export type HostTime = {op: string; microseconds: number; timesAdd: number};
export type HostRow = {layer: string; shape: Shape; times: HostTime[]};

/** A device that does no work still has its weights in memory, and binds no more than this at once. */
const MAX_W1_BYTES = 2 ** 27;

/** Every op at the shape of a layer; tf.add, of [T, H] and [T, H], is the first. */
function calls({T, H, K, E, I}: Shape): Record<string, () => unknown> {
  const x = tf.randomUniform([T, H], -1, 1, 'float32', 1) as tf.Tensor2D;
  const logits = tf.randomUniform([T, E], -2, 2, 'float32', 2) as tf.Tensor2D;
  const w1 = tf.zeros<tf.Rank.R3>([E, 2 * I, H]);
  const w2 = tf.zeros<tf.Rank.R3>([E, H, I]);
  const ids = randomIds(T, K, E);
  const weights = tf.ones([T, K]) as tf.Tensor2D;
  const {permutedHiddenStates, expertFirstTokenOffset, invPermutedIdx} = tf.moePermute(x, ids, E);
  return {
    'tf.add': () => tf.add(x, x),
    moeTopk: () => tf.moeTopk(logits, K),
    moePermute: () => tf.moePermute(x, ids, E),
    moeGroupedMatMul: () => tf.moeGroupedMatMul(permutedHiddenStates, w1, expertFirstTokenOffset),
    moeUnpermute: () => tf.moeUnpermute(permutedHiddenStates, weights, invPermutedIdx, expertFirstTokenOffset),
    moeAlignBlockSize: () => tf.moeAlignBlockSize(ids, 16, E),
    fusedExperts: () => tf.fusedExperts(x, w1, w2, weights, ids),
    fusedMoe: () => tf.fusedMoe(x, w1, w2, logits, K),
  };
}

/** Times calls of every op in turn, so that what else the machine does falls on all of them. */
async function timeHost(shape: Shape, numRuns: number): Promise<HostTime[]> {
  const ops = Object.entries(calls(shape));
  const samples = ops.map((): number[] => []);
  for (let run = -WARM_UP_SAMPLES; run < numRuns * SAMPLES_PER_RUN; run++) {
    for (const [i, [, call]] of ops.entries()) {
      const start = performance.now();
      for (let c = 0; c < CALLS; c++) {
        tf.tidy(() => void call());
      }
      const elapsed = performance.now() - start;
      await deviceIsDone();
      if (run >= 0) {
        samples[i].push((elapsed / CALLS) * 1000);
      }
    }
  }
  const medians = samples.map((times) => times.sort((a, b) => a - b)[times.length >> 1]);
  return ops.map(([op], i) => ({op, microseconds: medians[i], timesAdd: medians[i] / medians[0]}));
}

/** Times the ops at each shape, with experts as narrow as MAX_W1_BYTES asks for, which host time does not depend on. */
export async function timeHosts(
  {shapes, numRuns, resetBackend}: Pick<BenchOptions, 'shapes' | 'numRuns' | 'resetBackend'>,
  print: (line: string) => void,
): Promise<HostRow[]> {
  const rows: HostRow[] = [];
  for (const {layer, shape: given} of shapes) {
    const {T, H, K, E} = given;
    const shape = {...given, I: Math.min(given.I, Math.floor(MAX_W1_BYTES / (8 * E * H * 16)) * 16)};
    await resetBackend();
    const times = await endedByDeviceErrors(() => timeHost(shape, numRuns));
    rows.push({layer, shape, times});
    print(`\nHost time: T=${T} H=${H} K=${K} E=${E} I=${shape.I}`);
    const lines = times.map(({op, microseconds, timesAdd}) => [op, microseconds.toFixed(1), threeDigits(timesAdd)]);
    print(formatTable([['', 'us a call', 'x tf.add'], ...lines]));
  }
  return rows;
}
