/** Times contenders that compute the same thing, and prints what was measured. */
import * as tf from '../src/tf';
import type {GpuTime, GpuTimer, LaunchTime} from './gpu_timer';
import type {Shape} from './shapes';

export type Contender = {
  name: string;
  /**
   * The op itself; a composition of core ops that gives the same outputs, as anyone would write it or tuned for
   * one backend; a part of the work alone; a plain copy of as many bytes; or no work at all, which is waited for.
   */
  kind: 'op' | 'plain' | 'tuned' | 'part' | 'copy' | 'wait';
  run: () => tf.Tensor[];
  /** Core ops are part of it, some of which end a compute pass. An op of this package takes no more than one. */
  hasCoreOps?: boolean;
};

/** One op: the bytes that any implementation has to read and write, and the contenders, the op itself first. */
export type Benchmark = {
  numBytes: (shape: Shape) => number;
  /** Floating-point operations of the result: a multiplication and an addition are two. */
  numFlops?: (shape: Shape) => number;
  /** The copy beside it moves at least so much, where reads past the chip's cache are what counts. */
  minCopyBytes?: number;
  /** How far an element may be from the cpu backend's, next to the largest one. Absent: not at all. */
  relativeError?: number;
  contenders: (shape: Shape, isOnGpu: boolean) => Contender[];
};

export type Spread = {minimum: number; median: number; maximum: number};

export type Timing = {
  name: string;
  kind: Contender['kind'];
  numRuns: number;
  wallMs: Spread;
  /** On a GPU: wall time of one of CALLS_IN_A_ROW calls in a row, waited for once. */
  batchMs?: Spread;
  /** The part of batchMs that the host takes to ask for the call, before anything is waited for. */
  hostMs?: Spread;
  /** GPU time of one call, each with buffers of its own, as tfjs gives them to the calls of a batch. */
  gpuMicroseconds?: Spread;
  /** The same, each call writing into the buffers of the one before, as the replay of a CUDA graph does. */
  replayMicroseconds?: Spread;
  numLaunches?: number;
  /** Of the op, the median of each launch alone, in a compute pass of its own. */
  launchMicroseconds?: Array<{name: string; median: number}>;
  gigabytesPerSecond: number;
};

const NUM_WARM_UP_RUNS = 2;
/** A GPU that was idle, while the host checked values, runs slowly at first. */
const GPU_WARM_UP_MS = 200;
/** Calls that are waited for once, or between two timestamps: back to back in one pass where the calls allow it. */
export const CALLS_IN_A_ROW = 10;
/** A replay needs no more memory for more calls, so there are enough that the pass itself, some 4 us, hardly counts. */
const REPLAY = {microseconds: 2000, minCalls: CALLS_IN_A_ROW, maxCalls: 100};
/** A contender whose call takes longer gets few runs: it is a baseline, and only orders of magnitude slower ones do. */
const SLOW_MS = 500;
const MAX_SLOW_RUNS = 5;
/** All runs of a contender together take about so long at most; one whose call takes longer runs once. */
const MAX_CONTENDER_MS = 5000;

export async function timeContender(
  {name, kind, run, hasCoreOps}: Contender,
  numBytes: number,
  numRuns: number,
  timer?: GpuTimer,
): Promise<Timing> {
  const wallTimes: number[] = [];
  let wantedRuns = numRuns;
  for (let i = -NUM_WARM_UP_RUNS; i < wantedRuns; i++) {
    const start = performance.now();
    const outputs = tf.tidy(run);
    await timer?.workDone();
    const elapsed = performance.now() - start;
    tf.dispose(outputs);
    if (i < 0 && elapsed > SLOW_MS) {
      const numThatFit = Math.max(1, Math.floor(MAX_CONTENDER_MS / elapsed));
      wantedRuns = Math.min(wantedRuns, MAX_SLOW_RUNS, numThatFit);
    }
    // On a GPU the first call compiles.
    const isTooSlowToWarmUp = elapsed > MAX_CONTENDER_MS && timer == null;
    if (i >= 0 || isTooSlowToWarmUp) {
      wallTimes.push(elapsed);
    }
    if (isTooSlowToWarmUp) {
      break;
    }
  }
  const wallMs = spreadOf(wallTimes);
  if (timer == null || kind === 'wait') {
    return {name, kind, numRuns: wantedRuns, wallMs, gigabytesPerSecond: numBytes / wallMs.median / 1e6};
  }
  const isSlow = wantedRuns < numRuns;
  const inARow = await timeCallsInARow(
    () => tf.dispose(tf.tidy(run)),
    wantedRuns,
    isSlow ? 1 : CALLS_IN_A_ROW,
    () => timer.workDone(),
  );
  const timing = {name, kind, numRuns: wantedRuns, wallMs, ...inARow};
  if (!timer.hasGpuTime) {
    return {...timing, gigabytesPerSecond: numBytes / inARow.batchMs.median / 1e6};
  }

  const samplesOf = async (calls: number, reusesBuffers: boolean) => {
    const samples: GpuTime[] = [];
    while (samples.length < wantedRuns) {
      const time = await timer.time(() => {
        for (let call = 0; call < calls; call++) {
          tf.dispose(tf.tidy(run));
        }
      }, reusesBuffers);
      if (kind === 'op' && hasCoreOps !== true && time.numPasses !== 1) {
        throw new Error(`${name} was to be timed in 1 pass, but took ${time.numPasses}.`);
      }
      samples.push(time);
    }
    const numLaunches = samples[0].numLaunches / calls;
    return {spread: spreadOf(samples.map(({ms}) => (ms * 1000) / calls)), numLaunches};
  };
  const isWarmAt = performance.now() + GPU_WARM_UP_MS;
  while (performance.now() < isWarmAt) {
    await timer.time(() => tf.dispose(tf.tidy(run)));
  }
  const {spread: gpuMicroseconds, numLaunches} = await samplesOf(isSlow ? 1 : CALLS_IN_A_ROW, false);
  const wantedCalls = Math.ceil(REPLAY.microseconds / gpuMicroseconds.median);
  const replayCalls = isSlow ? 1 : Math.min(REPLAY.maxCalls, Math.max(REPLAY.minCalls, wantedCalls));
  const replay = await samplesOf(replayCalls, true);
  return {
    ...timing,
    gpuMicroseconds,
    replayMicroseconds: replay.spread,
    numLaunches,
    gigabytesPerSecond: numBytes / replay.spread.median / 1e3,
    ...(kind === 'op' ? {launchMicroseconds: await timeLaunches(run, wantedRuns, timer)} : {}),
  };
}

/** Times `numCalls` calls that are waited for once, and gives the time of one. */
export async function timeCallsInARow(
  call: () => void | Promise<void>,
  numRuns: number,
  numCalls: number,
  workDone: () => Promise<void>,
): Promise<{batchMs: Spread; hostMs: Spread}> {
  const whole: number[] = [];
  const host: number[] = [];
  while (whole.length < numRuns) {
    const start = performance.now();
    for (let i = 0; i < numCalls; i++) {
      await call();
    }
    host.push((performance.now() - start) / numCalls);
    await workDone();
    whole.push((performance.now() - start) / numCalls);
  }
  return {batchMs: spreadOf(whole), hostMs: spreadOf(host)};
}

async function timeLaunches(
  run: () => tf.Tensor[],
  numRuns: number,
  timer: GpuTimer,
): Promise<Timing['launchMicroseconds']> {
  if (timer.timeLaunches == null) {
    return undefined;
  }
  const samples: LaunchTime[][] = [];
  while (samples.length < numRuns) {
    samples.push(await timer.timeLaunches(() => tf.dispose(tf.tidy(run))));
  }
  return samples[0].map(({name}, launch) => ({
    name,
    median: spreadOf(samples.map((sample) => sample[launch].ms * 1000)).median,
  }));
}

export function spreadOf(times: number[]): Spread {
  const sorted = times.slice().sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return {minimum: sorted[0], median, maximum: sorted[sorted.length - 1]};
}

/**
 * The values of a tensor, read at once on WebGL: tfjs's other way there, through a pixel buffer, crashed the GPU
 * process of Chromium on one driver.
 */
export async function valuesOf(tensor: tf.Tensor): Promise<tf.TypedArray> {
  return tf.getBackend() === 'webgl' ? tensor.dataSync() : tensor.data();
}

/** Throws unless both lists hold the same values, but for `relativeError` of the largest. */
export async function assertSameOutputs(
  name: string,
  actual: tf.Tensor[],
  expected: tf.Tensor[],
  relativeError = 0,
): Promise<void> {
  for (let i = 0; i < expected.length; i++) {
    const [given, wanted] = await Promise.all([valuesOf(actual[i]), valuesOf(expected[i])]);
    const at = firstDifference(given, wanted, relativeError);
    if (!tf.util.arraysEqual(actual[i].shape, expected[i].shape) || at >= 0) {
      throw new Error(`Output ${i} of ${name} is not that of the op at ${at}; nothing was timed.`);
    }
  }
}

/** Where two lists of the same length differ by more than `relativeError` of the largest value; -1: nowhere. */
export function firstDifference(given: tf.TypedArray, wanted: tf.TypedArray, relativeError: number): number {
  let largest = 0;
  wanted.forEach((value) => (largest = Math.max(largest, Math.abs(value))));
  return wanted.findIndex((value, at) => !(Math.abs(value - given[at]) <= largest * relativeError));
}

/**
 * The time that contenders are compared by: that of the GPU where it is known, with buffers of their own, otherwise
 * that of calls in a row.
 */
export const medianMs = ({wallMs, batchMs, gpuMicroseconds}: Timing): number =>
  gpuMicroseconds == null ? (batchMs ?? wallMs).median : gpuMicroseconds.median / 1000;

/** What is compared with a copy and with a CUDA graph. */
export const replayMs = (timing: Timing): number =>
  timing.replayMicroseconds == null ? medianMs(timing) : timing.replayMicroseconds.median / 1000;

/** 1234, 56.7, 0.0891: the digits that say something. */
export const threeDigits = (value: number): string => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));

/** The wall time that is compared: on a GPU that of calls in a row, because the wait can outlast a call. */
export const wallMedianMs = ({wallMs, batchMs}: Timing): number => (batchMs ?? wallMs).median;

/** A line a contender; `x op` is its median over that of the op, which comes first. */
export function formatTimings(timings: Timing[]): string {
  const onGpu = timings[0].gpuMicroseconds != null;
  const inARow = timings[0].batchMs != null;
  const spreadHeader = (what: string) => ['min', 'median', 'max'].map((which) => `${what} ${which}`);
  const gpuHeader = onGpu ? [...spreadHeader('gpu us'), 'replay us', 'launches'] : [];
  const inARowHeader = inARow ? [...spreadHeader('in a row ms'), 'host ms'] : [];
  const oneCallHeader = inARow ? ['one call ms'] : spreadHeader('wall ms');
  const header = ['', 'runs', ...gpuHeader, ...inARowHeader, ...oneCallHeader, 'GB/s', 'x op'];
  const spread = (given?: Spread) =>
    given == null ? ['', '', ''] : [given.minimum, given.median, given.maximum].map(threeDigits);
  const median = (given?: Spread) => (given == null ? '' : threeDigits(given.median));
  const lines = timings.map((timing) => [
    timing.name,
    String(timing.numRuns),
    ...(onGpu
      ? [...spread(timing.gpuMicroseconds), median(timing.replayMicroseconds), String(timing.numLaunches ?? '')]
      : []),
    ...(inARow ? [...spread(timing.batchMs), median(timing.hostMs), median(timing.wallMs)] : spread(timing.wallMs)),
    ...(timing.kind === 'wait'
      ? ['', '']
      : [threeDigits(timing.gigabytesPerSecond), threeDigits(medianMs(timing) / medianMs(timings[0]))]),
  ]);
  return formatTable([header, ...lines]);
}

/** Cells in columns, the first one to the left. */
export function formatTable(table: string[][]): string {
  const widths = table[0].map((_, column) => Math.max(...table.map((cells) => cells[column].length)));
  return table
    .map((cells) => cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join('  '))
    .join('\n');
}
