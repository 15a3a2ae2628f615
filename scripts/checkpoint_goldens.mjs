/**
 * Copies what the specs of families need of a folder of reference models into test/golden/checkpoints:
 * `node scripts/checkpoint_goldens.mjs <folder>`. Each case of the folder has config.json, model.safetensors and
 * case.json, in which transformers recorded inputs and outputs of MoE blocks. Of one layer of each case, the tensors of
 * its block are copied without a change, with a few tokens in and out.
 */
import {mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {fail, parseCommandLine} from './command_line.mjs';
import {root} from './set_up.mjs';

const usage = 'node scripts/checkpoint_goldens.mjs <folder of reference models>';
const {words} = parseCommandLine(usage, {}, true);
if (words.length !== 1) {
  fail(usage);
}
const [source] = words;
const target = join(root, 'test', 'golden', 'checkpoints');
const NUM_TOKENS = 4;
/** Other cases have the same tensors or the same choice of experts. */
const skipped = ['deepseek_v2_group', 'olmoe_norm'];
/** Families whose blocks these ops cannot do: their configs are enough. */
const refused = ['gemma4_text'];
/** Tensors beside the blocks that have experts, which no MoE block reads. */
const others = /self_att|attention|\.attn\.|norm|\.hc_|mlps\.|mamba|linear_attn|layer_scalar|conv\b/;

const readJson = (file) => JSON.parse(readFileSync(file, 'utf8'));

/** The header, and the bytes after it. */
function readSafetensors(file) {
  const bytes = readFileSync(file);
  const end = 8 + Number(bytes.readBigUInt64LE(0));
  return {header: JSON.parse(bytes.subarray(8, end).toString()), data: bytes.subarray(end)};
}

/** The bytes of a file with the tensors that `isChosen` chooses by name. */
function chosenTensors({header, data}, isChosen) {
  const chosen = {};
  const parts = [];
  let size = 0;
  for (const name of Object.keys(header).filter(isChosen)) {
    const {
      data_offsets: [begin, end],
      ...tensor
    } = header[name];
    parts.push(data.subarray(begin, end));
    chosen[name] = {...tensor, data_offsets: [size, (size += end - begin)]};
  }
  const json = Buffer.from(JSON.stringify(chosen));
  const padded = Buffer.concat([json, Buffer.alloc(-json.length & 7, ' ')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  return Buffer.concat([length, padded, ...parts]);
}

/** The tokens' rows of nested values, which have any leading axes before the last. */
const rowsOf = (values) => (Array.isArray(values[0][0]) ? values.flatMap(rowsOf) : values);

function caseOf({layerIndex, input, output, parts}, transformers) {
  const tokens = (values) => rowsOf(values).slice(0, NUM_TOKENS);
  const shared = parts['../shared_mlp'] && tokens(parts['../shared_mlp'].outputs);
  const out = tokens(output).map((row, t) => row.map((value, h) => value + (shared?.[t][h] ?? 0)));
  const [ids] = parts.experts?.inputs?.length === 2 ? parts.experts.inputs : [];
  return {
    transformers,
    layerIndex,
    input: tokens(input),
    output: out,
    ...(ids && {ids: tokens(ids)}),
  };
}

rmSync(target, {recursive: true, force: true});
let total = 0;
for (const name of readdirSync(source)
  .sort()
  .filter((name) => !skipped.includes(name))) {
  const folder = join(source, name);
  const {layers, transformers_version: version} = readJson(join(folder, 'case.json'));
  const layer = layers[layers.length - 1];
  const number = `.${layer.layerIndex}.`;
  const isOfBlock = (tensor) => {
    const [before, after] = tensor.split(number);
    return after != null && /(layers|blocks)$/.test(before) && !others.test(tensor);
  };
  const files = {'config.json': readFileSync(join(folder, 'config.json'))};
  if (!refused.includes(name)) {
    files['model.safetensors'] = chosenTensors(readSafetensors(join(folder, 'model.safetensors')), isOfBlock);
    files['case.json'] = Buffer.from(`${JSON.stringify(caseOf(layer, version))}\n`);
  }
  mkdirSync(join(target, name), {recursive: true});
  for (const [file, bytes] of Object.entries(files)) {
    writeFileSync(join(target, name, file), bytes);
    total += bytes.length;
  }
}
console.log(`${(total / 1e6).toFixed(2)} MB in ${target}`);
