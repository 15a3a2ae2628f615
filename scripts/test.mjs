/** `npm test`: types, lint, import rules, package gates, pages of example and docs, and the specs in real browsers. */
import {createRequire} from 'node:module';
import {availableParallelism} from 'node:os';
import {listOf, parseCommandLine} from './command_line.mjs';
import {ensureBrowsers, ensureNpmPackages} from './set_up.mjs';

const {pages} = createRequire(import.meta.url)('../test/runner/matrix.js');

const karmaNames = {chromium: 'Chromium', firefox: 'FirefoxWithDisplay'};
const backendNames = ['cpu', 'wasm', 'webgl', 'webgpu'];

const usage = `npm test [-- --browsers chromium,firefox] [--backends ${backendNames}]

Without flags everything: types, lint, import rules, package gates, the page of the example, the ops on webgpu in Node.js,
and the specs in both browsers, on the backends that the matrix of test/runner/matrix.js has for them. With a flag types,
lint, import rules, and of the matrix what it names.
npm run check runs the specs without a browser.`;

const {flags} = parseCommandLine(usage, {browsers: {type: 'string'}, backends: {type: 'string'}});
const browserNames = listOf('browsers', flags.browsers ?? 'chromium,firefox', Object.keys(karmaNames));
const backends = listOf('backends', flags.backends ?? backendNames.join(), backendNames);
const isWhole = flags.browsers == null && flags.backends == null;

ensureNpmPackages();
const browsers = ensureBrowsers(browserNames);
const {firefoxEnvironment, withDisplay} = await import('./browser.mjs');
const {bin, check, checkSources, inTurn, printCounts, runner} = await import('./checks.mjs');

const smallSizes = ['--backend', 'webgpu', '--T', '5,100', '--H', '16', '--I', '8'];
/** One format of codes stands for all, whose specs run in browsers. */
const checkedOps = [
  ...['moePermute', 'moePermuteIndices', 'moeUnpermute', 'moeAlignBlockSize', 'moeTopk', 'moeGroupedMatMul'],
  ...['moeGroupedMatMulW2', 'fusedMoe', 'fusedMoeInt4', 'fusedMoeChain', 'mixtureOfExpertsStep'],
];
const gates = [
  ['package', 'scripts/check_package.mjs'],
  ['page of the example', 'scripts/check_example.mjs'],
  ['site of the docs', 'scripts/check_site.mjs'],
];

/** A page of Karma, with a display of its own. */
function specsOnPage(page, p, name) {
  const onPage = page.filter((backend) => backends.includes(backend));
  if (onPage.length === 0) {
    return [];
  }
  const karma = [bin('karma'), 'start', 'karma.conf.js', '--browsers', karmaNames[name], '--backends', onPage.join()];
  const [command, ...args] = name === 'firefox' ? withDisplay(browsers, karma, 100 * (p + 1)) : karma;
  const gpu = name === 'firefox' ? firefoxEnvironment : {};
  const env = {CHROME_BIN: browsers.chromium, FIREFOX_BIN: browsers.firefox, ...gpu};
  return [() => runner(`specs on ${onPage} in ${name}`, command, args, {env})];
}

await checkSources();
const runs = pages.flatMap((page, p) => browserNames.flatMap((name) => specsOnPage(page, p, name)));
if (isWhole) {
  await check(
    'webgpu in Node.js',
    process.execPath,
    'scripts/bench.mjs',
    '--check',
    '--op',
    checkedOps.join(),
    ...smallSizes,
  );
  const gateRuns = gates.map(([name, script]) => {
    return () => runner(name, process.execPath, [script]);
  });
  // After the longest pages and before the shorter ones, so that no long run is the last.
  runs.splice(browserNames.length, 0, ...gateRuns);
} else {
  console.log(`Specs on ${backends} in ${browserNames} alone: no package gates, example or webgpu in Node.js.`);
}
console.log('\nThe specs take a page for each browser and GPU backend, some minutes each.');
// A page keeps one core busy, most of the time with compiling shaders.
await inTurn(availableParallelism(), runs);
printCounts();
