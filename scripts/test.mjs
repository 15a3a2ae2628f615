/** `npm test`: types, lint, import rules, package gates, pages of example and docs, and the specs in real browsers. */
import {writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {availableParallelism} from 'node:os';
import {fail, listOf, parseCommandLine} from './command_line.mjs';
import {ensureBrowsers, ensureNpmPackages} from './set_up.mjs';

const require = createRequire(import.meta.url);
const {deviceCheckBackends, pagesOfBrowser} = require('../test/runner/matrix.js');

/** The names of browsers in the matrix. */
const matrixNames = {chromium: 'Chromium', firefox: 'Firefox', webkit: 'WebKit'};
const launchers = {...matrixNames, firefox: 'FirefoxWithDisplay'};
const backendNames = ['cpu', 'wasm', 'webgl', 'webgpu'];

const usage = `npm test [-- --browsers chromium,firefox] [--backends ${backendNames}]

Without flags everything: types, lint, import rules, package gates, the page of the example, the live page, the ops on
webgpu in Node.js, and the specs in all browsers, on the backends that the matrix of test/runner/matrix.js has for them. With a flag types,
lint, import rules, and of the matrix what it names.
npm run check runs the specs without a browser.`;

const {flags} = parseCommandLine(usage, {browsers: {type: 'string'}, backends: {type: 'string'}});
const browserNames = listOf('browsers', flags.browsers ?? Object.keys(matrixNames).join(), Object.keys(matrixNames));
const backends = listOf('backends', flags.backends ?? backendNames.join(), backendNames);
const isWhole = flags.browsers == null && flags.backends == null;

ensureNpmPackages();
const browsers = ensureBrowsers(browserNames);
const {firefoxEnvironment, withDisplay} = await import('./browser.mjs');
const {temporaryBundle} = await import('./bundle.mjs');
const {bundleSpecFiles} = require('../test/runner/bundle_specs.js');
const {bin, check, checkSources, inTurn, printCounts, runner} = await import('./checks.mjs');

const smallSizes = ['--backend', 'webgpu', '--T', '5,100', '--H', '16', '--I', '8'];
/** One format of codes stands for all, whose specs run in browsers. */
const checkedOps = [
  ...['moePermute', 'moePermuteIndices', 'moeUnpermute', 'moeAlignBlockSize', 'moeTopk', 'moeGroupedMatMul'],
  ...['moeGroupedMatMulW2', 'fusedMoe', 'fusedMoeInt4', 'fusedMoeChain', 'mixtureOfExpertsStep'],
];
const gates = [
  {name: 'package', script: 'scripts/check_package.mjs'},
  {name: 'page of the example', script: 'scripts/check_example.mjs'},
  {name: 'site of the docs', script: 'scripts/check_site.mjs'},
  {name: 'live page in chromium', script: 'scripts/check_demo.mjs', args: ['chromium']},
  {name: 'live page in firefox', script: 'scripts/check_demo.mjs', args: ['firefox']},
];

/** One bundle for all pages of Karma. */
const specBundle = temporaryBundle('specs_of_pages');

/** The pages of Karma in a browser, each with a display of its own where the browser needs one. */
function specsInBrowser(name) {
  return pagesOfBrowser(matrixNames[name]).map((page, p) => {
    const onPage = page.filter((backend) => backends.includes(backend));
    const karma = [bin('karma'), 'start', 'karma.conf.js', '--browsers', launchers[name], '--backends', onPage.join()];
    const display = {firefox: 100, webkit: 150}[name];
    const [command, ...args] = display == null ? karma : withDisplay(browsers, karma, display + 100 * p);
    const gpu = name === 'firefox' ? firefoxEnvironment : {};
    const programs = {CHROME_BIN: browsers.chromium, FIREFOX_BIN: browsers.firefox, WEBKIT_BIN: browsers.webkit};
    const env = {...programs, ...gpu, SPEC_BUNDLE: specBundle};
    return {name, onPage, run: () => runner(`specs on ${onPage} in ${name}`, command, args, {env})};
  });
}

/** The page of device_check has some specs of Chromium. */
function specsOnDeviceCheck() {
  const onPage = deviceCheckBackends.filter((backend) => backends.includes(backend));
  if (onPage.length === 0 || !browserNames.includes('chromium')) {
    return [];
  }
  const args = ['scripts/check_device_page.mjs', '--backends', onPage.join()];
  return [() => runner(`page of the device check on ${onPage} in chromium`, process.execPath, args)];
}

const pages = browserNames.flatMap(specsInBrowser).filter(({onPage}) => onPage.length > 0);
// The long runs first, so that none of them is the last.
const isLong = ({name, onPage}) => name !== 'webkit' && onPage.some((backend) => backend.startsWith('web'));
const runsOf = (somePages) => somePages.map(({run}) => run);
const runs = [...runsOf(pages.filter(isLong)), ...specsOnDeviceCheck()];
if (pages.length === 0) {
  fail(`The matrix has no specs on ${backends} in ${browserNames}.`);
}
await checkSources();
if (isWhole) {
  const sizes = ['--op', checkedOps.join(), ...smallSizes];
  runs.push(() => check('webgpu in Node.js', process.execPath, 'scripts/bench.mjs', '--check', ...sizes));
  runs.push(
    ...gates.map(
      ({name, script, args = []}) =>
        () =>
          runner(name, process.execPath, [script, ...args]),
    ),
  );
} else {
  console.log(`Specs on ${backends} in ${browserNames} alone: no package gates, example or webgpu in Node.js.`);
}
runs.push(...runsOf(pages.filter((page) => !isLong(page))));
writeFileSync(specBundle, await bundleSpecFiles());
console.log('\nThe specs take a page for each browser and GPU backend, some minutes each.');
// A page keeps one core busy, most of the time with compiling shaders.
await inTurn(availableParallelism(), runs);
printCounts();
