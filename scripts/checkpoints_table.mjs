/**
 * Writes the tables of families into docs/checkpoints.md, from the layouts that src has and the cases that its specs
 * compare with transformers. With --check it only compares.
 */
import {readdirSync, readFileSync, writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {join} from 'node:path';
import {bundleForNode} from './bundle.mjs';
import {root} from './set_up.mjs';

const page = join(root, 'docs', 'checkpoints.md');
const goldens = join(root, 'test', 'golden', 'checkpoints');

const bundle = await bundleForNode('checkpoints_table', {
  stdin: {
    contents: `
      export {families, refusedFamilies} from './src/checkpoints/families/index';
      export {checkpointLayout} from './src/checkpoints/layouts';
      export {roundTrip} from './scripts/checkpoint_round_trips';`,
    resolveDir: root,
  },
});
const {families, refusedFamilies, checkpointLayout, roundTrip} = createRequire(import.meta.url)(bundle);

const cases = readdirSync(goldens)
  .sort()
  .map((name) => ({name, config: JSON.parse(readFileSync(join(goldens, name, 'config.json'), 'utf8'))}));

/** Families of which there is no case, and the family whose config has the keys. */
const configsOf = {qwen3_vl_moe_text: 'qwen3_moe'};
/** A cap on the logits is refused; the spec applies it by hand. */
const changes = {moe_router_logit_softcapping: 0};

/** The tensors' names after the layer's number, `{e}` for an expert's. */
function namesOf({tensors: {count, nameOf}}) {
  const names = Array.from({length: Math.min(count, 4)}, (_, i) => nameOf(i));
  return [...new Set(names.map((name) => name.replace(/^.*?\.0\./, '').replace(/\.\d+\./, '.{e}.')))];
}

/** The path of a name, with the dot that ends it. */
const pathOf = (name) => name.replace(/[^.]+(\.weight)?$/, '');

/** Names of one path: the first of them whole, and of the others what follows the path. */
function listed(weights) {
  const names = [...new Set(weights.filter((weight) => weight != null).flatMap(namesOf))];
  return [...new Set(names.map(pathOf))]
    .map((path) => names.filter((name) => pathOf(name) === path))
    .map(([first, ...others]) => [first, ...others.map((name) => `…${name.slice(pathOf(name).length)}`)])
    .map((group) => group.map((name) => `\`${name}\``).join(' '))
    .join(', ');
}

const rows = Object.keys(families).map((modelType) => {
  const ofFamily = cases.filter(({config}) => config.model_type === modelType);
  const example = ofFamily[0] ?? cases.find(({config}) => config.model_type === configsOf[modelType]);
  const config = {...example.config, ...changes, model_type: modelType};
  const {weights: w} = checkpointLayout(config, {layerIndex: 0, hasTensor: () => false}, 'checkpoints_table');
  const shared = listed([w.shared_w1, w.shared_w2, w.shared_gate]);
  return [
    `\`${modelType}\``,
    listed([w.router_kernel, w.router_bias, w.score_correction_bias]),
    listed([w.w1, w.w1_bias, w.w2, w.w2_bias]),
    shared || '–',
    ofFamily.map(({name}) => name).join(', ') || '–',
  ];
});

/** Each case, read from its file and written in each dtype. */
const trips = [];
for (const {name, config} of cases) {
  const folder = join(goldens, name);
  if (!(config.model_type in refusedFamilies) && !config.moe_router_logit_softcapping) {
    const file = new Uint8Array(readFileSync(join(folder, 'model.safetensors')));
    const recorded = JSON.parse(readFileSync(join(folder, 'case.json'), 'utf8'));
    const {isEqual, written} = await roundTrip({name, config, file, recorded});
    const yes = (is) => (is ? 'yes' : 'NO');
    const dtype = config.quantization_config?.quant_method ?? 'F32';
    trips.push([name, dtype, yes(isEqual), ...['F32', 'BF16', 'F16'].map((each) => yes(written[each]))]);
  }
}

const line = (cells) => `| ${cells.join(' | ')} |`;
const tableOf = (header, body) => [line(header), line(header.map(() => '---')), ...body.map(line)].join('\n');
const refused = Object.entries(refusedFamilies).map(([modelType, why]) => [`\`${modelType}\``, why]);
const tables = {
  families: tableOf(['model_type', 'router', 'experts', 'shared experts', 'cases'], rows),
  trips: tableOf(
    ['case', 'stored as', 'equal to transformers', 'written in F32: bytes equal', 'in BF16: equal', 'in F16: equal'],
    trips,
  ),
  refused: tableOf(['model_type', 'because'], refused),
};

const text = readFileSync(page, 'utf8');
let wanted = text;
for (const [name, table] of Object.entries(tables)) {
  const [begin, end] = [`<!-- ${name}: begin -->`, `<!-- ${name}: end -->`];
  wanted = `${wanted.split(begin)[0]}${begin}\n${table}\n${end}${wanted.split(end)[1]}`;
}
if (process.argv.includes('--check')) {
  if (text !== wanted) {
    console.error('docs/checkpoints.md differs from the families in src: run `node scripts/checkpoints_table.mjs`.');
    process.exitCode = 1;
  }
} else {
  writeFileSync(page, wanted);
}
