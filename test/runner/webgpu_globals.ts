/** Gives Node.js WebGPU, by the npm package `webgpu`, as a browser has it. Imported before anything of tfjs. */
import {createRequire} from 'node:module';

const {create, globals} = createRequire(__filename)('webgpu') as {create: (options: string[]) => GPU; globals: object};
Object.assign(globalThis, globals);
Object.defineProperty(globalThis, 'navigator', {value: {gpu: create([])}, configurable: true, writable: true});
