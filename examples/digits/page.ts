/** The example in a page: `?backend=webgpu|webgl|cpu&digits=n&epochs=n`. Its lines go to the server of the page. */
import {registerWebGPUBackend} from '../../src/webgpu';
import * as tf from '../../src/tf';
import {amountsOf} from './amounts';
import {type Digits, mixDigits, NUM_CLASSES} from './digits';
import {RunView, showEnd, showHeldOut, showStatus} from './page_views';
import {heldOutDigits, runs, trainBoth} from './training';

const parameters = new URLSearchParams(location.search);
const post = (path: string, body: string) => fetch(path, {method: 'POST', body});

/** Lines arrive in the order in which they were printed. */
let lastLine: Promise<unknown> = Promise.resolve();
function print(line: string): void {
  lastLine = lastLine.then(() => post('line', line)).catch(() => {});
}

/** Shows the next step, in a frame that the browser paints before the step. */
async function announce(text: string): Promise<void> {
  showStatus(text);
  await tf.nextFrame();
  await tf.nextFrame();
}

async function bestBackend(): Promise<string> {
  const adapter = 'gpu' in navigator ? await navigator.gpu.requestAdapter() : null;
  return adapter == null ? 'webgl' : 'webgpu';
}

async function startBackend(): Promise<void> {
  const name = parameters.get('backend') ?? (await bestBackend());
  if (name === 'webgpu') {
    await registerWebGPUBackend();
  }
  if (!(await tf.setBackend(name))) {
    throw new Error(`The backend '${name}' cannot start here.`);
  }
  document.querySelector('#backend')!.textContent = name;
}

async function loadDigits(): Promise<Digits> {
  let numLoaded = 0;
  const pixelsOf = async (digit: number) => {
    const response = await fetch(`digits/${digit}.json`);
    const {data} = (await response.json()) as {data: number[]};
    numLoaded++;
    showStatus(`Loading the digits: ${numLoaded} of ${NUM_CLASSES} kinds …`);
    return data;
  };
  return mixDigits(await Promise.all(Array.from({length: NUM_CLASSES}, (_, digit) => pixelsOf(digit))));
}

async function main(): Promise<string | null> {
  const start = performance.now();
  const amounts = amountsOf(parameters.get('digits'), parameters.get('epochs'));
  const views = new Map(runs.map((run) => [run, new RunView(run)]));
  await announce('Starting the backend …');
  await startBackend();
  await announce('Loading the digits …');
  const digits = await loadDigits();
  await announce('Preparing the first step, whose kernels are compiled …');
  const missed = await trainBoth(digits, amounts, {
    print,
    onBatch: (run, share) => {
      showStatus(`Training ${run.name} the balancing loss …`);
      views.get(run)!.showProgress(share);
    },
    onEpoch: (run, epoch) => views.get(run)!.addEpoch(epoch),
    onResult: (run, result) => {
      views.get(run)!.showResult(result);
      if (run === runs[0]) {
        showHeldOut(heldOutDigits(digits, amounts), result.predictions);
      }
    },
  });
  const seconds = `${((performance.now() - start) / 1000).toFixed(0)} s`;
  print(`\nAll of it took ${seconds}.`);
  showEnd(`Done in ${seconds}.`, 'done');
  return missed.length > 0 ? missed.join('\n') : null;
}

main()
  .catch((error: unknown) => String(error))
  .then(async (error) => {
    if (error != null) {
      showEnd(error, 'failed');
    }
    await lastLine;
    await post('done', JSON.stringify({error}));
  })
  .catch((error: unknown) => showEnd(String(error), 'failed'));
