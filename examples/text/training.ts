/** Trains the model, and lets it speak now and then. */
import * as tf from '../../src/tf';
import {AdamWithSchedule} from '../shared/adam_with_schedule';
import type {Amounts} from './amounts';
import {alphabetOf, splitText} from './characters';
import {configOf, expertLoads, NUM_EXPERTS, TOPK} from './model';
import {type RoutedText, speak} from './speaking';
import type {TextModel} from './text_model';
import {bitsPerCharacter, crossEntropy, evenStarts, randomStarts, windowsOf} from './windows';

export const WARM_UP_STEPS = 10;
/** Of Adam. */
export const BETA_2 = 0.99;
const NUM_HELD_OUT_WINDOWS = 100;
/** How samples begin. */
export const PROMPT = 'And ';
const SEED = 1;

export type Report = {
  step: number;
  numSteps: number;
  seconds: number;
  charactersPerSecond: number;
  /** The loss on held-out text, in bits a character. */
  heldOutBits: number;
  /** How many held-out characters each expert of each layer took. */
  loads: number[][];
  sample: RoutedText;
};

/** The trained model, its config.json, and the loss of a model on held-out text, in bits a character. */
export type Trained = TextModel & {
  config: tf.MoeModelConfig;
  heldOutBitsOf: (model: tf.LayersModel) => Promise<number>;
};

/** Calls during the training. Only `print` needs an effect. */
export type Listener = {
  print(line: string): void;
  onReport?(report: Report): void;
  /** Before the model is disposed. */
  onTrained?(trained: Trained): Promise<void>;
};

const number = (value: number) => value.toLocaleString('en-US');

/** Trains a model on a text. Returns a line for each missed goal, none if all is well. */
export async function trainOnText(text: string, amounts: Amounts, listener: Listener): Promise<string[]> {
  const {numSteps, batchSize, windowLength, numLayers, learningRate, stepsPerReport, sampleLength} = amounts;
  const numTensorsBefore = tf.memory().numTensors;
  const alphabet = alphabetOf(text);
  const config = configOf(alphabet.size, amounts);
  const model = tf.moeLanguageModel(config);
  const optimizer = new AdamWithSchedule(learningRate, BETA_2);
  model.compile({optimizer, loss: crossEntropy});
  const {training, heldOut} = splitText(text);
  const trainingIds = alphabet.encode(training);
  const windowsAt = (ids: readonly number[], starts: number[]) => windowsOf(ids, starts, windowLength, alphabet.size);
  const heldOutStarts = evenStarts(heldOut.length - windowLength, NUM_HELD_OUT_WINDOWS);
  const heldOutWindows = windowsAt(alphabet.encode(heldOut), heldOutStarts);
  listener.print(
    `Training on ${number(training.length)} characters for ${number(numSteps)} steps of ` +
      `${batchSize} x ${windowLength} on ${tf.getBackend()}: a Mixtral of ${numLayers} layers and ` +
      `${number(model.countParams())} parameters, each character to ${TOPK} of ${NUM_EXPERTS} experts in each layer; ` +
      `${number(heldOut.length)} characters held out`,
  );

  const start = performance.now();
  let stepSeconds = 0;
  let heldOutBits = NaN;
  const firstBits = await bitsPerCharacter(model, heldOutWindows);
  listener.print(`  untrained: ${firstBits.toFixed(3)} bits a character of held-out text`);
  for (let step = 1; step <= numSteps; step++) {
    const stepStart = performance.now();
    optimizer.setLearningRate(learningRate * Math.min(step / WARM_UP_STEPS, 1 - (0.9 * step) / numSteps));
    const windows = windowsAt(trainingIds, randomStarts(trainingIds.length - windowLength, batchSize));
    await model.trainOnBatch(windows.ids, windows.targets);
    tf.dispose(windows);
    stepSeconds += (performance.now() - stepStart) / 1000;
    if (step % stepsPerReport === 0 || step === numSteps) {
      heldOutBits = await bitsPerCharacter(model, heldOutWindows);
      listener.onReport?.({
        step,
        numSteps,
        seconds: (performance.now() - start) / 1000,
        charactersPerSecond: (step * batchSize * windowLength) / stepSeconds,
        heldOutBits,
        loads: await expertLoads(model),
        sample: await speak({model, alphabet}, PROMPT, {length: sampleLength, seed: SEED}),
      });
    }
  }
  await listener.onTrained?.({
    model,
    config,
    alphabet,
    heldOutBitsOf: (other) => bitsPerCharacter(other, heldOutWindows),
  });
  model.dispose();
  optimizer.dispose();
  tf.dispose(heldOutWindows);
  const numLeaked = tf.memory().numTensors - numTensorsBefore;
  return [
    ...(heldOutBits < firstBits
      ? []
      : [`The loss on held-out text went from ${firstBits} to ${heldOutBits} bits a character.`]),
    ...(numLeaked === 0 ? [] : [`${numLeaked} tensors were not disposed.`]),
  ];
}

/** The figures of a report, in a line. */
export const lineOf = ({step, numSteps, seconds, charactersPerSecond, heldOutBits}: Report): string =>
  `  step ${step} of ${numSteps}: ${heldOutBits.toFixed(3)} bits a character of held-out text, ` +
  `${number(Math.round(charactersPerSecond))} characters/s, ${seconds.toFixed(0)} s`;
