/**
 * `npm run bench:browser -- [chromium|firefox] ["backend=webgpu&layer=granite&T=16"] [rows.json]`: the benchmarks in a
 * real browser, by default on its software GPU; bench/serve.cjs has the options.
 */
import {spawnSync} from 'node:child_process';
import {join} from 'node:path';
import {chromiumFlags, softwareGpuEnvironment, withDisplay} from './browser.mjs';
import {ensureBrowsers, ensureNpmPackages, root} from './set_up.mjs';

ensureNpmPackages();
const browsers = ensureBrowsers();
await import('./bench_bundle.mjs');

const [name = 'chromium', query = '', output = join(root, 'build', 'bench', 'rows.json')] = process.argv.slice(2);
if (name !== 'chromium' && name !== 'firefox') {
  throw new Error(`The browser must be chromium or firefox, but is '${name}'.`);
}
const serve = join(root, 'build', 'bench', 'page', 'serve.cjs');
const flags = name === 'chromium' ? chromiumFlags.join(' ') : '';
const command = [process.execPath, serve, browsers[name], flags, output, query];
const [program, ...args] = name === 'firefox' ? withDisplay(browsers, command) : command;
const {status} = spawnSync(program, args, {stdio: 'inherit', env: {...process.env, ...softwareGpuEnvironment}});
process.exitCode = status ?? 1;
