/** The benchmarks in Node.js, for `npm run bench`. */
import {writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {parseArgs} from 'node:util';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {registerWebGPUBackend} from '../src/webgpu';
import * as tf from '../src/tf';
import {decodingModels, timeDecoding} from './decoding';
import {nameOf} from './device';
import {timeHosts} from './host';
import {checkOps, opNames, runBenchmarks} from './run';
import {layers, type Shape} from './shapes';

/** Where no layer and no flag says otherwise: what a CPU is through with in minutes, and what keeps a GPU busy. */
const defaultSizes = {cpu: {T: 256, H: 256, K: 8, E: 32}, webgpu: {T: 2048, H: 1024, K: 8, E: 32}};

const usage = `npm run bench -- [--backend cpu|webgpu] [--op ${opNames.join(',')}]
    [--layer ${Object.keys(layers).join(',')}] [--T 1,16,…] [--H n --K n --E n --I n]
    [--runs 20] [--no-baselines] [--json FILE] [--check] [--host]
npm run bench -- --decoding ${Object.keys(decodingModels).join(',')} [--backend cpu|webgpu] [--tokens 64] [--runs 5] [--json FILE]

Times ops beside compositions of core ops that give the same; without --op all of them. Without --layer at T 256, H 256 on
cpu and T 2048, H 1024 on webgpu, with K 8, E 32, I half of H. A contender whose call takes long gets fewer runs.
--check compares the ops with the cpu backend at these very shapes, and times nothing.
--host times what JavaScript takes to ask for each op, as a multiple of tf.add, on a device of Dawn that does no work: it
needs no GPU. Its shape is granite at T 1, unless --layer and --T say otherwise.
--decoding times language models of these sizes, with random weights, int4 experts and a prompt of 128 tokens; with --host
on a device that does no work.
webgpu in Node.js runs on Dawn, by the npm package webgpu or the addon that DAWN_NODE names.`;

const {values: flags} = parseCommandLine();

function parseCommandLine() {
  const options = {
    backend: {type: 'string', default: 'cpu'},
    op: {type: 'string', default: ''},
    layer: {type: 'string', default: ''},
    T: {type: 'string', default: ''},
    H: {type: 'string'},
    K: {type: 'string'},
    E: {type: 'string'},
    I: {type: 'string'},
    runs: {type: 'string', default: '20'},
    'no-baselines': {type: 'boolean', default: false},
    json: {type: 'string'},
    check: {type: 'boolean', default: false},
    host: {type: 'boolean', default: false},
    decoding: {type: 'string', default: ''},
    tokens: {type: 'string', default: '64'},
    help: {type: 'boolean', short: 'h', default: false},
  } as const;
  try {
    return parseArgs({options});
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${usage}`);
    process.exit(1);
  }
}

const list = (text: string) => text.split(',').filter((word) => word !== '');

function positive(flag: string, text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) {
    throw new Error(`--${flag} must be a positive integer, but is '${text}'.`);
  }
  return value;
}

function shapesOfFlags(): Array<{layer: string; shape: Shape}> {
  const defaults = flags.host ? {T: 1, ...layers.granite} : defaultSizes[flags.backend as keyof typeof defaultSizes];
  const numTokens = (flags.T === '' ? [String(defaults.T)] : list(flags.T)).map((text) => positive('T', text));
  const names = list(flags.layer);
  const unknown = names.find((name) => !(name in layers));
  if (unknown != null) {
    throw new Error(`--layer must be of ${Object.keys(layers).join(', ')}, but is '${unknown}'.`);
  }
  const H = positive('H', flags.H ?? String(defaults.H));
  const dims = {
    H,
    K: positive('K', flags.K ?? String(defaults.K)),
    E: positive('E', flags.E ?? String(defaults.E)),
    // Half the hidden size, as the layers that have many experts have it.
    I: positive('I', flags.I ?? String(Math.ceil(H / 2))),
  };
  const chosen = names.length > 0 ? names.map((name) => ({name, ...layers[name]})) : [{name: 'flags', ...dims}];
  return chosen.flatMap(({name, ...sizes}) => numTokens.map((T) => ({layer: name, shape: {T, ...sizes}})));
}

async function setUpWebGPU(): Promise<{device: string; reset: () => Promise<void>}> {
  const require = createRequire(__filename);
  const {create, globals} = require(process.env.DAWN_NODE ?? 'webgpu') as {
    create: (options: string[]) => GPU;
    globals: Record<string, unknown>;
  };
  Object.assign(globalThis, globals);
  const exactTimestamps = ['enable-dawn-features=allow_unsafe_apis', 'disable-dawn-features=timestamp_quantization'];
  // `reset` keeps the object: where it is collected, it takes the process down.
  const gpu = create(flags.host ? ['backend=null'] : exactTimestamps);
  const adapter = await gpu.requestAdapter({powerPreference: 'high-performance'});
  const reset = async () => {
    if (tf.getBackend() === 'webgpu') {
      const {device} = tf.backend() as WebGPUBackend;
      tf.removeBackend('webgpu');
      device.destroy();
    }
    await registerWebGPUBackend({gpu});
    await tf.setBackend('webgpu');
  };
  return {device: adapter == null ? 'unknown' : nameOf(adapter.info), reset};
}

async function main(): Promise<void> {
  if (flags.help) {
    console.log(usage);
    return;
  }
  const ops = flags.op === '' ? opNames : list(flags.op);
  const unknown = ops.find((op) => !opNames.includes(op));
  if (unknown != null) {
    throw new Error(`--op must be of ${opNames.join(', ')}, but is '${unknown}'.`);
  }
  if (!(flags.backend in defaultSizes)) {
    throw new Error(`--backend must be of ${Object.keys(defaultSizes).join(', ')}, but is '${flags.backend}'.`);
  }
  const isWebGPU = flags.backend === 'webgpu' || flags.host;
  const {device, reset} = isWebGPU ? await setUpWebGPU() : {device: 'host', reset: async () => {}};
  await reset();
  if (!isWebGPU && !(await tf.setBackend(flags.backend))) {
    throw new Error(`The backend '${flags.backend}' cannot start here.`);
  }
  tf.env().set('WEBGPU_CPU_FORWARD', false);
  console.log(`Device: ${device}`);
  if (flags.decoding !== '') {
    const models = list(flags.decoding);
    const other = models.find((name) => !(name in decodingModels));
    if (other != null) {
      throw new Error(`--decoding must be of ${Object.keys(decodingModels).join(', ')}, but is '${other}'.`);
    }
    const numTokens = positive('tokens', flags.tokens);
    const numRuns = Math.min(5, positive('runs', flags.runs));
    const rows = await timeDecoding(
      {models, numTokens, numRuns, hasBaselines: !flags['no-baselines'], resetBackend: reset},
      console.log,
    );
    writeRows(device, rows);
    return;
  }
  const options = {
    ops,
    shapes: shapesOfFlags(),
    numRuns: positive('runs', flags.runs),
    device,
    resetBackend: reset,
    withoutBaselines: flags['no-baselines'],
  };
  if (flags.check) {
    return checkOps(options, console.log);
  }
  const rows = flags.host ? await timeHosts(options, console.log) : await runBenchmarks(options, console.log);
  writeRows(device, rows);
}

function writeRows(device: string, rows: unknown[]): void {
  if (flags.json != null) {
    writeFileSync(flags.json, `${JSON.stringify({device, rows})}\n`);
  }
}

main().then(
  // Dawn keeps the process alive.
  () => process.exit(0),
  (error: unknown) => {
    console.error(error instanceof Error ? error.message : error);
    process.exit(1);
  },
);
