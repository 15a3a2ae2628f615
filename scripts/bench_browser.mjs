/** `npm run bench:browser`: the benchmarks in a real browser, by default on its software GPU. */
import {spawnSync} from 'node:child_process';
import {join} from 'node:path';
import {chromiumFlags, firefoxEnvironment, softwareGpuEnvironment, withDisplay} from './browser.mjs';
import {fail, parseCommandLine} from './command_line.mjs';
import {ensureBrowsers, ensureNpmPackages, root} from './set_up.mjs';

const usage = `npm run bench:browser -- [chromium|firefox] ["backend=webgpu&layer=granite&T=16"] [rows.json]

The address takes backend=webgpu|webgl|cpu, op=moePermute,…, layer=granite,…, T=16,…, H=, K=, E=, I= (other sizes than the
layer's), runs=20, baselines=1 (compositions of core ops too), gpuTime=0 (no timer queries of WebGL). host=1 times what
JavaScript takes to ask for each op. peer=1 times fusedMoe beside QMoE of onnxruntime-web, in Chromium. Rows go to
rows.json, build/bench/rows.json by default.`;

const {words} = parseCommandLine(usage, {}, true);
const [name = 'chromium', query = '', output = join(root, 'build', 'bench', 'rows.json')] = words;
if (name !== 'chromium' && name !== 'firefox') {
  fail(`The browser must be chromium or firefox, but is '${name}'.\n\n${usage}`);
}
ensureNpmPackages();
const browsers = ensureBrowsers([name]);
await import('./bench_bundle.mjs');

const serve = join(root, 'build', 'bench', 'page', 'serve.cjs');
// The last flag lets the page know the name of the card.
const flags = name === 'chromium' ? [...chromiumFlags, '--enable-webgpu-developer-features'].join(' ') : '';
const command = [process.execPath, serve, browsers[name], flags, output, query];
const [program, ...args] = name === 'firefox' ? withDisplay(browsers, command) : command;
const env = {...process.env, ...(name === 'firefox' ? firefoxEnvironment : softwareGpuEnvironment)};
const {status} = spawnSync(program, args, {stdio: 'inherit', env});
process.exitCode = status ?? 1;
