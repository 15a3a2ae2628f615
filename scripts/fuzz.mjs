/**
 * `npm run fuzz`: random calls of the ops, their gradients and the layer against naive loops, on one backend; with any
 * number, any id, tensors of any origin, bad input and lost devices. test/fuzz has what is drawn.
 *
 *     npm run fuzz -- --backend cpu|webgl|webgpu [--minutes 5] [--count 100000] [--seed n] [--browser chromium|firefox]
 *
 * It ends once that many assignments were tried, or after so many minutes, 5 where nothing is said. cpu and webgpu run
 * in Node.js, or in the browser that is named; webgl in Chromium where none is. A failure is shrunk, and names the seed
 * that draws it again.
 */
import {join} from 'node:path';
import {parseArgs} from 'node:util';
import {ensureNpmPackages, root} from './set_up.mjs';

const {values: flags} = parseArgs({
  options: {
    backend: {type: 'string', default: 'cpu'},
    minutes: {type: 'string'},
    count: {type: 'string'},
    seed: {type: 'string'},
    browser: {type: 'string'},
  },
});

function oneOf(flag, values) {
  if (!values.includes(flags[flag])) {
    throw new Error(`--${flag} must be ${values.join(' or ')}, but is '${flags[flag]}'.`);
  }
  return flags[flag];
}

/** The number of a flag that was given, at least `min`. */
function number(flag, otherwise, min) {
  const value = flags[flag] == null ? otherwise : Number(flags[flag]);
  if (!(value >= min)) {
    throw new Error(`--${flag} must be a number from ${min}, but is '${flags[flag]}'.`);
  }
  return value;
}

const options = {
  backend: oneOf('backend', ['cpu', 'webgl', 'webgpu']),
  minutes: number('minutes', flags.count == null ? 5 : Infinity, 0),
  count: number('count', Infinity, 0),
  seed: number('seed', Math.floor(Math.random() * 2 ** 31), -(2 ** 31)),
};
const browser = flags.browser == null ? undefined : oneOf('browser', ['chromium', 'firefox']);

ensureNpmPackages();
const folder = join(root, 'test', 'fuzz');
const args = Object.entries(options).filter(([, value]) => value !== Infinity);
if (browser == null && options.backend !== 'webgl') {
  const {softwareGpuEnvironment} = await import('./browser.mjs');
  const {runBundled} = await import('./bundle.mjs');
  Object.assign(process.env, softwareGpuEnvironment);
  await runBundled(
    'fuzz',
    'test/fuzz/node.ts',
    args.flatMap(([name, value]) => [`--${name}`, String(value)]),
  );
} else {
  const {runPage, servePage} = await import('./serve_page.mjs');
  const page = join(folder, 'page.html');
  const served = await servePage(join(folder, 'page.ts'), (path) => (path === '/' ? page : undefined));
  const {numFailures} = await runPage(served, `${served.url}?${new URLSearchParams(args)}`, browser ?? 'chromium');
  process.exitCode = numFailures === 0 ? 0 : 1;
}
