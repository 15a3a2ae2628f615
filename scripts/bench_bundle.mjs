/** `npm run bench:bundle`: the benchmarks without node_modules, for a machine that has only a GPU, in build/bench/. */
import {join} from 'node:path';
import {ensureNpmPackages, root} from './set_up.mjs';

ensureNpmPackages();
const {build} = await import('esbuild');
const outfile = join(root, 'build', 'bench', 'bench.cjs');
await build({
  entryPoints: [join(root, 'bench', 'node.ts')],
  outfile,
  bundle: true,
  platform: 'node',
  external: ['webgpu'],
  ignoreAnnotations: true,
  minify: true,
  logLevel: 'error',
});
console.log(`Wrote ${outfile}. Run it as: DAWN_NODE=path/to/dawn.node node bench.cjs --backend webgpu`);
