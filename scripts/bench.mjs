/** `npm run bench -- [flags]`: times ops beside compositions of core ops; `--help` tells the flags. */
import {ensureNpmPackages} from './set_up.mjs';

ensureNpmPackages();
const {runBundled} = await import('./bundle.mjs');
await runBundled('bench', 'bench/node.ts', process.argv.slice(2));
