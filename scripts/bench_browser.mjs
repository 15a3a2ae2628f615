/**
 * `npm run bench:browser -- [chromium|firefox] ["backend=webgpu&layer=granite&T=16"] [rows.json]`: the benchmarks in a
 * real browser, by default on its software GPU; bench/serve.cjs has the options.
 */
import {spawnSync} from 'node:child_process';
import {existsSync} from 'node:fs';
import {join} from 'node:path';
import {ensureBrowsers, ensureNpmPackages, root} from './set_up.mjs';

ensureNpmPackages();
const browsers = ensureBrowsers();
await import('./bench_bundle.mjs');

const [name = 'chromium', query = '', output = join(root, 'build', 'bench', 'rows.json')] = process.argv.slice(2);
if (name !== 'chromium' && name !== 'firefox') {
  throw new Error(`The browser must be chromium or firefox, but is '${name}'.`);
}
const chromiumFlags = [
  '--headless', '--no-sandbox', '--no-first-run', '--disable-quic', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader',
  '--enable-unsafe-swiftshader', '--use-angle=swiftshader', '--enable-features=Vulkan', '--use-vulkan=swiftshader',
];
const serve = join(root, 'build', 'bench', 'page', 'serve.cjs');
const flags = name === 'chromium' ? chromiumFlags.join(' ') : '';
const command = [process.execPath, serve, browsers[name], flags, output, query];
const needsDisplay = name === 'firefox' && !process.env.DISPLAY;
const [program, ...args] = needsDisplay ? [browsers.xvfb, '-a', '-s', '-screen 0 1280x800x24', ...command] : command;
const vulkanDriver = '/usr/lib/chromium/vk_swiftshader_icd.json';
const env = existsSync(vulkanDriver) ? {VK_ICD_FILENAMES: vulkanDriver} : {};
const {status} = spawnSync(program, args, {stdio: 'inherit', env: {...process.env, ...env}});
process.exitCode = status ?? 1;
