/**
 * Runs the page of device_check in Chromium, on `--backends webgpu,webgl`: its specs count as specs of the matrix. Then
 * runs it with a kernel that is wrong, which the page must find. Ends with `N passed, N failed`.
 */
import {parseArgs} from 'node:util';
import {chromium} from 'playwright-core';
import {chromiumFlags, softwareGpuEnvironment} from './browser.mjs';
import {buildDeviceCheck, serveDeviceCheck} from './device_check_page.mjs';
import {ensureBrowsers} from './set_up.mjs';

const {values: flags} = parseArgs({options: {backends: {type: 'string', default: 'webgpu,webgl'}}});
const WIDTHS = [320, 390, 1280];
const HEIGHT = 800;

const counts = {passed: 0, failed: 0};
function expect(isMet, line) {
  counts[isMet ? 'passed' : 'failed']++;
  if (!isMet) {
    console.log(`FAILED ${line}`);
  }
}

/** In the page, where tfjs's registry of kernels is global. The wrong kernel writes 0 over its first row. */
function breakPermute(backendName) {
  const kernels = globalThis._tfGlobals.get('kernelRegistry');
  const key = `${backendName}_MoePermute`;
  const {kernelFunc, ...config} = kernels.get(key);
  const wrong = (args) => {
    const outputs = kernelFunc(args);
    args.backend.data.get(outputs[0].dataId).values.fill(0, 0, outputs[0].shape[1]);
    return outputs;
  };
  kernels.set(key, {...config, kernelFunc: wrong});
}

await buildDeviceCheck();
const {url, stop} = await serveDeviceCheck();
const browser = await chromium.launch({
  executablePath: ensureBrowsers(['chromium']).chromium,
  args: chromiumFlags,
  env: {...process.env, ...softwareGpuEnvironment},
});

/** The page with its report. */
async function reportOf(query, prepare = async () => {}) {
  const page = await browser.newPage({viewport: {width: WIDTHS[0], height: HEIGHT}});
  page.on('pageerror', ({message}) => expect(false, message));
  await page.goto(`${url}?${query}`);
  await prepare(page);
  await page.click('#start');
  return {page, report: await page.evaluate(() => globalThis.deviceReport)};
}

async function passesHere() {
  const {page, report} = await reportOf(`backends=${flags.backends}&seed=1&seconds=2`);
  const names = report.backends.map(({name}) => name).join();
  expect(names === flags.backends, `It ran on ${names || 'no backend'}: ${JSON.stringify(report.absent)}.`);
  for (const {name, checks, shaderSeconds} of report.backends) {
    console.log(`${name} compiled its shaders in ${shaderSeconds} s`);
    for (const {title, passed, failed, seconds, failures, routings} of checks) {
      counts.passed += passed;
      counts.failed += failed;
      failures.forEach((failure) => console.log(`FAILED ${title}, ${name}: ${failure}`));
      expect(passed > 0, `${title}, ${name}: nothing ran.`);
      console.log(`${name}, ${title}: ${passed} passed, ${failed} failed in ${seconds} s`);
      expect(routings == null || routings.done >= 100, `${name} tried ${routings?.done} random routings.`);
    }
  }
  const headline = await page.textContent('#verdict h2');
  expect(report.passed && headline === 'This device gives the right results.', `The verdict is '${headline}'.`);
  const copied = JSON.parse(await page.inputValue('#report'));
  expect(JSON.stringify(copied) === JSON.stringify(report), 'The text to copy is not the report.');
  for (const width of WIDTHS) {
    await page.setViewportSize({width, height: HEIGHT});
    const pageWidth = await page.evaluate(() => document.documentElement.scrollWidth);
    expect(pageWidth === width, `At ${width} px the page lays out at ${pageWidth}.`);
  }
  await page.close();
}

async function findsWrongKernel() {
  const {page, report} = await reportOf('backends=cpu&seed=1&seconds=2', (page) => page.evaluate(breakPermute, 'cpu'));
  const [{checks}] = report.backends;
  const failed = checks.filter((check) => check.failed > 0).map(({title}) => title);
  const titles = ['Recorded results of other systems', 'Random routings'];
  expect(!report.passed && titles.every((title) => failed.includes(title)), `A wrong kernel failed only [${failed}].`);
  expect(/^cpu gives wrong results/.test(report.verdict[0]), `Its verdict is '${report.verdict[0]}'.`);
  const headline = await page.textContent('#verdict h2');
  expect(headline === 'This device gives wrong results.', `The verdict of a wrong kernel is '${headline}'.`);
}

try {
  await passesHere();
  await findsWrongKernel();
} finally {
  await browser.close();
  stop();
}
console.log(`${counts.passed} passed, ${counts.failed} failed`);
process.exitCode = counts.failed === 0 ? 0 : 1;
