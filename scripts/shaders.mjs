/** `npm run shaders -- [kernel …] [--backend webgpu|webgl]`: scripts/print_shaders.ts says what it prints. */
import {ensureNpmPackages} from './set_up.mjs';

ensureNpmPackages();
const {runBundled} = await import('./bundle.mjs');
await runBundled('print_shaders', 'scripts/print_shaders.ts', process.argv.slice(2));
