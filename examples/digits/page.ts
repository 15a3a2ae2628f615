/** The example in a page: `?backend=webgpu|webgl|cpu&digits=n&epochs=n`. Its lines go to the server of the page. */
import * as tf from '../../src/tf';
import {startPageBackend} from '../shared/page_backend';
import {print, reportEnd} from '../shared/page_report';
import {amountsOf} from './amounts';
import {type Digits, mixDigits, NUM_CLASSES} from './digits';
import {RunView, showEnd, showHeldOut, showStatus} from './page_views';
import {heldOutDigits, runs, trainBoth} from './training';

const parameters = new URLSearchParams(location.search);

/** Shows the next step, in a frame that the browser paints before the step. */
async function announce(text: string): Promise<void> {
  showStatus(text);
  await tf.nextFrame();
  await tf.nextFrame();
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
  document.querySelector('#backend')!.textContent = await startPageBackend(parameters.get('backend'));
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
    await reportEnd(error);
  })
  .catch((error: unknown) => showEnd(String(error), 'failed'));
