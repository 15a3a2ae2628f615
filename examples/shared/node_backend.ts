import {createRequire} from 'node:module';
import {registerWebGPUBackend} from '../../src/webgpu';
import * as tf from '../../src/tf';

/** Starts a backend in Node.js, where Dawn is the GPU of webgpu. */
export async function startNodeBackend(name: string): Promise<void> {
  if (name === 'webgpu') {
    const {create, globals} = createRequire(__filename)('webgpu') as {
      create: (options: string[]) => GPU;
      globals: Record<string, unknown>;
    };
    Object.assign(globalThis, globals);
    await registerWebGPUBackend({gpu: create([])});
  }
  if (!(await tf.setBackend(name))) {
    throw new Error(`The backend '${name}' cannot start here.`);
  }
}
