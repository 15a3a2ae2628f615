/**
 * Clicks through the live page in the browser that is named, chromium or firefox: what a visitor can do gives what the
 * page says it does, and axe-core finds nothing. Ends with `N passed, N failed`.
 */
import {readFileSync} from 'node:fs';
import {once} from 'node:events';
import {createRequire} from 'node:module';
import {join} from 'node:path';
import {gunzipSync, gzipSync} from 'node:zlib';
import {launch} from 'puppeteer-core';
import {firefoxEnvironment, softwareGpuEnvironment} from './browser.mjs';
import browserFlags from './browser_flags.cjs';
import {buildDemo, demoFolder} from './build_demo.mjs';
import {serveFolder} from './serve_folder.mjs';
import {expect, fails, passes, printPageCounts} from './page_counts.mjs';
import {ensureBrowsers} from './set_up.mjs';

/** What is transferred before a visitor asks for more, compressed as servers do. */
const MAX_FIRST_BYTES = 500_000;
const FIRST_ANSWER_MS = 20_000;
/** A visitor notices longer tasks. */
const LONG_TASK_MS = 50;
/**
 * A virtual machine counts what its host takes away as computed, so that with more programs than cores some task of a
 * few ms counts as 50 to 170, a new one in each run. One in each part may be so long, and none longer than this.
 */
const LONGEST_TASK_MS = 200;
const TIMEOUT_MS = 120_000;
const WIDTHS = [320, 390, 768, 1280];
const HEIGHT = 900;
const LEAST_ACCURACY = 90;

const browserName = process.argv[2] ?? 'chromium';
const isChromium = browserName === 'chromium';
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

function launchBrowser() {
  const browsers = ensureBrowsers([browserName]);
  return browserName === 'firefox'
    ? launch({
        browser: 'firefox',
        executablePath: browsers.firefox,
        extraPrefsFirefox: browserFlags.firefoxPreferences,
        env: {...process.env, ...firefoxEnvironment},
      })
    : launch({
        executablePath: browsers.chromium,
        // Without a GPU, pages are composed faster by Skia than by SwiftShader.
        args: [...browserFlags.chromiumFlags, '--disable-gpu-compositing'],
        env: {...process.env, ...softwareGpuEnvironment},
      });
}

await buildDemo();
const {url, stop} = await serveFolder(demoFolder);
const browser = await launchBrowser();
const start = Date.now();
const seconds = () => `${((Date.now() - start) / 1000).toFixed(1)} s`;

/** Runs in the page; what it is given must be JSON. */
async function openPage(address) {
  const page = await browser.newPage();
  await page.setViewport({width: 1280, height: HEIGHT});
  page.setDefaultTimeout(TIMEOUT_MS);
  page.on('pageerror', ({message}) => fails(`An error of the page: ${message}`));
  page.on('console', (message) => message.type() === 'error' && fails(`The console: ${message.text()}`));
  await page.goto(address);
  return page;
}

const page = await openPage('about:blank');
const requested = [];
page.on('request', (request) => requested.push(new URL(request.url()).pathname));

const textOf = (selector) => page.$eval(selector, (element) => element.textContent.trim());
/** Clicks the first button whose name begins so, as soon as there is one that can be clicked. */
const click = (name) =>
  page
    .waitForFunction(
      (wanted) => {
        const nameOf = (button) => (button.getAttribute('aria-label') ?? button.textContent).trim();
        const buttons = [...document.querySelectorAll('button:enabled')];
        return buttons.find((button) => nameOf(button).startsWith(wanted));
      },
      {},
      name,
    )
    .then((button) => button.evaluate((element) => element.click()))
    .catch(() => {
      throw new Error(`There is no button '${name}' to click.`);
    });
const numRows = (selector = '.row') => page.$$eval(selector, (rows) => rows.length);
const until = (condition, ...args) => page.waitForFunction(condition, {timeout: TIMEOUT_MS}, ...args);
const untilRows = (wanted) => until((n) => document.querySelectorAll('.row:not(.dropped)').length === n, wanted);
const accuracy = async () => parseFloat(await textOf('.accuracy .figure'));
const idsOf = () => page.$eval('.array', (element) => element.textContent);

/** Runs a part, and gives the ms that each task of the page's main thread computed meanwhile, the longest first. */
async function tasksOf(part) {
  const client = await page.createCDPSession();
  await client.send('Tracing.start', {
    transferMode: 'ReturnAsStream',
    // As plain text a trace takes longer to read than the part takes to run.
    streamCompression: 'gzip',
    traceConfig: {includedCategories: ['toplevel'], excludedCategories: ['*'], enableArgumentFilter: true},
  });
  await part();
  const ended = once(client, 'Tracing.tracingComplete');
  await client.send('Tracing.end');
  const [{stream}] = await ended;
  const {traceEvents} = JSON.parse(gunzipSync(await readStream(client, stream)));
  await client.detach();
  const isMainThread = ({name, args}) => name === 'thread_name' && args.name === 'CrRendererMain';
  const threads = new Set(traceEvents.filter(isMainThread).map(({pid, tid}) => `${pid} ${tid}`));
  const tasks = traceEvents.filter(
    ({name, pid, tid}) => name === 'ThreadControllerImpl::RunTask' && threads.has(`${pid} ${tid}`),
  );
  expect(tasks.length > 10, `The trace of ${part.name} has ${tasks.length} tasks of the main thread.`);
  // On a busy machine a task waits for its core; tdur leaves this out.
  return tasks.map(({tdur}) => (tdur ?? 0) / 1000).sort((a, b) => b - a);
}

async function readStream(client, handle) {
  const chunks = [];
  for (;;) {
    const {data, base64Encoded, eof} = await client.send('IO.read', {handle, size: 10_000_000});
    chunks.push(Buffer.from(data, base64Encoded ? 'base64' : 'utf8'));
    if (eof) {
      await client.send('IO.close', {handle});
      return Buffer.concat(chunks);
    }
  }
}

async function checkFirstAnswer() {
  await page.goto(url);
  const opened = Date.now();
  await untilRows(18);
  const answered = Date.now() - opened;
  console.log(`The first answer took ${answered} ms.`);
  expect(answered < FIRST_ANSWER_MS, `The first answer took ${answered} ms.`);
  await until(() => /\d/.test(document.querySelector('.accuracy .figure').textContent));
  expect((await accuracy()) > LEAST_ACCURACY, `The held-out accuracy is ${await accuracy()} %.`);
  expect((await textOf('.reads')).endsWith('is right'), 'The first digit is read wrongly.');
  const fileOf = (path) => readFileSync(join(demoFolder, path === '/' ? 'index.html' : path));
  const files = [...new Set(requested)].filter((path) => path.startsWith('/'));
  const bytes = files.reduce((sum, path) => sum + gzipSync(fileOf(path)).length, 0);
  console.log(`Before more is asked for, ${files.length} files of ${(bytes / 1000).toFixed(0)} kB are transferred.`);
  expect(bytes < MAX_FIRST_BYTES, `The first files are ${bytes} bytes: ${files}`);
}

async function checkDrawing() {
  await click('Clear');
  await untilRows(0);
  const pad = await page.$('#pad');
  const {x, y, width, height} = await pad.boundingBox();
  await page.mouse.move(x + 0.5 * width, y + 0.15 * height);
  await page.mouse.down();
  await page.mouse.move(x + 0.5 * width, y + 0.85 * height, {steps: 12});
  await page.mouse.up();
  await untilRows(18);
  await until(() => document.querySelector('.digit').textContent === '1');
  await until(() => location.hash.includes('strokes='));
  await pad.focus();
  await page.keyboard.press('7');
  await until(() => document.querySelector('.digit').textContent === '7');
  passes();
}

/** The address of an edited net shows the same net in a new page. */
async function checkAddress() {
  await click('Silence');
  await until(() => location.hash.includes('silent=6'));
  const again = await openPage(`${url}${await page.evaluate(() => location.hash)}`);
  await again.waitForFunction(
    () => document.querySelector('#draw .silent') != null && /\d/.test(document.querySelector('.digit').textContent),
    {timeout: TIMEOUT_MS},
  );
  const digit = await again.$eval('.digit', (element) => element.textContent);
  expect(digit === (await textOf('.digit')), `The address of a ${await textOf('.digit')} shows a ${digit}.`);
  await again.close();
  await page.bringToFront();
  await click('All as trained');
}

async function checkEdits() {
  const before = await accuracy();
  await click('Expert 6');
  await click('Silence');
  await until(() => document.querySelectorAll('.expert')[6].querySelectorAll('.row').length === 0);
  await until((was) => parseFloat(document.querySelector('.accuracy .figure').textContent) !== was, before);
  await until(() => location.hash.includes('silent=6'));
  passes();
  await click('Silence');
  await click('Clone over 7');
  await click('Boost');
  await until(() => /clone=6-7/.test(location.hash) && /boost=6x2/.test(location.hash));
  passes();
  await click('All as trained');
  await until((was) => parseFloat(document.querySelector('.accuracy .figure').textContent) === was, before);
  passes();
  await click('× 0.5');
  await until(() => document.querySelectorAll('.row.dropped').length > 0);
  expect((await numRows('.row')) === 18, 'Kept and dropped patches are not 18.');
  await click('any');
  await untilRows(18);
}

/** The rows of the page are where the device put them. */
async function checkPermutation() {
  await click('Permute');
  await page.waitForSelector('.permutation[aria-label="Rows in the order of experts"]');
  const {tops, permutedIdx} = await page.evaluate(() => {
    const rows = [...document.querySelectorAll('.permutation li')];
    const arrays = [...document.querySelectorAll('.array')];
    return {
      tops: rows.map((row) => Number(/translateY\((\d+)px/.exec(row.getAttribute('style'))[1])),
      permutedIdx: arrays[1].textContent.match(/\d+/g).map(Number),
    };
  });
  await click('Unpermute');
  const order = tops.map((_, slot) => slot).sort((a, b) => tops[a] - tops[b]);
  expect(order.join() === permutedIdx.join(), `Rows lie in the order ${order}, not ${permutedIdx}.`);
}

const evenness = () => textOf('#train .figures div:nth-child(3) dd').then(Number);
const untilEvenness = (is) =>
  until(`(${is})(Number(document.querySelector('#train .figures div:nth-child(3) dd').textContent))`);
const untilButton = (section, name) =>
  until(
    (inside, wanted) =>
      [...document.querySelectorAll(`${inside} button`)].some((one) => one.textContent.trim() === wanted),
    section,
    name,
  );

/** The load of experts collapses without balance, and the bias alone brings it back. */
async function checkTraining() {
  await page.$eval('#train', (section) => section.scrollIntoView({behavior: 'instant'}));
  await until(() => document.querySelectorAll('#train .uplot canvas').length === 2);
  await click('By the bias');
  await untilEvenness((value) => value < 0.5);
  await until(() => document.querySelector('.story p').textContent.includes('with the balancing bias'));
  const collapsed = await evenness();
  await until(() => document.querySelector('.story p').textContent === '');
  const recovered = await evenness();
  console.log(`The entropy of the load went from ${collapsed} to ${recovered} of uniform.`);
  expect(collapsed < 0.4, `Without balance the entropy of the load is ${collapsed} of uniform.`);
  expect(recovered > 0.8, `With the balancing bias the entropy of the load is ${recovered} of uniform.`);
  expect(await page.evaluate(() => location.hash.includes('bias=0.02')), 'The address has no balancing bias.');
  // Firefox lets nobody look into a worker.
  const worker = page.workers()[0];
  const numTensors = () => worker.evaluate(() => globalThis._tfengine.state.numTensors);
  const before = await numTensors();
  await click('Step');
  await untilButton('#train', 'Train');
  await click('Another digit');
  await until(() => document.querySelectorAll('.row').length === 9);
  await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 500)));
  expect((await numTensors()) === before, `${(await numTensors()) - before} tensors were not disposed of.`);
  await click('Trained weights');
  await click('2');
  await untilRows(18);
}

/** A few steps from new weights, with the balancing loss. */
async function checkShortTraining() {
  await click('New weights');
  await until(() => parseFloat(document.querySelector('.accuracy .figure').textContent) < 50);
  await click('Train');
  await until(() => Number(/Step (\d+)/.exec(document.querySelector('#train .note').textContent)?.[1]) >= 20);
  await click('Pause');
  await untilButton('#train', 'Train');
  const after = parseFloat(await textOf('#train .figures div:nth-child(2) dd'));
  expect(after > 50, `After 20 steps from new weights the accuracy is ${after} %.`);
  await click('Trained weights');
  await untilRows(18);
}

async function checkMachine() {
  await click('Measure');
  await page.waitForSelector('#machine table');
  const kernels = await page.$$eval('#machine tbody tr', (rows) =>
    rows.map((row) => row.firstElementChild.textContent),
  );
  for (const name of ['MoeTopK', 'MoePermute', 'MoeUnpermute']) {
    expect(kernels.includes(name), `The table of kernels has no ${name}, but ${kernels}.`);
  }
  const launches = await page.$$eval('#machine tbody td:nth-child(2)', (cells) => cells.map((one) => one.textContent));
  // JavaScript launches nothing.
  const wanted = isChromium ? /^[1-9]/ : /^–$/;
  expect(
    launches.every((text) => wanted.test(text)),
    `The kernels have ${launches} launches.`,
  );
}

const numLetters = () => numRows('.spoken span');
const untilBits = () => until(() => /\d/.test(document.querySelector('#text .figure').textContent));
const bits = () => page.$eval('#text .figure', (element) => parseFloat(element.textContent));

/** Characters that are typed go to their experts, and the model goes on from them. */
async function checkSpeech() {
  const {length} = 'And the LORD said';
  await page.focus('#text input[type=text]');
  await until((wanted) => document.querySelectorAll('.spoken span').length === wanted, length);
  await page.keyboard.press('End');
  await page.keyboard.type(' unto');
  await until((wanted) => document.querySelectorAll('.spoken span').length === wanted, length + 5);
  expect((await page.$$('.routes .chip')).length === 6, 'Not all experts of the last character are told.');
  const weights = await page.$$eval('.routes dd span', (all) =>
    all.map((one) => Number(/(\d+) %/.exec(one.textContent)[1])),
  );
  const sums = [0, 2, 4].map((first) => weights[first] + weights[first + 1]);
  expect(
    sums.every((sum) => Math.abs(sum - 100) <= 1),
    `The weights of a character are ${weights} %.`,
  );
  await click('Speak');
  await until((least) => document.querySelectorAll('.spoken span').length >= least, length + 5 + 20);
  await click('Stop');
  await untilButton('#text', 'Speak');
  expect((await textOf('.spoken')).startsWith('And the LORD said unto'), 'The speech does not begin with its prompt.');
  const colored = await page.$eval('.heat-map canvas', (canvas) => {
    const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    return data.reduce((sum, value, i) => sum + (i % 4 === 0 && Math.abs(value - data[i + 2]) > 20 ? 1 : 0), 0);
  });
  // Two experts in each of three layers, 4 x 4 pixels each, of which some are pale.
  expect(colored > (await numLetters()) * 3 * 16, `The heat map has ${colored} coloured pixels.`);
}

/** A silenced expert of the language model gets no character, the loss answers, and the address has it. */
async function checkTextEdits() {
  await untilBits();
  const before = await bits();
  const mostUsed = await page.$eval('.routes .chip', (chip) => Number(chip.textContent));
  await page.$$eval('.characters button', (buttons, expert) => buttons[expert].click(), mostUsed);
  await page.waitForSelector('#text .edit .chip');
  await page.$eval('#text .edit button', (button) => button.click());
  await until((expert) => location.hash.includes(`silent.0=${expert}`), mostUsed);
  await until((expert) => document.querySelectorAll('.characters li > span')[expert].textContent === '', mostUsed);
  await until((was) => parseFloat(document.querySelector('#text .figure').textContent) > was, before);
  passes();
  await page.$eval('#text .edit > :last-child', (button) => button.click());
  await until((was) => parseFloat(document.querySelector('#text .figure').textContent) === was, before);
  passes();
}

/** Two steps of a new model of text, whose text is asked for by a button that says how large it is. */
async function checkTextTraining() {
  const size = Number(/(\d+) kB/.exec(await textOf('#train-text .primary'))[1]);
  const bytes = readFileSync(join(demoFolder, 'text', 'training.text')).length;
  expect(Math.abs(bytes / 1000 - size) < 5, `The button says ${size} kB, but the text has ${bytes} bytes.`);
  expect(
    !requested.some((path) => path.endsWith('training.text')),
    'The text was transferred before it was asked for.',
  );
  await page.$$eval('#train-text button', (buttons) =>
    buttons.find((one) => one.textContent.trim() === 'New weights').click(),
  );
  await until(() => document.querySelectorAll('#text form .choices button').length === 2);
  await page.$eval('#train-text .primary', (button) => button.click());
  const bitsOfStep = () => page.$eval('#train-text dd', (element) => parseFloat(element.textContent));
  await until(() => /Step 1:/.test(document.querySelector('#train-text').textContent));
  const first = await bitsOfStep();
  await until(() => Number(/Step (\d+):/.exec(document.querySelector('#train-text').textContent)[1]) >= 6);
  await click('Pause');
  const last = await bitsOfStep();
  expect(last < first - 0.5, `The training of text went from ${first} to ${last} bits.`);
  await page.waitForFunction(() => document.querySelector('#train-text .primary').textContent.trim() === 'Train');
}

/** A training that is asked for while new weights are made trains them; an address names a layer that they have not. */
async function checkQuickClicks() {
  await page.$$eval('#train-text button', (buttons) => {
    const named = (name) => buttons.find((one) => one.textContent.trim() === name);
    named('New weights').click();
    named('Step').click();
  });
  await until(() => /Step 1:/.test(document.querySelector('#train-text').textContent));
  await untilButton('#train-text', 'Train');
  expect((await textOf('#train-text .note')) === '', `The training says: ${await textOf('#train-text .note')}`);
  await until(() => document.querySelectorAll('#text form .choices button').length === 2);
  await page.evaluate(() => (location.hash = 'layer=2'));
  await until(() => location.hash === '#layer=1');
  await until(() => document.querySelectorAll('.spoken span').length === 'And the LORD said'.length);
  passes();
}

async function checkBackend(name) {
  const ids = await idsOf();
  await click(name);
  await until((wanted) => document.querySelector('.runs-on [aria-pressed=true]').textContent.trim() === wanted, name);
  await untilRows(18);
  expect((await idsOf()) === ids, `On ${name} patches go to other experts: ${await idsOf()}, not ${ids}.`);
}

const checkWebGPU = () => checkBackend('webgpu');
const checkWebGL = () => checkBackend('webgl');
const checkCpu = () => checkBackend('cpu');

async function checkLayout() {
  await page.evaluate(axe);
  // Firefox takes no scheme from here, and shows its own.
  for (const scheme of isChromium ? ['light', 'dark'] : ['light']) {
    if (isChromium) {
      await page.emulateMediaFeatures([
        {name: 'prefers-color-scheme', value: scheme},
        {name: 'prefers-reduced-motion', value: 'reduce'},
      ]);
    }
    for (const width of WIDTHS) {
      await page.setViewport({width, height: HEIGHT});
      const pageWidth = await page.evaluate(() => document.documentElement.scrollWidth);
      expect(pageWidth <= width, `At ${width} px the page lays out at ${pageWidth}.`);
      // Colours differ by the scheme, and what is shown by the width.
      if (width === (scheme === 'light' ? 1280 : 390)) {
        const {violations} = await page.evaluate(() => globalThis.axe.run());
        const found = violations.map(
          ({id, nodes}) => `${id}: ${nodes.map(({html}) => html.slice(0, 120)).join(' | ')}`,
        );
        expect(violations.length === 0, `axe-core at ${width} px, ${scheme}: ${found.join('\n')}`);
      }
    }
  }
}

/** Runs a part of the check, and prints how long it took. */
async function timed(part) {
  const began = Date.now();
  await part();
  console.log(`${part.name} took ${((Date.now() - began) / 1000).toFixed(1)} s.`);
}

/** A part in which the page must never be blocked, where the browser tells it. */
async function timedUse(part) {
  if (!isChromium) {
    return timed(part);
  }
  const began = Date.now();
  const [longest, next] = await tasksOf(part);
  const took = ((Date.now() - began) / 1000).toFixed(1);
  const tasks = `${longest.toFixed(0)} and ${next.toFixed(0)} ms`;
  console.log(`${part.name} took ${took} s; the longest tasks of the page computed for ${tasks}.`);
  expect(next < LONG_TASK_MS && longest < LONGEST_TASK_MS, `In ${part.name} the page was blocked for ${tasks}.`);
}

try {
  await timed(checkFirstAnswer);
  // Chromium does all. Firefox does what engines do differently: pixels, keys, workers, modules, and webgpu, which here
  // is a GPU that is software, as for Chromium's webgl.
  if (isChromium) {
    for (const part of [
      ...[checkDrawing, checkEdits, checkPermutation, checkTraining],
      ...[checkSpeech, checkTextEdits, checkTextTraining],
    ]) {
      await timedUse(part);
    }
    await timed(checkAddress);
    await timed(checkQuickClicks);
  } else {
    await timed(checkWebGPU);
    for (const part of [checkDrawing, checkShortTraining, checkSpeech]) {
      await timed(part);
    }
  }
  await timed(checkLayout);
  await timed(isChromium ? checkWebGL : checkCpu);
  await timed(checkMachine);
} catch (error) {
  fails(`${error.message}, at ${seconds()}`);
} finally {
  await browser.close();
  stop();
}
console.log(`It took ${seconds()}.`);
printPageCounts();
