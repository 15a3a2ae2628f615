/** `npm run bench -- [flags]`: times an op beside compositions of core ops; bench/node.ts has the flags. */
import {ensureNpmPackages} from './set_up.mjs';

ensureNpmPackages();
const {runBundled} = await import('./bundle.mjs');
await runBundled('bench', 'bench/node.ts', process.argv.slice(2));
