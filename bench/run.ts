/**
 * Runs the benchmarks of the ops on one backend, each contender that claims to do all of the op checked first, and on
 * a GPU the op itself against the cpu backend. scripts/bench.mjs has the flags.
 */
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import * as tf from '../src/tf';
import {endedByDeviceErrors} from './device';
import type {GpuTimer} from './gpu_timer';
import {
  assertSameOutputs,
  type Benchmark,
  firstDifference,
  formatTimings,
  medianMs,
  replayMs,
  threeDigits,
  timeContender,
  type Timing,
  valuesOf,
  wallMedianMs,
} from './harness';
import {fusedMoeBenchmark} from './fused_moe';
import {fusedMoeOfFormat} from './fused_moe_quantized';
import {fusedMoeChainOf} from './fused_moe_chain';
import {moeAlignBlockSizeBenchmark} from './moe_align_block_size';
import {moeGroupedMatMulW1Benchmark, moeGroupedMatMulW2Benchmark} from './moe_grouped_mat_mul';
import {moeTopkBenchmark} from './moe_topk';
import {mixtureOfExpertsStepBenchmark} from './mixture_of_experts_step';
import {moePermuteBenchmark, moePermuteIndicesBenchmark} from './moe_permute';
import {moeUnpermuteBenchmark} from './moe_unpermute';
import {isVllmDevice, type Shape, VLLM_DEVICE, vllmMicroseconds} from './shapes';
import {WebGLTimer} from './webgl_timer';
import {copyKernel, WebGPUTimer} from './webgpu_timer';

const benchmarks: Record<string, Benchmark> = {
  moePermute: moePermuteBenchmark,
  moePermuteIndices: moePermuteIndicesBenchmark,
  moeUnpermute: moeUnpermuteBenchmark,
  moeAlignBlockSize: moeAlignBlockSizeBenchmark,
  moeTopk: moeTopkBenchmark,
  moeGroupedMatMul: moeGroupedMatMulW1Benchmark,
  moeGroupedMatMulW2: moeGroupedMatMulW2Benchmark,
  fusedMoe: fusedMoeBenchmark,
  fusedMoeInt4: fusedMoeOfFormat('int4'),
  fusedMoeInt8: fusedMoeOfFormat('int8'),
  fusedMoeFp4: fusedMoeOfFormat('fp4'),
  fusedMoeFloat8: fusedMoeOfFormat('float8'),
  fusedMoeFloat16: fusedMoeOfFormat('float16'),
  fusedMoeBfloat16: fusedMoeOfFormat('bfloat16'),
  fusedMoeChain: fusedMoeChainOf('float32'),
  fusedMoeChainInt4: fusedMoeChainOf('int4'),
  mixtureOfExpertsStep: mixtureOfExpertsStepBenchmark,
};
export const opNames = Object.keys(benchmarks);

export type BenchOptions = {
  ops: string[];
  /** Named layers with their T. */
  shapes: Array<{layer: string; shape: Shape}>;
  numRuns: number;
  /** The name of the GPU. Times that were measured elsewhere are compared only if it is that of the same card. */
  device: string;
  /** Makes the backend anew, so that buffers that one benchmark leaves behind do not serve the next. */
  resetBackend: () => Promise<void>;
  /** Only the op and the copy, for large tables. */
  withoutBaselines: boolean;
  /** No timer queries on WebGL. */
  wallTimeOnly?: boolean;
};

/** Every op of `ops` against the cpu backend, on the backend that is set; nothing is timed. */
export async function checkOps(
  {ops, shapes, resetBackend}: Pick<BenchOptions, 'ops' | 'shapes' | 'resetBackend'>,
  print: (line: string) => void,
): Promise<void> {
  const backend = tf.getBackend();
  for (const {shape} of shapes) {
    for (const op of ops) {
      await resetBackend();
      await endedByDeviceErrors(() => checkAgainstCpu(benchmarks[op], shape, backend));
      print(`${op} on ${backend}: equal to the cpu backend at ${JSON.stringify(shape)}`);
    }
  }
}

export type BenchRow = {
  op: string;
  backend: string;
  layer: string;
  shape: Shape;
  numFlops?: number;
  timings: Timing[];
  ratios: Record<string, {name: string; ratio: number}>;
};

/** Half of them are one buffer, which every GPU binds that a layer of these sizes fits. */
const MAX_COPY_BYTES = 2 ** 31;
/** Tiny shapes have a small copy beside them, too. */
const MAX_COPY_FACTOR = 32;

/** Larger hidden sizes than this are checked against the cpu backend at this size: the routing is the same. */
const CHECKED_HIDDEN_SIZE = 8;

export async function runBenchmarks(options: BenchOptions, print: (line: string) => void): Promise<BenchRow[]> {
  const rows: BenchRow[] = [];
  for (const {layer, shape} of options.shapes) {
    for (const op of options.ops) {
      await options.resetBackend();
      const timer = makeGpuTimer(!options.wallTimeOnly);
      rows.push(await endedByDeviceErrors(() => runBenchmark(op, layer, shape, options, timer, print)));
    }
  }
  return rows;
}

/** The timer of the current backend, if it runs on a GPU; on WebGL of wall times alone, if so wanted. */
function makeGpuTimer(wantsGpuTime: boolean): GpuTimer | undefined {
  switch (tf.getBackend()) {
    case 'webgpu':
      return new WebGPUTimer(tf.backend() as WebGPUBackend);
    case 'webgl':
      return new WebGLTimer(tf.backend() as MathBackendWebGL, wantsGpuTime);
    default:
      return undefined;
  }
}

async function runBenchmark(
  op: string,
  layer: string,
  shape: Shape,
  {numRuns, withoutBaselines, device}: BenchOptions,
  timer: GpuTimer | undefined,
  print: (line: string) => void,
): Promise<BenchRow> {
  const backend = tf.getBackend();
  const {T, H, K, E} = shape;
  const benchmark = benchmarks[op];
  const numBytes = benchmark.numBytes(shape);
  const wantedBytes = Math.max(numBytes, Math.min(benchmark.minCopyBytes ?? 0, MAX_COPY_FACTOR * numBytes));
  const numCopyBytes = Math.min(wantedBytes, MAX_COPY_BYTES);
  const numFlops = benchmark.numFlops?.(shape);
  print(`\n${op} on ${backend}: T=${T} H=${H} K=${K} E=${E}, at least ${(numBytes / 1e6).toPrecision(3)} MB a call`);
  if (timer != null) {
    await checkAgainstCpu(benchmark, {...shape, H: Math.min(H, CHECKED_HIDDEN_SIZE)}, backend);
    print(`Equal to the cpu backend at H=${Math.min(H, CHECKED_HIDDEN_SIZE)}`);
  }

  // The inputs, which outlive every run's own tidy.
  tf.engine().startScope();
  const contenders = benchmark.contenders(shape, timer != null).filter(({kind}) => !withoutBaselines || kind === 'op');
  const expected = tf.tidy(contenders[0].run);
  for (const {name, kind, run} of contenders) {
    if (kind === 'plain' || kind === 'tuned') {
      const outputs = tf.tidy(run);
      await assertSameOutputs(name, outputs, expected, benchmark.relativeError);
      tf.dispose(outputs);
      print(`Equal outputs: ${op} and ${name}`);
    }
  }
  tf.dispose(expected);
  if (backend === 'webgpu') {
    const halfOfBytes = tf.fill([Math.max(4, Math.floor(numCopyBytes / 32) * 4)], 1);
    const name = numCopyBytes === numBytes ? 'copy of as many bytes' : `copy of ${numCopyBytes / 2 ** 20} MiB`;
    contenders.push({name, kind: 'copy', run: () => [copyKernel(halfOfBytes)]});
  }
  if (timer != null) {
    contenders.push({name: 'the wait for no work', kind: 'wait', run: () => []});
  }
  const timings: Timing[] = [];
  for (const contender of contenders) {
    timings.push(await timeContender(contender, contender.kind === 'copy' ? numCopyBytes : numBytes, numRuns, timer));
  }
  tf.engine().endScope();
  print(formatTimings(timings));
  const {launchMicroseconds} = timings[0];
  if (launchMicroseconds != null) {
    print(`Launches apart: ${formatLaunches(launchMicroseconds)}`);
  }

  const ratios: BenchRow['ratios'] = {};
  const addRatio = (key: string, kinds: string[], what: string, unit: (timing: Timing) => number) => {
    const [fastest] = timings.filter(({kind}) => kinds.includes(kind)).sort((a, b) => unit(a) - unit(b));
    if (fastest != null) {
      ratios[key] = {name: fastest.name, ratio: unit(fastest) / unit(timings[0])};
      print(`${threeDigits(ratios[key].ratio)}x as fast as ${what} (${fastest.name})`);
    }
  };
  addRatio('plain', ['plain'], 'the faster plain composition', medianMs);
  if (timings.some(({kind}) => kind === 'tuned')) {
    addRatio('fastest', ['plain', 'tuned'], 'the fastest composition found', medianMs);
  }
  if (timer != null) {
    addRatio('wall', ['plain', 'tuned'], 'the fastest composition found, in wall time', wallMedianMs);
  }
  // The copy may move more bytes, so it is the bandwidths that are compared.
  addRatio('copy', ['copy'], 'a copy of as many bytes', ({gigabytesPerSecond}) => 1 / gigabytesPerSecond);
  if (numFlops != null) {
    addRatio('part', ['part'], 'tf.matMul', replayMs);
    const rates = timings
      .filter(({kind}) => kind !== 'copy' && kind !== 'wait')
      .map((timing) => `${formatRate(numFlops / replayMs(timing) / 1e6)} (${timing.name})`);
    print(`${(numFlops / 1e9).toPrecision(3)} GFLOP of result: ${rates.join(', ')}`);
  }
  const vllm = vllmMicroseconds[layer]?.[op]?.[T];
  if (backend === 'webgpu' && vllm != null && isVllmDevice(device)) {
    const name = `vLLM's CUDA op on an ${VLLM_DEVICE}, ${vllm} us`;
    ratios.vllm = {name, ratio: vllm / 1000 / replayMs(timings[0])};
    print(`${threeDigits(ratios.vllm.ratio)}x as fast as ${name}`);
  }
  return {op, backend, layer, shape, numFlops, timings, ratios};
}

/** Launches of one kernel are summed. */
function formatLaunches(launches: NonNullable<Timing['launchMicroseconds']>): string {
  const names = [...new Set(launches.map(({name}) => name))];
  return names
    .map((name) => {
      const times = launches.filter((launch) => launch.name === name).map(({median}) => median);
      const sum = times.reduce((total, time) => total + time, 0).toFixed(2);
      return times.length === 1 ? `${name} ${sum} us` : `${name} ${sum} us (${times.length} launches)`;
    })
    .join(', ');
}

const formatRate = (gigaflops: number): string =>
  gigaflops < 1000 ? `${threeDigits(gigaflops)} GFLOP/s` : `${threeDigits(gigaflops / 1000)} TFLOP/s`;

async function checkAgainstCpu(benchmark: Benchmark, shape: Shape, backend: string): Promise<void> {
  const outputsOn = async (name: string) => {
    await tf.setBackend(name);
    const outputs = tf.tidy(() => benchmark.contenders(shape, true)[0].run());
    const values = await Promise.all(outputs.map(valuesOf));
    tf.dispose(outputs);
    return values;
  };
  const expected = await outputsOn('cpu');
  const given = await outputsOn(backend);
  expected.forEach((values, i) => {
    const at = firstDifference(given[i], values, benchmark.relativeError ?? 0);
    if (values.length !== given[i].length || at >= 0) {
      throw new Error(`Output ${i} on ${backend} differs from the cpu backend at ${at}; nothing was timed.`);
    }
  });
}
