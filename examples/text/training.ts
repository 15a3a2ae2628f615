/** Trains the model, and lets it speak now and then. */
import * as tf from '../../src/tf';
import {AdamWithSchedule} from '../shared/adam_with_schedule';
import type {Amounts} from './amounts';
import {alphabetOf, splitText} from './characters';
import {configOf, expertLoads, NUM_EXPERTS, TOPK} from './model';
import {type RoutedText, speak} from './speaking';
import type {TextModel} from './text_model';

const WARM_UP_STEPS = 10;
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
  const optimizer = new AdamWithSchedule(learningRate, 0.99);
  model.compile({optimizer, loss: crossEntropy});
  const {training, heldOut} = splitText(text);
  const trainingIds = alphabet.encode(training);
  const windowsAt = (ids: readonly number[], starts: number[]) => windowsOf(ids, starts, windowLength, alphabet.size);
  const heldOutWindows = windowsAt(alphabet.encode(heldOut), evenStarts(heldOut.length - windowLength));
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

/**
 * The loss in nats a character: -log of the probability of the next one. `targets` are one-hot [B, S, V]. The gradient
 * of core ops would upload as many ones as there are logits.
 */
const crossEntropy = (targets: tf.Tensor, logits: tf.Tensor): tf.Tensor =>
  tf.customGrad((...args) => {
    const [given, save] = args as unknown as [tf.Tensor, (tensors: tf.Tensor[]) => void];
    save([given]);
    return {
      value: tf.mean(tf.sub(tf.logSumExp(given, -1), tf.sum(tf.mul(targets, given), -1))),
      gradFunc: (dy: tf.Tensor, [saved]: tf.Tensor[]) => {
        const ofCharacter = tf.div(dy, saved.size / saved.shape[saved.rank - 1]);
        return tf.mul(tf.sub(tf.softmax(saved), targets), ofCharacter);
      },
    };
  })(logits);

type Windows = {ids: tf.Tensor2D; targets: tf.Tensor3D};

/** Windows of a text: ids [B, S], and the characters that follow each, one-hot [B, S, V]. */
function windowsOf(text: readonly number[], starts: number[], windowLength: number, alphabetSize: number): Windows {
  return tf.tidy(() => {
    const rows = starts.map((start) => text.slice(start, start + windowLength + 1));
    const characters = tf.tensor2d(rows, [starts.length, windowLength + 1], 'int32');
    const ids = tf.slice(characters, [0, 0], [-1, windowLength]);
    const next = tf.slice(characters, [0, 1], [-1, windowLength]);
    // A cast, because on wasm tf.oneHot takes the dtype but writes integers.
    return {ids, targets: tf.cast(tf.oneHot(next, alphabetSize), 'float32') as tf.Tensor3D};
  });
}

/** Places spread evenly over 0..end-1. */
const evenStarts = (end: number): number[] =>
  Array.from({length: NUM_HELD_OUT_WINDOWS}, (_, i) => Math.floor((i * end) / NUM_HELD_OUT_WINDOWS));

const randomStarts = (end: number, batchSize: number): number[] =>
  Array.from({length: batchSize}, () => Math.floor(Math.random() * end));

/** The loss, without what the layers add to it in the training. All windows are one batch, for the experts' load. */
async function bitsPerCharacter(model: tf.LayersModel, {ids, targets}: Windows): Promise<number> {
  const loss = tf.tidy(() => crossEntropy(targets, model.predict(ids, {batchSize: ids.shape[0]}) as tf.Tensor));
  const [nats] = await loss.data();
  loss.dispose();
  return nats / Math.LN2;
}

/** The figures of a report, in a line. */
export const lineOf = ({step, numSteps, seconds, charactersPerSecond, heldOutBits}: Report): string =>
  `  step ${step} of ${numSteps}: ${heldOutBits.toFixed(3)} bits a character of held-out text, ` +
  `${number(Math.round(charactersPerSecond))} characters/s, ${seconds.toFixed(0)} s`;
