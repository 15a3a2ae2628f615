/** `npm run device-check`: the page that checks the ops on the device of whoever opens it. */
import {writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {fail, parseCommandLine} from './command_line.mjs';
import {ensureNpmPackages} from './set_up.mjs';

const usage = `npm run device-check                                                 serves the page for a browser of yours
npm run device-check -- build                                        writes it to build/device_check, for any host
npm run device-check -- chromium|firefox|webkit [--backends webgpu]  runs it in that browser, and writes report.json there`;

const {flags, words} = parseCommandLine(usage, {backends: {type: 'string'}, seed: {type: 'string'}}, true);
const [what = 'serve'] = words;
if (!['serve', 'build', 'chromium', 'firefox', 'webkit'].includes(what) || words.length > 1) {
  fail(
    `npm run device-check takes build, chromium, firefox, webkit or nothing, but was given '${words.join(' ')}'.\n\n${usage}`,
  );
}
ensureNpmPackages();
const {buildDeviceCheck, builtPage, serveDeviceCheck} = await import('./device_check_page.mjs');
await buildDeviceCheck();

if (what === 'build') {
  console.log(`The page is in ${builtPage}.`);
} else {
  const served = await serveDeviceCheck();
  const query = new URLSearchParams(flags);
  if (what === 'serve') {
    console.log(`The check is at\n\n  ${served.url}?${query}\n\nCtrl+C ends it.`);
  } else {
    const {runPage} = await import('./serve_page.mjs');
    const report = await runPage(served, `${served.url}run.html?${query}`, what);
    console.log(report.verdict.join('\n'));
    const file = join(builtPage, 'report.json');
    writeFileSync(file, `${JSON.stringify(report, null, 2)}\n`);
    console.log(`The report is ${file}.`);
    process.exitCode = report.passed ? 0 : 1;
  }
}
