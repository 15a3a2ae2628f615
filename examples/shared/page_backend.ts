import {registerWebGPUBackend} from '../../src/webgpu';
import * as tf from '../../src/tf';

/** Starts a backend in a page, the best one unless it is named, and gives its name. */
export async function startPageBackend(given: string | null): Promise<string> {
  const name = given ?? (await bestBackend());
  if (name === 'webgpu') {
    await registerWebGPUBackend();
  }
  if (!(await tf.setBackend(name))) {
    throw new Error(`The backend '${name}' cannot start here.`);
  }
  return name;
}

async function bestBackend(): Promise<string> {
  const adapter = 'gpu' in navigator ? await navigator.gpu.requestAdapter() : null;
  return adapter == null ? 'webgl' : 'webgpu';
}
