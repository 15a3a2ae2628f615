/**
 * `npm run bench:bundle`: the benchmarks without node_modules, for a machine that has only a GPU. Writes build/bench/:
 * bench.cjs for Node.js with Dawn, and page/ for a browser.
 */
import {copyFileSync} from 'node:fs';
import {join} from 'node:path';
import {ensureNpmPackages, root} from './set_up.mjs';

ensureNpmPackages();
const {build} = await import('esbuild');
const folder = join(root, 'build', 'bench');
const common = {bundle: true, ignoreAnnotations: true, minify: true, logLevel: 'error'};
await build({
  ...common,
  entryPoints: [join(root, 'bench', 'node.ts')],
  outfile: join(folder, 'bench.cjs'),
  platform: 'node',
  external: ['webgpu'],
});
await build({
  ...common,
  entryPoints: [join(root, 'bench', 'page.ts')],
  outfile: join(folder, 'page', 'page.js'),
  platform: 'browser',
  format: 'esm',
});
await build({
  ...common,
  entryPoints: [join(root, 'bench', 'serve.cjs')],
  outfile: join(folder, 'page', 'serve.cjs'),
  platform: 'node',
});
// The peer of `peer=1`.
copyFileSync(
  join(root, 'node_modules', 'onnxruntime-web', 'dist', 'ort-wasm-simd-threaded.jspi.wasm'),
  join(folder, 'page', 'ort.wasm'),
);
console.log('DAWN_NODE=path/to/dawn.node node build/bench/bench.cjs --backend webgpu');
console.log('node build/bench/page/serve.cjs CHROMIUM "FLAGS" rows.json "layer=mixtral&T=256,4096"');
