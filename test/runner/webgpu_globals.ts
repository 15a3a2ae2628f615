/** Gives Node.js WebGPU, by the npm package `webgpu`, as a browser has it. Imported before anything of tfjs. */
import {createRequire} from 'node:module';

const {create, globals} = createRequire(__filename)('webgpu') as {create: (options: string[]) => GPU; globals: object};
Object.assign(globalThis, globals);
// As for Chromium: scripts/browser_flags.cjs has the reason.
const gpu = create(['disable-dawn-features=use_vulkan_zero_initialize_workgroup_memory_extension']);
Object.defineProperty(globalThis, 'navigator', {value: {gpu, userAgent: 'Node.js'}, configurable: true, writable: true});
