/** The benchmarks in a page: options in its address, lines into it, and the rows posted to `result` at the end. */
import '@tensorflow/tfjs-backend-webgpu';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {registerWebGPUBackend} from '../src/webgpu';
import * as tf from '../src/tf';
import {timeDecoding} from './decoding';
import {nameOf} from './device';
import {timeHosts} from './host';
import {formatPeerRows, timeBesidePeer} from './peer';
import {opNames, runBenchmarks} from './run';
import {layers} from './shapes';

const parameters = new URLSearchParams(location.search);
const list = (name: string, otherwise: string[]) => parameters.get(name)?.split(',') ?? otherwise;

/** Resolves when every line so far has been posted, one after the other. */
let posted: Promise<unknown> = Promise.resolve();

function print(line: string): void {
  document.body.append(line, document.createElement('br'));
  posted = posted.then(() => fetch('line', {method: 'POST', body: line}));
}

/** The first adapter of a fresh browser may take a while to come. */
async function waitForAdapter(): Promise<GPUAdapter> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const adapter = await navigator.gpu.requestAdapter({powerPreference: 'high-performance'});
    if (adapter != null) {
      return adapter;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error('WebGPU has no adapter here.');
}

const backend = parameters.get('backend') ?? 'webgpu';

async function resetBackend(): Promise<void> {
  if (backend === 'webgpu') {
    if (tf.getBackend() === 'webgpu') {
      const {device} = tf.backend() as WebGPUBackend;
      tf.removeBackend('webgpu');
      device.destroy();
    }
    await registerWebGPUBackend();
  }
  if (!(await tf.setBackend(backend))) {
    throw new Error(`The backend '${backend}' cannot start here.`);
  }
  tf.env().set('WEBGPU_CPU_FORWARD', false);
  tf.env().set('WEBGL_CPU_FORWARD', false);
}

async function deviceName(): Promise<string> {
  if (backend === 'webgl') {
    await resetBackend();
    const {gl} = (tf.backend() as MathBackendWebGL).gpgpu;
    const debug = gl.getExtension('WEBGL_debug_renderer_info');
    return String(gl.getParameter(debug == null ? gl.RENDERER : debug.UNMASKED_RENDERER_WEBGL));
  }
  if (backend !== 'webgpu') {
    return 'host';
  }
  return nameOf((await waitForAdapter()).info);
}

async function rowsOf(device: string): Promise<unknown[]> {
  const wantsHostTime = parameters.get('host') === '1';
  const sizes = ['H', 'K', 'E', 'I'].filter((size) => parameters.has(size));
  const given = Object.fromEntries(sizes.map((size) => [size, Number(parameters.get(size))]));
  const shapes = list('layer', ['granite']).flatMap((layer) =>
    list('T', [wantsHostTime ? '1' : '16']).map((T) => ({layer, shape: {T: Number(T), ...layers[layer], ...given}})),
  );
  const options = {
    ops: list('op', opNames),
    shapes,
    numRuns: Number(parameters.get('runs') ?? 20),
    device,
    resetBackend,
    withoutBaselines: parameters.get('baselines') !== '1',
    wallTimeOnly: parameters.get('gpuTime') === '0',
  };
  if (parameters.has('decoding')) {
    const numTokens = Number(parameters.get('tokens') ?? 64);
    const numRuns = Number(parameters.get('runs') ?? 5);
    return timeDecoding(
      {
        models: list('decoding', []),
        numTokens,
        numRuns,
        hasBaselines: parameters.get('baselines') === '1',
        resetBackend,
      },
      print,
    );
  }
  if (wantsHostTime) {
    return timeHosts(options, print);
  }
  if (parameters.get('peer') === '1') {
    const rows = await timeBesidePeer(options, new URL('ort.wasm', location.href).href, print);
    print(formatPeerRows(rows));
    return rows;
  }
  return runBenchmarks(options, print);
}

async function main(): Promise<unknown> {
  const device = await deviceName();
  print(`Device: ${device}`);
  return {device, browser: navigator.userAgent, rows: await rowsOf(device)};
}

main()
  .catch((error: unknown) => ({error: String(error)}))
  .then(async (result) => {
    await posted;
    await fetch('result', {method: 'POST', body: JSON.stringify(result)});
  })
  .catch((error: unknown) => print(String(error)));
