/** The language model of `npm start -- text`, on a few lines. */
import {describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {amountsFor} from '../../examples/text/amounts';
import {alphabetOf, splitText} from '../../examples/text/characters';
import {configOf, expertLayers, NUM_EXPERTS, TOPK} from '../../examples/text/model';
import {type ExpertFormat, quantizedFiles} from '../../examples/text/quantized_files';
import {type Route, routesOf, unrecorded} from '../../examples/text/routes';
import {speak} from '../../examples/text/speaking';
import {describeExperts, describeText} from '../../examples/text/terminal';
import {filesAt, loadTextModel, type TextModel} from '../../examples/text/text_model';
import {type Report, type Trained, trainOnText} from '../../examples/text/training';
import keptConfig from '../../examples/text/weights/config.json';
import keptWeights from '../../examples/text/weights/model.safetensors';
import keptVocabulary from '../../examples/text/weights/vocab.json';

const SAMPLE_LENGTH = 12;
const lines = 'And God said, Let there be light: and there was light.\n'.repeat(800);
const amounts = {numLayers: 2, hiddenSize: 64, expertSize: 16, windowLength: 16, numSteps: 6, batchSize: 4, learningRate: 0.02, stepsPerReport: 3, sampleLength: SAMPLE_LENGTH};

/** The layers and kernels of such models have their own specs on every backend. */
const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};

const bytesOf = (value: object): ArrayBuffer => new TextEncoder().encode(JSON.stringify(value)).buffer as ArrayBuffer;

const keptFiles: {[name: string]: ArrayBuffer} = {
  'config.json': bytesOf(keptConfig),
  'vocab.json': bytesOf(keptVocabulary),
  'model.safetensors': keptWeights.slice().buffer as ArrayBuffer,
};
const readKept = async (name: string) => keptFiles[name];

/** The first expert of each character in each layer, by one call of the model on the whole text. */
async function firstExperts({model, alphabet}: TextModel, text: string): Promise<number[][]> {
  const layers = expertLayers(model);
  const routerInputs = tf.model({inputs: model.inputs, outputs: layers.map(({input}) => input as tf.SymbolicTensor)});
  const ids = tf.tensor2d([alphabet.encode(text)], undefined, 'int32');
  const states = [routerInputs.predict(ids)].flat() as tf.Tensor[];
  const experts = states.map((state, layer) => {
    const [routerKernel] = layers[layer].getWeights() as tf.Tensor2D[];
    const {topkIds} = tf.moeTopk(tf.matMul(tf.reshape(state, [text.length, -1]), routerKernel), TOPK);
    return tf.slice(topkIds, [0, 0], [-1, 1]);
  });
  return Promise.all(experts.map(async (ofLayer) => Array.from(await ofLayer.data())));
}

/** On webgpu steps are repeated without the JavaScript of layers. */
const cpuAndWebGPU = {predicate: ({backendName}: {backendName: string}) => ['cpu', 'webgpu'].includes(backendName)};

describeWithFlags('the experts of what is spoken', cpuAndWebGPU, () => {
  it('are those that one call on the whole text chooses', async () => {
    const kept = await loadTextModel(readKept);
    const options = {length: SAMPLE_LENGTH, seed: 4};
    const spoken = await speak(kept, 'In the ', options);
    const {numTensors} = tf.memory();
    expect(await speak(kept, 'In the ', options)).toEqual(spoken);
    expect(tf.memory().numTensors).toBe(numTensors);
    expect(spoken.experts).toEqual(await firstExperts(kept, spoken.text));
    kept.model.dispose();
  });
});

describeWithFlags('the kept model of the text example', cpu, () => {
  it('is small, expects the text that it learned, and speaks', async () => {
    expect(keptWeights.length).toBeLessThan(1.5e6);
    const {numTensors} = tf.memory();
    const kept = await loadTextModel(readKept);
    const verse = 'And God said, Let there be light: and there was light.';
    const bits = tf.tidy(() => {
      const ids = kept.alphabet.encode(verse);
      const logits = kept.model.predict(tf.tensor2d([ids.slice(0, -1)], undefined, 'int32')) as tf.Tensor;
      const next = tf.oneHot(tf.tensor2d([ids.slice(1)], undefined, 'int32'), kept.alphabet.size, 1, 0, 'float32');
      return tf.mul(tf.mean(tf.sum(tf.mul(next, tf.logSoftmax(logits)), -1)), -1 / Math.LN2);
    });
    expect((await bits.data())[0]).toBeLessThan(1.8);
    bits.dispose();

    const told: Array<[string, Route[]]> = [];
    const options = {length: SAMPLE_LENGTH, seed: 3};
    const spoken = await speak(kept, 'And the', {...options, onCharacter: (...each) => told.push(each)});
    expect(spoken.text.length).toBe('And the'.length + SAMPLE_LENGTH);
    expect(told.map(([character]) => character).join('')).toBe(spoken.text);
    expect(told.map(([, [{experts}]]) => experts[0])).toEqual(spoken.experts[0]);
    expect((await speak(kept, 'And the', options)).text).toBe(spoken.text);
    kept.model.dispose();
    expect(tf.memory().numTensors).toBe(numTensors);
  });

  it('tells the same routes where it is called meanwhile, or reads the text at once', async () => {
    const kept = await loadTextModel(readKept);
    const options = {length: SAMPLE_LENGTH, seed: 4};
    const spoken = await speak(kept, 'In the ', options);
    const ids = tf.tensor2d([[1, 2, 3]], undefined, 'int32');
    const call = () => unrecorded(kept.model, () => tf.dispose(kept.model.predict(ids)));
    expect(await speak(kept, 'In the ', {...options, onCharacter: call})).toEqual(spoken);
    const routes = await routesOf(kept, spoken.text);
    const {numTensors} = tf.memory();
    expect(await routesOf(kept, spoken.text)).toEqual(routes);
    expect(tf.memory().numTensors).toBe(numTensors);
    expect(spoken.experts.map((_, layer) => routes.map((route) => route[layer].experts[0]))).toEqual(spoken.experts);
    for (const {experts, weights} of routes.flat()) {
      expect(new Set(experts).size).toBe(TOPK);
      expect(weights[0]).toBeGreaterThanOrEqual(weights[1]);
      expect(weights[0] + weights[1]).toBeCloseTo(1, 5);
    }
    ids.dispose();
    kept.model.dispose();
  });

  it('stops where it is called off, and leaves no tensor behind', async () => {
    const {numTensors} = tf.memory();
    const kept = await loadTextModel(readKept);
    const controller = new AbortController();
    const onCharacter = () => controller.abort(new Error('enough'));
    await expectAsync(speak(kept, 'A', {length: 50, signal: controller.signal, onCharacter})).toBeRejectedWithError('enough');
    kept.model.dispose();
    expect(tf.memory().numTensors).toBe(numTensors);
  });

  it('is read from a folder of a server', async () => {
    const asked: string[] = [];
    spyOn(globalThis, 'fetch').and.callFake(async (url) => {
      asked.push(String(url));
      return new Response(keptFiles[String(url).replace('https://example.com/weights/', '')]?.slice(0, 3), {status: String(url).endsWith('vocab.json') ? 404 : 200});
    });
    const read = filesAt('https://example.com/weights/');
    expect((await read('config.json')).byteLength).toBe(3);
    expect(asked).toEqual(['https://example.com/weights/config.json']);
    await expectAsync(read('vocab.json')).toBeRejectedWithError(/must be a file of the model, but gives status 404/);
  });
});

describeWithFlags('the text example', cpu, () => {
  it('learns a few lines, speaks, shows its experts, and leaves no tensor behind', async () => {
    const printed: string[] = [];
    const reports: Report[] = [];
    let trained: Trained | undefined;
    const missed = await trainOnText(lines, amounts, {print: (line) => printed.push(line), onReport: (report) => reports.push(report), onTrained: async (given) => {
      trained = given;
      await expectFilesToBeRead(given, 'int4', 0.1);
      await expectFilesToBeRead(given, 'int8', 0.01);
    }});
    expect(missed).toEqual([]);
    expect(printed[1]).toMatch(/untrained: \d\.\d{3} bits a character/);
    expect(reports.map(({step}) => step)).toEqual([3, 6]);
    expect(reports[1].heldOutBits).toBeLessThan(reports[0].heldOutBits);
    expect(trained!.config).toEqual(configOf(trained!.alphabet.size, amounts));

    const {loads, sample} = reports[1];
    expect(loads.length).toBe(amounts.numLayers);
    for (const load of loads) {
      expect(load.reduce((sum, count) => sum + count)).toBe(100 * amounts.windowLength * TOPK);
    }
    expect(sample.text.length).toBe('And '.length + SAMPLE_LENGTH);
    expect(sample.experts.length).toBe(amounts.numLayers);
    for (const ofLayer of sample.experts) {
      expect(ofLayer.length).toBe(sample.text.length);
      expect(ofLayer.every((expert) => Number.isInteger(expert) && expert >= 0 && expert < NUM_EXPERTS)).toBeTrue();
    }
  });
});

/** Writes the model with experts in a format, and reads it. */
async function expectFilesToBeRead({model, config, alphabet, heldOutBitsOf}: Trained, format: ExpertFormat, within: number): Promise<void> {
  const files = await quantizedFiles(model, config, format);
  const read = await loadTextModel(async (name) => (name === 'vocab.json' ? bytesOf(alphabet.vocabulary) : files[name].arrayBuffer()));
  expect(read.alphabet.vocabulary).toEqual(alphabet.vocabulary);
  expect(expertLayers(read.model).map((layer) => layer.getConfig().expertFormat)).toEqual([format, format]);
  expect(Math.abs((await heldOutBitsOf(read.model)) - (await heldOutBitsOf(model)))).toBeLessThan(within);
  read.model.dispose();
}

describe('the characters of the text example', () => {
  it('have ids in the order of their codes', () => {
    const alphabet = alphabetOf('banana\n');
    expect(alphabet.vocabulary).toEqual({'\n': 0, a: 1, b: 2, n: 3});
    expect(alphabet.encode('nab')).toEqual([3, 1, 2]);
    expect(alphabet.decode([2, 1, 3])).toBe('ban');
    expect(() => alphabet.encode('bad')).toThrowError("The text that the model learns has no 'd'.");
  });

  it('are for training, or every twentieth stretch of them held out', () => {
    const text = Array.from({length: 85_000}, (_, i) => String.fromCharCode(97 + Math.floor(i / 2000))).join('');
    const {training, heldOut} = splitText(text);
    expect(heldOut).toBe(text.slice(38_000, 40_000) + text.slice(78_000, 80_000));
    expect(training.length).toBe(81_000);
  });

  it('are shown with their experts, with colours and without', () => {
    expect(describeText({text: 'ab', experts: [[0, 1], [7, 2]]}, false)).toBe('  experts of layer 0:\n    ab\n    01\n  experts of layer 1:\n    ab\n    72');
    const report = {loads: [[1, 3]], sample: {text: 'a\nb', experts: [[0, 1, 1]]}} as Report;
    expect(describeExperts(report, false)).toBe('  load of the experts of layer 0:  0: 25 %  1: 75 % \n    a¶b\n    011');
    expect(describeExperts(report, true)).toContain('\x1b[30;48;5;210ma\x1b[0m\x1b[30;48;5;215m¶\x1b[0m');
  });
});

describe('the steps of the text example', () => {
  it('are those asked for, or as many as the backend does', () => {
    expect(amountsFor('cpu', '7')).toEqual({...amountsFor('cpu', null), numSteps: 7});
    expect(amountsFor('webgpu', null).numSteps).toBeGreaterThan(amountsFor('cpu', null).numSteps);
    expect(() => amountsFor('cpu', '0')).toThrowError("steps must be an integer of 1 to 1000000, but is '0'.");
  });
});
