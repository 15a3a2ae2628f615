/** `npm start -- text` in Node.js: see `npm start -- --help`. */
import {readFileSync} from 'node:fs';
import {mkdir, readFile, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {parseArgs} from 'node:util';
import * as tf from '../../src/tf';
import {startNodeBackend} from '../shared/node_backend';
import {countOf} from '../shared/count_of';
import {runMain} from '../shared/run_main';
import {amountsFor} from './amounts';
import {type ExpertFormat, expertFormats, quantizedFiles} from './quantized_files';
import {speak} from './speaking';
import {describeExperts, describeText, inColor} from './terminal';
import {loadTextModel, type ReadFile} from './text_model';
import {lineOf, PROMPT, type Trained, trainOnText} from './training';

/** Relative to the repository's root, where `npm start` runs. */
const TEXT_FILE = 'examples/text/kjv.txt';
const KEPT_MODEL = 'examples/text/weights';
const SPOKEN_LENGTH = 400;

const {values: flags} = parseArgs({
  options: {
    backend: {type: 'string', default: 'cpu'},
    steps: {type: 'string'},
    save: {type: 'string'},
    format: {type: 'string'},
    speak: {type: 'boolean', default: false},
    prompt: {type: 'string'},
    length: {type: 'string'},
  },
});
const hasColors = process.stdout.isTTY === true && process.env.NO_COLOR == null;

function checkFlags(): void {
  const {speak: speaks, save: folder, format} = flags;
  const others = speaks ? (['steps', 'save', 'format'] as const) : (['prompt', 'length'] as const);
  const other = others.find((name) => flags[name] != null);
  if (other != null) {
    throw new Error(`--${other} is for ${speaks ? 'training, and --speak trains nothing' : '--speak'}.`);
  }
  if (format != null && folder == null) {
    throw new Error('--format is for --save.');
  }
  if (format != null && !(format in expertFormats)) {
    throw new Error(`--format must be ${Object.keys(expertFormats).join(' or ')}, but is '${format}'.`);
  }
}

const filesIn =
  (folder: string): ReadFile =>
  async (name) => {
    const {buffer, byteOffset, byteLength} = await readFile(join(folder, name));
    return buffer.slice(byteOffset, byteOffset + byteLength) as ArrayBuffer;
  };

/** Writes the model as a folder of Hugging Face, with the ids of its characters. */
async function save({model, config, alphabet, heldOutBitsOf}: Trained, folder: string): Promise<void> {
  const {format} = flags;
  const files =
    format == null
      ? await tf.languageModelFiles(model, config)
      : await quantizedFiles(model, config, format as ExpertFormat);
  await mkdir(folder, {recursive: true});
  for (const [name, blob] of Object.entries(files)) {
    await writeFile(join(folder, name), new Uint8Array(await blob.arrayBuffer()));
  }
  await writeFile(join(folder, 'vocab.json'), `${JSON.stringify(alphabet.vocabulary, null, 2)}\n`);
  console.log(`\nThe model is in ${folder}; vocab.json has the ids of its characters.`);
  if (format != null) {
    const {model: read} = await loadTextModel(filesIn(folder));
    const [before, after] = [await heldOutBitsOf(model), await heldOutBitsOf(read)];
    read.dispose();
    console.log(
      `model.safetensors has ${files['model.safetensors'].size.toLocaleString('en-US')} bytes. With experts in ` +
        `${format}: ${after.toFixed(3)} bits a character of held-out text, in float32 ${before.toFixed(3)}.`,
    );
  }
}

async function train(): Promise<void> {
  const missed = await trainOnText(readFileSync(TEXT_FILE, 'utf8'), amountsFor(flags.backend, flags.steps), {
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
  if (missed.length > 0) {
    throw new Error(missed.join('\n'));
  }
}

/** Characters appear one by one, in the colours of the first layer's experts. */
async function speakFromFiles(): Promise<void> {
  const kept = await loadTextModel(filesIn(KEPT_MODEL));
  const prompt = flags.prompt ?? PROMPT;
  const length = flags.length == null ? SPOKEN_LENGTH : countOf('length', flags.length, 30_000);
  /** Between them, memory is flat: what is made once is there, and what ends has not ended. */
  const marks = [0.1, 0.9].map((part) => Math.ceil(part * length));
  const memory: string[] = [];
  let numTold = 0;
  const start = performance.now();
  const spoken = await speak(kept, prompt, {
    length,
    onCharacter: (character, [{experts}]) => {
      process.stdout.write(hasColors && character !== '\n' ? inColor(character, experts[0]) : character);
      numTold++;
      if (marks.includes(numTold)) {
        memory.push(`After ${numTold.toLocaleString('en-US')} characters ${describeMemory()}`);
      }
    },
  });
  const seconds = (performance.now() - start) / 1000;
  console.log(`\n\n${(length / seconds).toFixed(0)} characters/s\n${memory.join('\n')}`);
  console.log(`\n${describeText(spoken, hasColors)}`);
  kept.model.dispose();
}

function describeMemory(): string {
  const {numTensors, numBytesAllocatedInGPU: numBytes} = tf.memory() as tf.MemoryInfo & Record<string, unknown>;
  const ofDevice = typeof numBytes === 'number' ? ` and ${numBytes.toLocaleString('en-US')} bytes of the device` : '';
  return `${numTensors} tensors${ofDevice} are in use.`;
}

async function main(): Promise<void> {
  const start = performance.now();
  checkFlags();
  await startNodeBackend(flags.backend);
  await (flags.speak ? speakFromFiles() : train());
  console.log(`\nAll of it took ${((performance.now() - start) / 1000).toFixed(0)} s.`);
}

runMain(main);
