/**
 * `npm start`: trains a small mixture of experts on handwritten digits, with and without the balancing loss.
 * `npm start -- text`: trains a small language model that has mixtures of experts; `--speak` lets a trained one write.
 */
import {fail, parseCommandLine} from './command_line.mjs';
import {ensureNpmPackages} from './set_up.mjs';

const usage = `npm start [-- --backend cpu|webgpu] [--digits n] [--epochs n] [--quantize]        in Node.js
npm start -- chromium|firefox [--backend webgpu|webgl|cpu] [--digits n] [--epochs n]    in that browser
npm start -- page                                                    serves the page for a browser of yours

--quantize prints what the accuracy is with quantized experts.

npm start -- text [--backend cpu|webgpu] [--steps n] [--save folder [--format int4|int8]]    in Node.js
npm start -- text --speak [--prompt words] [--length n] [--backend cpu|webgpu]               in Node.js

text is a language model that learns to write. --save writes it as a folder of Hugging Face, with experts in float32 or
in --format. --speak trains nothing: the model of examples/text/weights writes on after the prompt.`;

/** Flags of each example, and its places. */
const examples = {
  digits: {flags: ['backend', 'digits', 'epochs', 'quantize'], places: ['node', 'chromium', 'firefox', 'page']},
  text: {flags: ['backend', 'steps', 'save', 'format', 'speak', 'prompt', 'length'], places: ['node']},
};

const options = {
  backend: {type: 'string'},
  digits: {type: 'string'},
  epochs: {type: 'string'},
  quantize: {type: 'boolean'},
  steps: {type: 'string'},
  save: {type: 'string'},
  format: {type: 'string'},
  speak: {type: 'boolean'},
  length: {type: 'string'},
  prompt: {type: 'string'},
};
const {flags, words} = parseCommandLine(usage, options, true);
const example = words[0] === 'text' ? 'text' : 'digits';
const [place = 'node', ...others] = words[0] === 'text' ? words.slice(1) : words;
if (!examples[example].places.includes(place) || others.length > 0) {
  fail(
    `npm start runs digits in node, chromium or firefox, or serves its page, and text in node, ` +
      `but was given '${words.join(' ')}'.\n\n${usage}`,
  );
}
for (const name of Object.keys(flags)) {
  if (!examples[example].flags.includes(name)) {
    fail(`--${name} is not for the example ${example}.\n\n${usage}`);
  }
}
if (flags.quantize && place !== 'node') {
  fail(`--quantize is for Node.js, but was given with ${place}.\n\n${usage}`);
}
ensureNpmPackages();

if (place === 'node') {
  const {runBundled} = await import('./bundle.mjs');
  const args = Object.entries(flags).flatMap(([name, value]) =>
    value === true ? [`--${name}`] : [`--${name}`, value],
  );
  await runBundled(example, `examples/${example}/main.ts`, args);
} else {
  const {serveExample} = await import('./serve_example.mjs');
  const served = await serveExample();
  const {url} = served;
  const address = Object.keys(flags).length === 0 ? url : `${url}?${new URLSearchParams(flags)}`;
  if (place === 'page') {
    console.log(`The example is at\n\n  ${address}\n\nbackend=webgpu, webgl or cpu in it chooses. Ctrl+C ends it.`);
  } else {
    const {runPage} = await import('./serve_page.mjs');
    const {error} = await runPage(served, address, place).catch(({message}) => ({error: message}));
    if (error != null) {
      console.error(error);
      process.exitCode = 1;
    }
  }
}
