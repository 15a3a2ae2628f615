/**
 * `npm run fuzz`: random calls of the ops, their gradients and the layer against naive loops; any number, any id, tensors
 * of any origin, lost devices. test/fuzz/run.ts has what is drawn.
 *
 *     npm run fuzz -- --backend cpu|webgl|webgpu [--minutes 5] [--count 100000] [--seed n] [--browser chromium|firefox]
 *
 * It ends after so many minutes, or before that once so many assignments were tried. Draw i is that of seed + i, and a
 * failure names the seed that brings it back: `--seed n --count 1`. cpu and webgpu run in Node.js, or in a browser where
 * one is named; webgl in Chromium where none is.
 */
import {spawnSync} from 'node:child_process';
import {join} from 'node:path';
import {parseArgs} from 'node:util';
import {ensureNpmPackages, root} from './set_up.mjs';

const {values: flags} = parseArgs({
  options: {
    backend: {type: 'string', default: 'cpu'},
    minutes: {type: 'string', default: '5'},
    count: {type: 'string', default: '1e9'},
    seed: {type: 'string', default: String(Math.floor(Math.random() * 2 ** 31))},
    browser: {type: 'string'},
  },
});
const options = {
  backend: flags.backend,
  minutes: Number(flags.minutes),
  count: Number(flags.count),
  seed: Number(flags.seed),
};
ensureNpmPackages();
const {bundleForNode} = await import('./bundle.mjs');
const {softwareGpuEnvironment} = await import('./browser.mjs');
const bundle = await bundleForNode('fuzz', {entryPoints: [join(root, 'test', 'fuzz', 'node.ts')]});
const env = {...process.env, ...softwareGpuEnvironment};
const {status} = spawnSync(process.execPath, [bundle, JSON.stringify(options)], {stdio: 'inherit', env});
process.exitCode = status ?? 1;
