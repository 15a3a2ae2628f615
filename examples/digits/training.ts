/** Trains the model with and without the balancing loss. Node.js and the page run this same code. */
import * as tf from '../../src/tf';
import {AdamWithSchedule} from '../shared/adam_with_schedule';
import {barChart} from '../shared/bar_chart';
import {cutPatches, type Digits, NUM_CLASSES, NUM_PATCHES, PATCH_PIXELS, shiftDigits, sliceDigits} from './digits';
import {type DigitModel, makeDigitModel, NUM_EXPERTS, TOPK} from './model';

const SEED = 1;
const BATCH_SIZE = 50;
const FIRST_LEARNING_RATE = 0.008;
const MIN_ACCURACY = 0.95;
const MIN_ENTROPY = 0.9;
const MIN_ENTROPY_GAIN = 0.05;

export type Run = {name: 'with' | 'without'; loadBalancingLossWeight: number};
export const runs: Run[] = [
  {name: 'with', loadBalancingLossWeight: 0.05},
  {name: 'without', loadBalancingLossWeight: 0},
];

export type Epoch = {epoch: number; numEpochs: number; loss: number; accuracy: number; seconds: number};
/** Results on the held-out digits; `entropy` is a share of log E, the entropy of a uniform load. */
export type RunResult = {accuracy: number; load: number[]; entropy: number; predictions: number[]};

/** Calls during the training. Only `print` needs an effect. */
export type Listener = {
  print(line: string): void;
  onBatch?(run: Run, share: number): void;
  onEpoch?(run: Run, epoch: Epoch): void;
  onResult?(run: Run, result: RunResult): void;
  /** Before the model is disposed. */
  onTrained?(run: Run, trained: DigitModel, result: RunResult, heldOut: Digits): Promise<void>;
};

export type Amounts = {numTraining: number; numHeldOut: number; numEpochs: number};
export const defaultAmounts: Amounts = {numTraining: 8000, numHeldOut: 2000, numEpochs: 5};

/** The last digits, which are held out whatever the number of digits for training is. */
export function heldOutDigits(digits: Digits, {numHeldOut}: Amounts): Digits {
  return sliceDigits(digits, digits.labels.length - numHeldOut);
}

/** Digits as tensors: patches [n, NUM_PATCHES, PATCH_PIXELS], and one-hot labels [n, NUM_CLASSES]. */
export function tensorsOf(digits: Digits): {patches: tf.Tensor3D; targets: tf.Tensor2D} {
  const patches = tf.tensor3d(cutPatches(digits), [digits.labels.length, NUM_PATCHES, PATCH_PIXELS]);
  // A cast, because on wasm tf.oneHot takes the dtype but writes integers.
  const targets = tf.tidy(() => tf.cast(tf.oneHot(tf.tensor1d(digits.labels, 'int32'), NUM_CLASSES), 'float32'));
  return {patches, targets: targets as tf.Tensor2D};
}

export const percent = (share: number) => `${(100 * share).toFixed(2)} %`;
const number = (value: number) => value.toLocaleString('en-US');

/**
 * Runs both trainings. Returns a line for each missed goal, none if all is well. The goals are for the default amounts.
 */
export async function trainBoth(digits: Digits, amounts: Amounts, listener: Listener): Promise<string[]> {
  const {numTraining, numEpochs} = amounts;
  const numTensorsBefore = tf.memory().numTensors;
  const training = sliceDigits(digits, 0, numTraining);
  const heldOut = heldOutDigits(digits, amounts);
  listener.print(
    `Training on ${number(numTraining)} digits for ${numEpochs} ${numEpochs === 1 ? 'epoch' : 'epochs'} on ${tf.getBackend()}: ${NUM_PATCHES} patches ` +
      `each are the tokens, each to ${TOPK} of ${NUM_EXPERTS} experts; ${number(heldOut.labels.length)} digits held out`,
  );
  const results = [];
  for (const run of runs) {
    listener.print(`\n${run.name === 'with' ? 'With' : 'Without'} the balancing loss:`);
    const result = await trainOnce(run, training, heldOut, numEpochs, listener);
    listener.onResult?.(run, result);
    const {accuracy, entropy, load} = result;
    listener.print(
      `  held-out accuracy ${percent(accuracy)}; entropy of the expert load ${entropy.toFixed(3)} of uniform:`,
    );
    listener.print(
      barChart(
        load.map((_, expert) => `expert ${expert}`),
        load,
      ),
    );
    results.push(result);
  }
  const numLeaked = tf.memory().numTensors - numTensorsBefore;
  const isWhole = numTraining >= defaultAmounts.numTraining && numEpochs >= defaultAmounts.numEpochs;
  return [
    ...(isWhole ? missedGoals(results[0], results[1]) : []),
    ...(numLeaked === 0 ? [] : [`${numLeaked} tensors were not disposed.`]),
  ];
}

/** Trains a model and evaluates it. The model is disposed of in the end. */
export async function trainOnce(
  run: Run,
  training: Digits,
  heldOut: Digits,
  numEpochs: number,
  listener: Listener,
): Promise<RunResult> {
  const trained = makeDigitModel({...run, seed: SEED});
  const {model, experts} = trained;
  const optimizer = new AdamWithSchedule(FIRST_LEARNING_RATE);
  model.compile({optimizer, loss: 'categoricalCrossentropy', metrics: ['accuracy']});
  const numBatches = Math.ceil(training.labels.length / BATCH_SIZE);
  for (let epoch = 0; epoch < numEpochs; epoch++) {
    const start = performance.now();
    const {patches, targets} = tensorsOf(shiftDigits(training, epoch));
    optimizer.setLearningRate(FIRST_LEARNING_RATE * (1 - epoch / numEpochs));
    const {history} = await model.fit(patches, targets, {
      batchSize: BATCH_SIZE,
      // tf.layers shuffles by Math.random, and the digits are mixed already.
      shuffle: false,
      verbose: 0,
      callbacks: {
        onBatchEnd: (batch) => listener.onBatch?.(run, (epoch + (batch + 1) / numBatches) / numEpochs),
      },
    });
    tf.dispose([patches, targets]);
    const [loss, accuracy] = [history.loss[0] as number, history.acc[0] as number];
    const report = {epoch: epoch + 1, numEpochs, loss, accuracy, seconds: (performance.now() - start) / 1000};
    listener.onEpoch?.(run, report);
    listener.print(lineOf(report));
  }
  const result = await evaluate(model, experts, heldOut);
  await listener.onTrained?.(run, trained, result, heldOut);
  model.dispose();
  optimizer.dispose();
  return result;
}

const lineOf = ({epoch, numEpochs, loss, accuracy, seconds}: Epoch) =>
  `  epoch ${epoch}/${numEpochs}: loss ${loss.toFixed(4)}, accuracy ${percent(accuracy)}, ${seconds.toFixed(1)} s`;

/** Evaluates all held-out digits in one batch, because the layer's load is the load of its last batch. */
export async function evaluate(
  model: tf.LayersModel,
  experts: DigitModel['experts'],
  heldOut: Digits,
): Promise<RunResult> {
  const {labels} = heldOut;
  const predicted = tf.tidy(() => {
    const probabilities = model.predict(tensorsOf(heldOut).patches, {batchSize: labels.length}) as tf.Tensor;
    return tf.argMax(probabilities, 1);
  });
  const load = experts.expertLoad();
  const entropy = experts.expertLoadEntropy();
  const [predictions, counts, [nats]] = await Promise.all([predicted.data(), load.data(), entropy.data()]);
  tf.dispose([predicted, load, entropy]);
  const numRight = labels.filter((label, i) => label === predictions[i]).length;
  return {
    accuracy: numRight / labels.length,
    load: Array.from(counts),
    entropy: nats / Math.log(NUM_EXPERTS),
    predictions: Array.from(predictions),
  };
}

/** The conditions are written so that NaN misses a goal too. */
function missedGoals(withLoss: RunResult, withoutLoss: RunResult): string[] {
  const missed: string[] = [];
  const expect = (isMet: boolean, line: string) => {
    if (!isMet) {
      missed.push(line);
    }
  };
  const gain = withLoss.entropy - withoutLoss.entropy;
  expect(
    withLoss.accuracy >= MIN_ACCURACY,
    `The held-out accuracy is ${percent(withLoss.accuracy)}, below ${percent(MIN_ACCURACY)}.`,
  );
  expect(
    withLoss.entropy >= MIN_ENTROPY,
    `With the balancing loss the expert load has ${withLoss.entropy.toFixed(3)} of the uniform entropy, ` +
      `less than ${MIN_ENTROPY}.`,
  );
  expect(
    gain >= MIN_ENTROPY_GAIN,
    `The balancing loss raises the entropy of the expert load by ${gain.toFixed(3)}, less than ${MIN_ENTROPY_GAIN}.`,
  );
  return missed;
}
