/**
 * `npm run bench -- [--op moePermute] [--T 2048] [--H 1024] [--K 8] [--E 32] [--runs 20] [--json FILE]`
 *
 * On tfjs's cpu backend in Node. Every contender that claims to do all of the op is first checked against it.
 */
import {writeFileSync} from 'node:fs';
import {parseArgs} from 'node:util';
import * as tf from '../src/tf';
import {assertSameOutputs, type Benchmark, formatTimings, type Shape, timeContender, type Timing} from './harness';
import {moePermuteBenchmark} from './moe_permute';

const benchmarks: Record<string, Benchmark> = {moePermute: moePermuteBenchmark};

const {values: flags} = parseArgs({
  options: {
    op: {type: 'string', default: 'moePermute'},
    T: {type: 'string', default: '2048'},
    H: {type: 'string', default: '1024'},
    K: {type: 'string', default: '8'},
    E: {type: 'string', default: '32'},
    runs: {type: 'string', default: '20'},
    json: {type: 'string'},
  },
});

function count(flag: 'T' | 'H' | 'K' | 'E' | 'runs'): number {
  const value = Number(flags[flag]);
  if (!Number.isInteger(value) || value < 1) {
    throw new Error(`--${flag} must be a positive integer, but is '${flags[flag]}'.`);
  }
  return value;
}

async function main(): Promise<void> {
  const op = flags.op;
  if (!Object.hasOwn(benchmarks, op)) {
    throw new Error(`--op must be one of ${Object.keys(benchmarks).join(', ')}, but is '${op}'.`);
  }
  const shape: Shape = {T: count('T'), H: count('H'), K: count('K'), E: count('E')};
  if (shape.K > shape.E) {
    throw new Error(`--K must be at most --E (${shape.E}), but is ${shape.K}.`);
  }
  await tf.setBackend('cpu');
  const backend = tf.getBackend();
  const numBytes = benchmarks[op].numBytes(shape);
  // The inputs, which outlive every run's own tidy.
  tf.engine().startScope();
  const contenders = benchmarks[op].contenders(shape, count('runs'));

  const expected = tf.tidy(contenders[0].run);
  for (const {name, kind, run} of contenders) {
    if (kind === 'plain' || kind === 'tuned') {
      tf.tidy(() => assertSameOutputs(name, run(), expected));
    }
  }
  tf.dispose(expected);
  const numCompositions = contenders.filter(({kind}) => kind === 'plain' || kind === 'tuned').length;
  const {T, H, K, E} = shape;
  const megabytes = (numBytes / 1e6).toPrecision(3);
  console.log(`${op} on ${backend}: T=${T} H=${H} K=${K} E=${E}, at least ${megabytes} MB a run`);
  console.log(`Equal outputs: ${op} and ${numCompositions} compositions of core ops`);

  const timings: Timing[] = [];
  for (const contender of contenders) {
    timings.push(await timeContender(contender, numBytes));
  }
  tf.engine().endScope();
  console.log(formatTimings(timings));

  const ratioTo = (kinds: string[]) => {
    const [fastest] = timings.filter(({kind}) => kinds.includes(kind)).sort((a, b) => a.medianMs - b.medianMs);
    return {name: fastest.name, ratio: fastest.medianMs / timings[0].medianMs};
  };
  const ratios = {plain: ratioTo(['plain']), fastest: ratioTo(['plain', 'tuned'])};
  console.log(`${op} is ${ratios.plain.ratio.toFixed(1)}x as fast as the faster plain composition (${ratios.plain.name})`);
  console.log(`and ${ratios.fastest.ratio.toFixed(1)}x as fast as the fastest found (${ratios.fastest.name}), by medians`);
  if (flags.json != null) {
    writeFileSync(flags.json, `${JSON.stringify({op, backend, shape, numBytes, timings, ratios}, null, 2)}\n`);
  }
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
