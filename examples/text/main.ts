/** `npm start -- text` in Node.js: [--backend cpu|webgpu] [--steps n] [--save folder]. */
import {readFileSync} from 'node:fs';
import {mkdir, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {parseArgs} from 'node:util';
import * as tf from '../../src/tf';
import {startNodeBackend} from '../shared/node_backend';
import {runMain} from '../shared/run_main';
import {amountsFor} from './amounts';
import {describeExperts} from './terminal';
import {lineOf, type Trained, trainOnText} from './training';

/** Relative to the repository's root, where `npm start` runs. */
const TEXT_FILE = 'examples/text/kjv.txt';

const {values: flags} = parseArgs({
  options: {backend: {type: 'string', default: 'cpu'}, steps: {type: 'string'}, save: {type: 'string'}},
});

/** Writes the model as a folder of Hugging Face, with the ids of its characters. */
async function save({model, config, alphabet}: Trained, folder: string): Promise<void> {
  const files = await tf.languageModelFiles(model, config);
  await mkdir(folder, {recursive: true});
  for (const [name, blob] of Object.entries(files)) {
    await writeFile(join(folder, name), new Uint8Array(await blob.arrayBuffer()));
  }
  await writeFile(join(folder, 'vocab.json'), `${JSON.stringify(alphabet.vocabulary, null, 2)}\n`);
  console.log(`\nThe model is in ${folder}, as transformers reads it; vocab.json has the ids of its characters.`);
}

async function main(): Promise<void> {
  const start = performance.now();
  const amounts = amountsFor(flags.backend, flags.steps);
  await startNodeBackend(flags.backend);
  const hasColors = process.stdout.isTTY === true && process.env.NO_COLOR == null;
  const missed = await trainOnText(readFileSync(TEXT_FILE, 'utf8'), amounts, {
    print: console.log,
    onReport: (report) => {
      console.log(`\n${lineOf(report)}`);
      console.log(describeExperts(report, hasColors));
    },
    onTrained: async (trained) => {
      if (flags.save != null) {
        await save(trained, flags.save);
      }
    },
  });
  console.log(`\nAll of it took ${((performance.now() - start) / 1000).toFixed(0)} s.`);
  if (missed.length > 0) {
    throw new Error(missed.join('\n'));
  }
}

runMain(main);
