/**
 * A peer in the same page: onnxruntime-web's QMoE beside fusedMoe of the same int4 experts and of float32 ones, at the
 * same shapes, timed alike. On some devices QMoE rounds activations to int8 as well.
 */
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import * as tf from '../src/tf';
import {endedByDeviceErrors} from './device';
import {numbers} from './fused_moe';
import {CALLS_IN_A_ROW, firstDifference, formatTable, type Spread, threeDigits, timeCallsInARow} from './harness';
import {NUM_ROUTINGS, Qmoe} from './qmoe';
import type {BenchOptions} from './run';
import type {Shape} from './shapes';
import {WebGPUTimer} from './webgpu_timer';

/** A small layer, for which both must give the same. QMoE has a path for one token and another for more. */
const checkedSizes = {H: 128, I: 128, E: 8, K: 2};
/** Next to the largest result: what int8 activations may change, and float32 ones. */
const INT8_ERROR = 0.03;
const FLOAT32_ERROR = 1e-4;
/** QMoE rounds activations, if at all, only in products whose inner size is a multiple. */
const INT8_MULTIPLE = 128;
const CHECKED_CALLS = 5;

export type PeerRow = {
  layer: string;
  shape: Shape;
  int4: CallTimes;
  float32: CallTimes;
  qmoe: CallTimes;
  /** Of the product by w1, and of that by w2. */
  activations: Record<'w1' | 'w2', 'int8' | 'float32'>;
};

type CallTimes = {
  /** Wall time of one of CALLS_IN_A_ROW calls in a row, waited for once. */
  batchMs: Spread;
  /** The part of it before the wait. */
  hostMs: Spread;
  /** No work that is waited for. */
  waitMs: Spread;
};

const WARM_UP_RUNS = 2;

async function timeCalls(
  call: () => void | Promise<void>,
  numRuns: number,
  workDone: () => Promise<void>,
): Promise<CallTimes> {
  await timeCallsInARow(call, WARM_UP_RUNS, CALLS_IN_A_ROW, workDone);
  const times = await timeCallsInARow(call, numRuns, CALLS_IN_A_ROW, workDone);
  const {batchMs: waitMs} = await timeCallsInARow(() => {}, numRuns, 1, workDone);
  return {...times, waitMs};
}

/** Times fusedMoe of int4 experts as QMoE has them, or of float32 ones. */
async function timeFusedMoe({T, H, K, E, I}: Shape, format: 'int4' | 'float32', numRuns: number): Promise<CallTimes> {
  const timer = new WebGPUTimer(tf.backend() as WebGPUBackend);
  const x = numbers([T, H], 1) as tf.Tensor2D;
  const logits = Array.from({length: NUM_ROUTINGS}, (_, routing) => numbersOfRouting([T, E], routing));
  const weights = (shape: [number, number, number], scale: number): tf.MoeExpertWeights =>
    format === 'int4'
      ? tf.tidy(() => tf.moeQuantizeWeights(numbers(shape, scale), {format, groupSize: 32}))
      : numbers(shape, scale);
  const w1 = weights([E, 2 * I, H], H ** -0.5);
  const w2 = weights([E, H, I], I ** -0.5);
  let numCalls = 0;
  const call = () => {
    const output = tf.fusedMoe(x, w1, w2, logits[numCalls++ % NUM_ROUTINGS], K, {activation: 'swigluOai'});
    output.dispose();
  };
  return timeCalls(call, numRuns, () => timer.workDone());
}

const numbersOfRouting = (shape: [number, number], routing: number) =>
  tf.randomUniform(shape, -1, 1, 'float32', 5 + routing) as tf.Tensor2D;

/** Runs `use` with QMoE of a shape, which an error of its device ends. */
async function withQmoe<Result>(shape: Shape, wasm: string, use: (qmoe: Qmoe) => Promise<Result>): Promise<Result> {
  const qmoe = await Qmoe.load(shape, wasm);
  const result = await endedByDeviceErrors(() => use(qmoe), qmoe.device);
  await qmoe.release();
  return result;
}

async function timeQmoe(qmoe: Qmoe, numRuns: number): Promise<CallTimes> {
  let numCalls = 0;
  const call = async () => (await qmoe.run(numCalls++ % NUM_ROUTINGS)).dispose();
  const {queue} = qmoe.device;
  return timeCalls(call, numRuns, async () => {
    queue.submit([]);
    await queue.onSubmittedWorkDone();
  });
}

/**
 * Whether QMoE rounds activations to int8 on this device, which its results tell; undefined if no call gave what
 * fusedMoe gives with the same weights. Calls of more than one token lose tokens on some devices, so that calls differ.
 */
async function checkResults(qmoe: Qmoe, T: number, print: (line: string) => void): Promise<boolean | undefined> {
  const wanted = qmoe.byFusedMoe();
  const ours = await wanted.data();
  wanted.dispose();
  const results: Float32Array[] = [];
  while (results.length < CHECKED_CALLS) {
    const output = await qmoe.run(0);
    results.push((await output.getData()) as Float32Array);
    output.dispose();
  }
  const same = results.filter((result) => firstDifference(result, ours, INT8_ERROR) < 0);
  print(`QMoE at T=${T}: ${same.length} of ${CHECKED_CALLS} calls gave the result of fusedMoe`);
  return same.length === 0 ? undefined : firstDifference(same[0], ours, FLOAT32_ERROR) >= 0;
}

/** Times both at each shape; `wasm` is the address of onnxruntime's WebAssembly. */
export async function timeBesidePeer(
  {shapes, numRuns, resetBackend}: Pick<BenchOptions, 'shapes' | 'numRuns' | 'resetBackend'>,
  wasm: string,
  print: (line: string) => void,
): Promise<PeerRow[]> {
  await resetBackend();
  const check = (T: number) =>
    endedByDeviceErrors(() => withQmoe({T, ...checkedSizes}, wasm, (qmoe) => checkResults(qmoe, T, print)));
  const roundsOneToken = await check(1);
  if (roundsOneToken == null) {
    throw new Error('QMoE does not compute what fusedMoe does; nothing was timed.');
  }
  const roundsTokens = (await check(5)) ?? roundsOneToken;
  print(
    `Its activations are ${roundsOneToken ? 'int8' : 'float32'} at T=1, ${roundsTokens ? 'int8' : 'float32'} above.`,
  );
  const rows: PeerRow[] = [];
  for (const {layer, shape} of shapes) {
    await resetBackend();
    const int4 = await endedByDeviceErrors(() => timeFusedMoe(shape, 'int4', numRuns));
    await resetBackend();
    const float32 = await endedByDeviceErrors(() => timeFusedMoe(shape, 'float32', numRuns));
    const qmoe = await withQmoe(shape, wasm, (loaded) => timeQmoe(loaded, numRuns));
    const rounds = shape.T === 1 ? roundsOneToken : roundsTokens;
    const typeOf = (numIn: number) => (rounds && numIn % INT8_MULTIPLE === 0 ? 'int8' : 'float32');
    rows.push({layer, shape, int4, float32, qmoe, activations: {w1: typeOf(shape.H), w2: typeOf(shape.I)}});
  }
  return rows;
}

const header = [
  'layer',
  'T',
  'int4 ms',
  'host ms',
  'float32 ms',
  'host ms',
  'QMoE ms',
  'host ms',
  'QMoE / int4',
  'QMoE / float32',
  'wait ms',
  'activations of QMoE',
];

/** A line a shape; the medians of both in milliseconds. */
export function formatPeerRows(rows: PeerRow[]): string {
  const lines = rows.map(({layer, shape, int4, float32, qmoe, activations}) => [
    layer,
    String(shape.T),
    ...[int4, float32, qmoe].flatMap(({batchMs, hostMs}) => [batchMs, hostMs].map(({median}) => threeDigits(median))),
    threeDigits(qmoe.batchMs.median / int4.batchMs.median),
    threeDigits(qmoe.batchMs.median / float32.batchMs.median),
    threeDigits(qmoe.waitMs.median),
    `w1 ${activations.w1}, w2 ${activations.w2}`,
  ]);
  return formatTable([header, ...lines]);
}
