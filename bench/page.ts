/** The benchmarks in a page: options in its address, lines into it, and the rows posted to `result` at the end. */
import '@tensorflow/tfjs-backend-webgpu';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {registerWebGPUBackend} from '../src/register_webgpu_backend';
import * as tf from '../src/tf';
import {opNames, runBenchmarks} from './run';
import {layers} from './shapes';

const parameters = new URLSearchParams(location.search);
const list = (name: string, otherwise: string[]) => parameters.get(name)?.split(',') ?? otherwise;

function print(line: string): void {
  document.body.append(line, document.createElement('br'));
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

async function resetBackend(): Promise<void> {
  if (tf.getBackend() === 'webgpu') {
    const {device} = tf.backend() as WebGPUBackend;
    tf.removeBackend('webgpu');
    device.destroy();
  }
  await registerWebGPUBackend();
  await tf.setBackend('webgpu');
  tf.env().set('WEBGPU_CPU_FORWARD', false);
}

async function main(): Promise<unknown> {
  const {info} = await waitForAdapter();
  const shapes = list('layer', Object.keys(layers)).flatMap((layer) =>
    list('T', ['256', '4096']).map((T) => ({layer, shape: {T: Number(T), ...layers[layer]}})),
  );
  const rows = await runBenchmarks(
    {
      ops: list('op', opNames),
      shapes,
      numRuns: Number(parameters.get('runs') ?? 20),
      resetBackend,
      withoutBaselines: parameters.get('baselines') !== '1',
    },
    print,
  );
  return {device: `${info.vendor} ${info.architecture} ${info.description}`.trim(), browser: navigator.userAgent, rows};
}

main()
  .catch((error: unknown) => ({error: String(error)}))
  .then((result) => fetch('result', {method: 'POST', body: JSON.stringify(result)}))
  .catch((error: unknown) => print(String(error)));
