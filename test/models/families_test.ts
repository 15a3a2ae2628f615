/**
 * Whole language models of every family against Hugging Face transformers: tiny models in test/golden/models, whose
 * logits transformers recorded. scripts/model_goldens.mjs made the files.
 */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {modelGoldens, type RecordedLogits} from 'model-goldens';
import {partsOf} from '../../src/models/decoder';
import {Decoding} from '../../src/models/decoding';
import {loadMoeLanguageModel} from '../../src/models/index';
import * as tf from '../../src/tf';
import {expectWithin} from '../support/expect';

const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};

/** Kinds of models: grouped heads; a dense layer, biases and shared experts; sinks, a window and yarn. */
const onGpus = ['mixtral', 'qwen2_moe', 'gpt_oss'];

/** Within 1e-4 of the largest. */
async function expectClose(actual: tf.Tensor, wanted: number[][] | number[][][], what: string): Promise<void> {
  const largest = Math.max(...(wanted.flat(2) as number[]).map(Math.abs));
  await expectWithin(actual, wanted, () => 1e-4 * largest, what);
}

const idTensor = (ids: number[][]): tf.Tensor2D => tf.tensor2d(ids, undefined, 'int32');

async function expectLogits(model: tf.LayersModel, recorded: RecordedLogits, what: string): Promise<void> {
  const logits = model.predict(idTensor(recorded.ids)) as tf.Tensor;
  await expectClose(tf.gather(logits, recorded.positions, 1), recorded.logits, what);
}

async function expectEqual(name: string): Promise<void> {
  const {config, file, recorded} = modelGoldens[name];
  const {whole, single, decode} = recorded;
  const model = await loadMoeLanguageModel(file, config);
  await expectLogits(model, whole, 'all positions');
  await expectLogits(model, single, 'one position');

  const parts = partsOf(model, 'spec');
  const ofLast = ({logits}: RecordedLogits) => logits.map((sequence) => sequence[sequence.length - 1]);
  const atOnce = new Decoding(parts, 2, 9);
  await expectClose(atOnce.read(idTensor(whole.ids)), ofLast(whole), 'prefill');
  await expectClose(atOnce.read(idTensor(decode.ids)), ofLast(decode), 'the step after it');
  const oneByOne = new Decoding(parts, 2, 8);
  for (let position = 0; position < whole.ids[0].length; position++) {
    const logits = oneByOne.next(whole.ids.map((ids) => ids[position]));
    const at = whole.positions.indexOf(position);
    if (at !== -1) {
      await expectClose(
        logits,
        whole.logits.map((sequence) => sequence[at]),
        `position ${position} by itself`,
      );
    }
  }
  await expectClose(oneByOne.next(decode.ids.flat()), ofLast(decode), 'the step after all of them');
  atOnce.dispose();
  oneByOne.dispose();
  model.dispose();
}

describeWithFlags('families of language models, on the host', cpu, () => {
  for (const name of Object.keys(modelGoldens).filter((name) => !onGpus.includes(name))) {
    it(`give the logits of transformers for ${name}`, () => expectEqual(name));
  }
});

describeWithFlags('families of language models', ALL_ENVS, () => {
  for (const name of onGpus) {
    it(`give the logits of transformers for ${name}`, () => expectEqual(name));
  }
});
