import {createRequire} from 'node:module';
import {registerWebGPUBackend} from '../../src/webgpu';
import * as tf from '../../src/tf';

/** Kept, because Dawn's adapter goes down with it where it is collected. */
let gpu: GPU | undefined;

/** Starts a backend in Node.js, where Dawn is the GPU of webgpu. */
export async function startNodeBackend(name: string): Promise<void> {
  if (name === 'webgpu') {
    const {create, globals} = createRequire(__filename)('webgpu') as {
      create: (options: string[]) => GPU;
      globals: Record<string, unknown>;
    };
    Object.assign(globalThis, globals);
    gpu = create([]);
    await registerWebGPUBackend({gpu});
  }
  if (!(await tf.setBackend(name))) {
    throw new Error(`The backend '${name}' cannot start here.`);
  }
}
