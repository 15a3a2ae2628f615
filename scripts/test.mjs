/** `npm test`: types, lint, import rules, package gates, the example's page, and the specs in real browsers. */
import {createRequire} from 'node:module';
import {listOf, parseCommandLine} from './command_line.mjs';
import {ensureBrowsers, ensureNpmPackages} from './set_up.mjs';

const {parts} = createRequire(import.meta.url)('../test/runner/matrix.js');

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
const {withDisplay} = await import('./browser.mjs');
const {bin, check, checkSources, printCounts, runner} = await import('./checks.mjs');

await checkSources();
if (isWhole) {
  const small = ['--backend', 'webgpu', '--T', '5,100', '--H', '16', '--I', '8'];
  await check('webgpu in Node.js', process.execPath, 'scripts/bench.mjs', '--check', ...small);
  await runner('package', process.execPath, ['scripts/check_package.mjs']);
  await runner('page of the example', process.execPath, ['scripts/check_example.mjs']);
} else {
  console.log(`Specs on ${backends} in ${browserNames} alone: no package gates, example or webgpu in Node.js.`);
}

for (const part of Object.keys(parts)) {
  const names = browserNames.map((name) => karmaNames[name]);
  const karma = [
    bin('karma'),
    'start',
    'karma.conf.js',
    '--part',
    part,
    '--browsers',
    names.join(),
    '--backends',
    backends.join(),
  ];
  const [command, ...args] = browserNames.includes('firefox') ? withDisplay(browsers, karma) : karma;
  await runner(`specs in browsers: ${part}`, command, args, {
    CHROME_BIN: browsers.chromium,
    FIREFOX_BIN: browsers.firefox,
  });
}
printCounts();
