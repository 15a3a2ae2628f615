/** `node scripts/export_models.mjs <folder>`: small language models of every family, as transformers loads them. */
import {join} from 'node:path';
import {ensureNpmPackages, root} from './set_up.mjs';

ensureNpmPackages();
const {runBundled} = await import('./bundle.mjs');
await runBundled('export_models', 'scripts/export_models.ts', [
  join(root, 'test', 'golden', 'models'),
  process.argv[2],
]);
