/** `npm start`: a mixture of experts on handwritten digits, checked against the dense computation. */
import {ensureNpmPackages} from './set_up.mjs';

ensureNpmPackages();
const {runBundled} = await import('./bundle.mjs');
await runBundled('digits', 'examples/digits/main.ts', process.argv.slice(2));
