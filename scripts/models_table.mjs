/**
 * Writes the table of docs/language_models.md that compares models with transformers: for each case of
 * test/golden/models, the largest difference of a logit on cpu, of the largest logit.
 */
import {readdirSync, readFileSync, writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {join} from 'node:path';
import {bundleForNode} from './bundle.mjs';
import {root} from './set_up.mjs';

const page = join(root, 'docs', 'language_models.md');
const goldens = join(root, 'test', 'golden', 'models');

const bundle = await bundleForNode('models_table', {
  stdin: {
    contents: `
      import * as tf from './src/tf';
      export {tf};
      export {loadMoeLanguageModel} from './src/models/index';
      export {partsOf} from './src/models/decoder';
      export {Decoding} from './src/models/decoding';`,
    resolveDir: root,
  },
});
const {tf, loadMoeLanguageModel, partsOf, Decoding} = createRequire(import.meta.url)(bundle);
await tf.setBackend('cpu');

/** Of the largest. */
function difference(logits, wanted) {
  const [given, expected] = [logits.dataSync(), wanted.flat(Infinity)];
  const largest = Math.max(...expected.map(Math.abs));
  return Math.max(...expected.map((value, i) => Math.abs(given[i] - value))) / largest;
}

const idTensor = (ids) => tf.tensor2d(ids, undefined, 'int32');
const lastOf = ({logits}) => logits.map((sequence) => sequence[sequence.length - 1]);

const rows = [];
for (const name of readdirSync(goldens).sort()) {
  const folder = join(goldens, name);
  const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'));
  const {whole, single, decode} = JSON.parse(readFileSync(join(folder, 'case.json'), 'utf8'));
  const model = await loadMoeLanguageModel(new Uint8Array(readFileSync(join(folder, 'model.safetensors'))), config);
  const predicted = ({ids, positions, logits}) =>
    difference(tf.gather(model.predict(idTensor(ids)), positions, 1), logits);
  const atOnce = new Decoding(partsOf(model, 'models_table'), whole.ids.length, whole.ids[0].length + 1);
  atOnce.read(idTensor(whole.ids));
  const step = difference(atOnce.next(decode.ids.flat()), lastOf(decode));
  const oneByOne = new Decoding(partsOf(model, 'models_table'), whole.ids.length, whole.ids[0].length);
  const last = whole.ids[0].map((_, position) => oneByOne.next(whole.ids.map((ids) => ids[position]))).pop();
  const differences = [predicted(whole), predicted(single), step, difference(last, lastOf(whole))];
  rows.push([`\`${config.model_type}\``, ...differences.map((value) => value.toExponential(1))]);
}

const line = (cells) => `| ${cells.join(' | ')} |`;
const header = ['model_type', 'all positions', 'one position', 'a step after a prompt', 'one by one'];
const table = [line(header), line(header.map(() => '---')), ...rows.map(line)].join('\n');
console.log(table);
const [begin, end] = ['<!-- truth: begin -->', '<!-- truth: end -->'];
const text = readFileSync(page, 'utf8');
writeFileSync(page, `${text.split(begin)[0]}${begin}\n${table}\n${end}${text.split(end)[1]}`);
