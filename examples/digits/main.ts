/** `npm start` in Node.js: [--backend cpu|webgpu] [--digits n] [--epochs n] [--quantize]. */
import {parseArgs} from 'node:util';
import {startNodeBackend} from '../shared/node_backend';
import {runMain} from '../shared/run_main';
import {amountsOf} from './amounts';
import {printQuantized} from './quantized';
import {readDigits} from './read_digits';
import {trainBoth} from './training';

const {values: flags} = parseArgs({
  options: {
    backend: {type: 'string', default: 'cpu'},
    digits: {type: 'string'},
    epochs: {type: 'string'},
    quantize: {type: 'boolean'},
  },
});

async function main(): Promise<void> {
  const start = performance.now();
  const amounts = amountsOf(flags.digits, flags.epochs);
  await startNodeBackend(flags.backend);
  const missed = await trainBoth(readDigits(), amounts, {
    print: console.log,
    onTrained: async (_, trained, result, heldOut) => {
      if (flags.quantize === true) {
        await printQuantized(trained, result, heldOut, console.log);
      }
    },
  });
  console.log(`\nAll of it took ${((performance.now() - start) / 1000).toFixed(0)} s.`);
  if (missed.length > 0) {
    throw new Error(missed.join('\n'));
  }
}

runMain(main);
