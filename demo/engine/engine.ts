/** What the page asks of its worker, in which all tensors live. */
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-core/dist/register_all_gradients';
import {
  cutPatches,
  type Digits,
  IMAGE_SIZE,
  NUM_CLASSES,
  NUM_PATCHES,
  PATCH_PIXELS,
  sliceDigits,
} from '../../examples/digits/digits';
import {correctedBias} from '../../src/layers/score_correction';
import {expertCounts} from '../../src/ops/expert_counts';
import {moePermute} from '../../src/ops/index';
import type {BackendName} from './backend_names';
import {bestOf, type Offer, offers, startBackend} from './backends';
import {loadDigits, loadWeights} from './files';
import {droppedShare, evenness, loadOf} from './load';
import {
  classify,
  type Losses,
  lossesOf,
  makeWeights,
  type NetWeights,
  newWeightValues,
  route,
  type Routing,
  weightNames,
  type WeightValues,
} from './net';
import type {Comparison, KernelTime} from './measure';
import {randomOf} from './random';
import {defaultSettings, eachExpert, NUM_EXPERTS, type Settings} from './settings';
import {TextEngine} from './text_engine';

/** How a digit went through the net, as the device computed it. */
export type Routed = {
  /** [T, K] each. An expert of -1 is silenced; a kept expert of -1 had no room. */
  topkIds: number[];
  topkWeights: number[];
  keptIds: number[];
  /** moePermute's: the assignment in each row, and where the rows of each expert begin. */
  permutedIdx: number[];
  expertFirstTokenOffset: number[];
  probabilities: number[];
  milliseconds: number;
};

/** `labels` are of all held-out digits. */
export type FirstAnswer = {labels: number[]; pixels: Float32Array; label?: number; routed: Routed};

export type Evaluation = {accuracy: number; load: number[]; evenness: number; dropped: number; milliseconds: number};

export type Measurement = {
  backend: BackendName;
  kernels: KernelTime[];
  hasDeviceTimes: boolean;
  comparison: Comparison;
};

export type Progress = {
  step: number;
  /** The factor of the balancing loss, and the step of the balancing bias, in this step. */
  balance: number;
  biasRate: number;
  loss: number;
  load: number[];
  evenness: number;
  dropped: number;
  milliseconds: number;
  /** Of held-out digits, now and then. */
  accuracy?: number;
};

/** The patches that an expert has the most weight for, and the mean of all of its patches. */
export type ExpertPatches = {patches: Float32Array[]; mean: Float32Array; numPatches: number};

const BATCH_SIZE = 50;
const LEARNING_RATE = 0.008;
const STEPS_PER_REPORT = 2;
const STEPS_PER_EVALUATION = 20;
const NUM_TOP_PATCHES = 12;

const floats = async (tensor: tf.Tensor) => Array.from(await tensor.data());

export class Engine {
  readonly text = new TextEngine((call) => this.inTurn(call));
  private settings = defaultSettings();
  private weights!: NetWeights;
  private optimizer!: tf.AdamOptimizer;
  private trained!: WeightValues;
  private heldOut!: Digits;
  private heldOutPatches!: tf.Tensor2D;
  private training: {patches: Float32Array; labels: number[]} | undefined;
  /** The balancing bias, once a step has moved it. */
  private bias: tf.Tensor1D | undefined;
  private step = 0;
  /** The number of trainings so far. The last of them goes on until this changes. */
  private numTrainings = 0;
  private lastCall: Promise<unknown> = Promise.resolve();

  /**
   * Starts on the CPU, whose code is the smallest and which needs no shader, and sends a first picture through the net:
   * a held-out digit, or an image.
   */
  async start(settings: Settings, picture: number | Float32Array): Promise<FirstAnswer> {
    const files = Promise.all([loadWeights('digits.safetensors'), loadDigits('held_out.digits')]);
    await startBackend('cpu');
    [this.trained, this.heldOut] = await files;
    this.makeTensors(this.trained);
    this.settings = settings;
    const {labels} = this.heldOut;
    const {pixels, label} = typeof picture === 'number' ? await this.sample(picture) : {pixels: picture};
    return {labels, pixels, label, routed: await this.route(pixels)};
  }

  async offers(): Promise<{offers: Offer[]; best: BackendName}> {
    const found = await offers();
    return {offers: found, best: bestOf(found)};
  }

  /** Takes the net as it is to another backend, and runs it there once, so that its shaders are compiled. */
  useBackend(name: BackendName): Promise<void> {
    return this.inTurn(async () => {
      if (tf.getBackend() === name) {
        return;
      }
      const previous = tf.getBackend() as BackendName;
      await this.text.leaveBackend();
      const values = await this.weightValues();
      const biasValues = await this.bias?.data<'float32'>();
      this.disposeTensors();
      try {
        await startBackend(name);
      } catch (error) {
        await startBackend(previous);
        throw error;
      } finally {
        this.makeTensors(values);
        this.bias = biasValues && tf.tensor1d(biasValues);
      }
      await this.routeNow(this.heldOut.pixels.slice(0, IMAGE_SIZE ** 2));
    });
  }

  configure(settings: Settings): Promise<void> {
    return this.inTurn(async () => {
      this.settings = settings;
    });
  }

  /** A held-out digit. */
  async sample(index: number): Promise<{pixels: Float32Array; label?: number}> {
    const {pixels, labels} = sliceDigits(this.heldOut, index, index + 1);
    return {pixels: pixels.slice(), label: labels[0]};
  }

  /** Sends the patches of an image of IMAGE_SIZE x IMAGE_SIZE pixels through the net. */
  route(pixels: Float32Array): Promise<Routed> {
    return this.inTurn(() => this.routeNow(pixels));
  }

  evaluate(settings?: Settings): Promise<Evaluation> {
    return this.inTurn(() => this.evaluateNow(settings));
  }

  expertPatches(): Promise<ExpertPatches[]> {
    return this.inTurn(async () => {
      const {keptIds, topkWeights} = tf.tidy(() => {
        const routing = this.routing(this.heldOutPatches);
        return {keptIds: routing.keptIds, topkWeights: routing.topkWeights};
      });
      const [ids, weights] = await Promise.all([keptIds.data(), topkWeights.data()]);
      tf.dispose([keptIds, topkWeights]);
      const all = cutPatches(this.heldOut);
      const patchAt = (token: number) => all.slice(token * PATCH_PIXELS, (token + 1) * PATCH_PIXELS);
      return eachExpert((expert) => {
        const slots = Array.from(ids.keys()).filter((slot) => ids[slot] === expert);
        const tokens = slots.map((slot) => Math.floor(slot / this.settings.topk));
        const mean = new Float32Array(PATCH_PIXELS);
        tokens.forEach((token) => patchAt(token).forEach((value, i) => (mean[i] += value / tokens.length)));
        const top = slots.sort((a, b) => weights[b] - weights[a]).slice(0, NUM_TOP_PATCHES);
        const patches = top.map((slot) => patchAt(Math.floor(slot / this.settings.topk)));
        return {patches, mean, numPatches: tokens.length};
      });
    });
  }

  /** Times of the held-out digits' way through the net, and of a larger layer; larger still on a hardware GPU. */
  measure(isOnGpu: boolean): Promise<Measurement> {
    return this.inTurn(async () => {
      const {compare, kernelTimes} = await import('./measure');
      const backend = tf.getBackend() as BackendName;
      const times = await kernelTimes(() => {
        const routing = this.routing(this.heldOutPatches);
        return classify(this.weights, routing, this.settings);
      });
      return {backend, ...times, comparison: await compare(isOnGpu)};
    });
  }

  /** Trains until pause, or for a number of steps. */
  async train(onProgress: (progress: Progress) => void, numSteps = Infinity): Promise<void> {
    const training = ++this.numTrainings;
    this.training ??= await loadDigits('training.digits').then((digits) => ({
      patches: cutPatches(digits),
      labels: digits.labels,
    }));
    for (let i = 1; i <= numSteps && this.numTrainings === training; i++) {
      const isReported = this.step % STEPS_PER_REPORT === 0 || i === numSteps;
      const progress = await this.inTurn(() => this.trainStep(isReported));
      if (progress != null) {
        onProgress(progress);
      }
      // Calls of the page come in between.
      await new Promise((resolve) => setTimeout(resolve));
    }
  }

  async pause(): Promise<void> {
    this.numTrainings++;
  }

  /** The trained weights, or new ones of a seed. */
  restart(from: 'trained' | number): Promise<void> {
    return this.inTurn(async () => {
      this.disposeTensors();
      this.makeTensors(from === 'trained' ? this.trained : newWeightValues(randomOf(from)));
      this.step = 0;
    });
  }

  /** One call after the other, each to its end. */
  private inTurn<T>(call: () => Promise<T>): Promise<T> {
    const result = this.lastCall.then(call);
    this.lastCall = result.catch(() => {});
    return result;
  }

  private makeTensors(values: WeightValues): void {
    this.weights = makeWeights(values);
    this.optimizer = new tf.AdamOptimizer(LEARNING_RATE, 0.9, 0.999);
    this.heldOutPatches = tf.tensor2d(cutPatches(this.heldOut), [
      this.heldOut.labels.length * NUM_PATCHES,
      PATCH_PIXELS,
    ]);
  }

  private disposeTensors(): void {
    tf.dispose([...Object.values(this.weights), this.heldOutPatches, this.bias ?? []]);
    this.bias = undefined;
    this.optimizer.dispose();
  }

  private routing(patches: tf.Tensor2D, settings = this.settings): Routing {
    return route(this.weights, patches, settings, {scoreCorrectionBias: this.bias});
  }

  private async weightValues(): Promise<WeightValues> {
    const values = await Promise.all(weightNames.map((name) => this.weights[name].data()));
    return Object.fromEntries(weightNames.map((name, w) => [name, values[w]])) as WeightValues;
  }

  private async routeNow(pixels: Float32Array): Promise<Routed> {
    const start = performance.now();
    const patches = cutPatches({pixels, labels: [0]});
    const routed = tf.tidy(() => {
      const routing = this.routing(tf.tensor2d(patches, [NUM_PATCHES, PATCH_PIXELS]));
      const {tokens, topkIds, topkWeights, keptIds} = routing;
      const {permutedIdx, expertFirstTokenOffset} = moePermute(tokens, keptIds, this.settings.silenced.length);
      const probabilities = tf.softmax(classify(this.weights, routing, this.settings));
      return {topkIds, topkWeights, keptIds, permutedIdx, expertFirstTokenOffset, probabilities};
    });
    const entries = await Promise.all(
      Object.entries(routed).map(async ([name, tensor]) => [name, await floats(tensor)] as const),
    );
    tf.dispose(routed);
    type Values = Record<keyof typeof routed, number[]>;
    return {...(Object.fromEntries(entries) as Values), milliseconds: performance.now() - start};
  }

  private async evaluateNow(settings = this.settings): Promise<Evaluation> {
    const start = performance.now();
    const {labels} = this.heldOut;
    const results = tf.tidy(() => {
      const routing = this.routing(this.heldOutPatches, settings);
      const predicted = tf.argMax(classify(this.weights, routing, settings), 1);
      return {predicted, topkIds: routing.topkIds, keptIds: routing.keptIds};
    });
    const [predicted, topkIds, keptIds] = await Promise.all([
      results.predicted.data(),
      results.topkIds.data(),
      results.keptIds.data(),
    ]);
    tf.dispose(results);
    const load = loadOf(keptIds);
    return {
      accuracy: labels.filter((label, i) => label === predicted[i]).length / labels.length,
      load,
      evenness: evenness(load),
      dropped: droppedShare(topkIds, keptIds),
      milliseconds: performance.now() - start,
    };
  }

  /** A step of balancing without a loss, as DeepSeek-V3 does. */
  private moveBias(topkIds: tf.Tensor2D, rate: number): void {
    const before = this.bias ?? tf.zeros<tf.Rank.R1>([NUM_EXPERTS]);
    this.bias = tf.tidy(() =>
      tf.keep(correctedBias(before, tf.cast(expertCounts(topkIds, NUM_EXPERTS), 'float32'), rate)),
    );
    before.dispose();
  }

  private async trainStep(isReported: boolean): Promise<Progress | undefined> {
    const start = performance.now();
    const {patches, labels} = this.training!;
    const first = (this.step * BATCH_SIZE) % labels.length;
    const tokenValues = NUM_PATCHES * PATCH_PIXELS;
    this.step++;
    const {balance, biasRate} = this.settings;
    const kept: Losses[] = [];
    tf.tidy(() => {
      const x = tf.tensor2d(patches.subarray(first * tokenValues, (first + BATCH_SIZE) * tokenValues), [
        BATCH_SIZE * NUM_PATCHES,
        PATCH_PIXELS,
      ]);
      const digits = tf.tensor1d(labels.slice(first, first + BATCH_SIZE), 'int32');
      const targets = tf.cast(tf.oneHot(digits, NUM_CLASSES), 'float32') as tf.Tensor2D;
      const {grads} = tf.variableGrads(() => {
        const losses = lossesOf(this.weights, x, targets, this.settings, this.bias);
        // The gradient disposes of all that its function does not return.
        Object.values(losses).forEach((tensor: tf.Tensor) => tf.keep(tensor));
        kept.push(losses);
        return balance > 0 ? tf.add(losses.loss, tf.mul(losses.balancingLoss, balance)) : losses.loss;
      }, Object.values(this.weights));
      // tfjs asks for variables, but reads names and tensors.
      this.optimizer.applyGradients(grads as Record<string, tf.Variable>);
    });
    const [result] = kept;
    if (biasRate > 0) {
      this.moveBias(result.topkIds, biasRate);
    }
    if (!isReported) {
      tf.dispose(result);
      return undefined;
    }
    const [[loss], topkIds, keptIds] = await Promise.all([
      result.loss.data(),
      result.topkIds.data(),
      result.keptIds.data(),
    ]);
    tf.dispose(result);
    const milliseconds = performance.now() - start;
    const load = loadOf(keptIds);
    const accuracy =
      this.step % STEPS_PER_EVALUATION < STEPS_PER_REPORT ? (await this.evaluateNow()).accuracy : undefined;
    const dropped = droppedShare(topkIds, keptIds);
    return {
      step: this.step,
      balance,
      biasRate,
      loss,
      load,
      evenness: evenness(load),
      dropped,
      milliseconds,
      accuracy,
    };
  }
}
