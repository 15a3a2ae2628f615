/**
 * Copies what the specs of language models need of a folder of reference models into test/golden/models:
 * `node scripts/model_goldens.mjs <folder>`. Each case of the folder has config.json, model.safetensors and case.json,
 * in which transformers recorded token ids and logits.
 */
import {copyFileSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {fail, parseCommandLine} from './command_line.mjs';
import {root} from './set_up.mjs';

const usage = 'node scripts/model_goldens.mjs <folder of reference models>';
const {words} = parseCommandLine(usage, {}, true);
if (words.length !== 1) {
  fail(usage);
}
const [source] = words;
const target = join(root, 'test', 'golden', 'models');
/** One case of each family. */
const names = ['gpt_oss', 'granitemoe', 'granitemoeshared', 'mixtral', 'olmoe', 'qwen2_moe', 'qwen3_moe_raw'];
/** Of each sequence. The others follow from these, as every position sees those before it. */
const positions = [1, 6];

/** Rounded to the digits that float32 has. */
const rounded = (logits) => logits.map((value) => Number(value.toPrecision(7)));

/** Recorded ids [B, S], and the logits at some positions, or at all. */
const recorded = ({input_ids: ids, logits}, at = ids[0].map((_, position) => position)) => ({
  ids,
  positions: at,
  logits: logits.map((sequence) => at.map((position) => rounded(sequence[position]))),
});

rmSync(target, {recursive: true, force: true});
let total = 0;
for (const name of names) {
  const read = JSON.parse(readFileSync(join(source, name, 'case.json'), 'utf8'));
  const {transformers_version: transformers, single, decode} = read;
  const kept = {
    transformers,
    whole: recorded(read, positions),
    single: recorded(single),
    decode: recorded(decode),
  };
  const folder = join(target, name);
  mkdirSync(folder, {recursive: true});
  for (const file of ['config.json', 'model.safetensors']) {
    copyFileSync(join(source, name, file), join(folder, file));
  }
  writeFileSync(join(folder, 'case.json'), `${JSON.stringify(kept)}\n`);
  total += ['config.json', 'model.safetensors', 'case.json'].reduce(
    (sum, file) => sum + statSync(join(folder, file)).size,
    0,
  );
}
console.log(`${(total / 1e6).toFixed(2)} MB in ${target}`);
