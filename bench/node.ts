/**
 * npm run bench -- [--backend cpu|webgpu] [--op moePermute,…] [--layer mixtral,qwen3,gpt-oss,granite,olmoe,small]
 *     [--T 1,16,…] [--H n --K n --E n --I n] [--runs 20] [--no-baselines] [--json FILE] [--check]
 *
 * --check compares the ops with the cpu backend at these very shapes, and times nothing.
 *
 * webgpu in Node.js runs on Dawn, by the npm package `webgpu` or the addon that DAWN_NODE names.
 */
import {writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {parseArgs} from 'node:util';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {registerWebGPUBackend} from '../src/register_webgpu_backend';
import * as tf from '../src/tf';
import {checkOps, opNames, runBenchmarks} from './run';
import {layers, type Shape} from './shapes';

const {values: flags} = parseArgs({
  options: {
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
  },
});

const list = (text: string) => text.split(',').filter((word) => word !== '');

function positive(flag: string, text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) {
    throw new Error(`--${flag} must be a positive integer, but is '${text}'.`);
  }
  return value;
}

function shapesOfFlags(): Array<{layer: string; shape: Shape}> {
  const numTokens = (flags.T === '' ? ['2048'] : list(flags.T)).map((text) => positive('T', text));
  const names = list(flags.layer);
  const unknown = names.find((name) => !(name in layers));
  if (unknown != null) {
    throw new Error(`--layer must be of ${Object.keys(layers).join(', ')}, but is '${unknown}'.`);
  }
  const dims = {
    H: positive('H', flags.H ?? '1024'),
    K: positive('K', flags.K ?? '8'),
    E: positive('E', flags.E ?? '32'),
    // Half the hidden size, as the layers that have many experts have it.
    I: positive('I', flags.I ?? String(Math.ceil(Number(flags.H ?? '1024') / 2))),
  };
  const chosen = names.length > 0 ? names.map((name) => ({name, ...layers[name]})) : [{name: 'flags', ...dims}];
  return chosen.flatMap(({name, H, K, E, I}) =>
    numTokens.map((T) => ({layer: name, shape: {T, H, K, E, I}})),
  );
}

async function setUpWebGPU(): Promise<{device: string; reset: () => Promise<void>}> {
  const require = createRequire(__filename);
  const {create, globals} = require(process.env.DAWN_NODE ?? 'webgpu') as {
    create: (options: string[]) => GPU;
    globals: Record<string, unknown>;
  };
  Object.assign(globalThis, globals);
  // Exact timestamps.
  const gpu = create(['enable-dawn-features=allow_unsafe_apis', 'disable-dawn-features=timestamp_quantization']);
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
  return {device: adapter?.info.description || adapter?.info.vendor || 'unknown', reset};
}

async function main(): Promise<void> {
  const ops = flags.op === '' ? opNames : list(flags.op);
  const unknown = ops.find((op) => !opNames.includes(op));
  if (unknown != null) {
    throw new Error(`--op must be of ${opNames.join(', ')}, but is '${unknown}'.`);
  }
  const isWebGPU = flags.backend === 'webgpu';
  const {device, reset} = isWebGPU ? await setUpWebGPU() : {device: 'host', reset: async () => {}};
  await reset();
  if (!(await tf.setBackend(flags.backend))) {
    throw new Error(`The backend '${flags.backend}' cannot start here.`);
  }
  tf.env().set('WEBGPU_CPU_FORWARD', false);
  console.log(`Device: ${device}`);
  const options = {
    ops,
    shapes: shapesOfFlags(),
    numRuns: positive('runs', flags.runs),
    resetBackend: reset,
    withoutBaselines: flags['no-baselines'],
  };
  if (flags.check) {
    return checkOps(options, console.log);
  }
  const rows = await runBenchmarks(options, console.log);
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
