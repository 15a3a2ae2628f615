/**
 * The language model of examples/text, in the worker: it speaks, and is edited and trained. It is a chunk of its own,
 * with all of tf.layers.
 */
import {type Amounts, amountsFor} from '../../examples/text/amounts';
import {type Alphabet, alphabetOfVocabulary} from '../../examples/text/characters';
import {configOf, expertLayers, expertLoads} from '../../examples/text/model';
import {type Route, routesOf, unrecorded} from '../../examples/text/routes';
import {speak} from '../../examples/text/speaking';
import {filesAt} from '../../examples/text/text_model';
import {BETA_2, WARM_UP_STEPS} from '../../examples/text/training';
import {bitsPerCharacter, crossEntropy, randomStarts, windowsOf} from '../../examples/text/windows';
import {AdamWithSchedule} from '../../examples/shared/adam_with_schedule';
import * as tf from '../../src/tf';
import {editedExperts, type ExpertWeights, silenceOf} from './edited_experts';
import {type Edits, isAnyEdited, noEdits} from './settings';

export type OnCharacter = (character: string, routes: Route[]) => void;

/** A step of the training. */
export type TextProgress = {
  step: number;
  /** The loss in bits a character of the step, without the balancing loss. */
  bits: number;
  /** How many characters each expert of each layer took. */
  loads: number[][];
  charactersPerSecond: number;
};

/** What a model is made of, on any backend. Weights are without edits. */
export type TextNetState = {
  config: tf.MoeModelConfig;
  vocabulary: Alphabet['vocabulary'];
  weights: Float32Array[];
  /** Whether it began with new weights. */
  isNew: boolean;
  step: number;
};

/** What a step takes. Of trained weights it is few characters and a small rate, so that what was learned stays. */
function stepAmounts(isNew: boolean, isOnGpu: boolean): Pick<Amounts, 'batchSize' | 'windowLength' | 'learningRate'> {
  if (isNew) {
    return amountsFor(isOnGpu ? 'webgpu' : 'cpu', null);
  }
  return isOnGpu
    ? {batchSize: 16, windowLength: 128, learningRate: 0.0005}
    : {batchSize: 4, windowLength: 32, learningRate: 0.0005};
}

export class TextNet {
  private readonly layers: ReturnType<typeof expertLayers>;
  private readonly optimizer: AdamWithSchedule;
  /** The experts of each layer without edits, except in training, which changes them. */
  private base: ExpertWeights[] = [];
  private edits: Edits[] = [];
  private stopper = new AbortController();
  private speaking: Promise<unknown> = Promise.resolve();
  private isTraining = false;

  private constructor(
    readonly model: tf.LayersModel,
    readonly alphabet: Alphabet,
    private readonly config: tf.MoeModelConfig,
    private readonly isNew: boolean,
    private step: number,
  ) {
    this.layers = expertLayers(model);
    this.optimizer = new AdamWithSchedule(0, BETA_2);
    model.compile({optimizer: this.optimizer, loss: crossEntropy, metrics: [crossEntropy]});
    this.takeBase();
  }

  /** The trained model, from the files beside the page. */
  static async load(): Promise<TextNet> {
    const read = filesAt(new URL('text/', location.href));
    const json = async (name: string): Promise<unknown> => JSON.parse(new TextDecoder().decode(await read(name)));
    const [config, vocabulary, file] = await Promise.all([
      json('config.json') as Promise<tf.MoeModelConfig>,
      json('vocab.json') as Promise<Alphabet['vocabulary']>,
      read('model.safetensors'),
    ]);
    // Weights in codes do not train.
    const model = await tf.loadMoeLanguageModel(file, config, {format: 'float32'});
    return new TextNet(await editable(model), alphabetOfVocabulary(vocabulary), config, false, 0);
  }

  /** A model of new weights, as large as plain JavaScript trains in minutes, or as a GPU does. */
  static async random(vocabulary: Alphabet['vocabulary'], isOnGpu: boolean): Promise<TextNet> {
    const alphabet = alphabetOfVocabulary(vocabulary);
    const config = configOf(alphabet.size, amountsFor(isOnGpu ? 'webgpu' : 'cpu', null));
    return new TextNet(await editable(tf.moeLanguageModel(config)), alphabet, config, true, 0);
  }

  static async restore({config, vocabulary, weights, isNew, step}: TextNetState): Promise<TextNet> {
    const model = tf.moeLanguageModel(config);
    tf.tidy(() => model.setWeights(model.getWeights().map(({shape}, w) => tf.tensor(weights[w], shape))));
    return new TextNet(await editable(model), alphabetOfVocabulary(vocabulary), config, isNew, step);
  }

  async state(): Promise<TextNetState> {
    this.undoEdits();
    const weights = this.model.weights.filter((weight) => weight.trainable);
    const values = await Promise.all(weights.map((weight) => weight.read().data<'float32'>()));
    return {
      config: this.config,
      vocabulary: this.alphabet.vocabulary,
      weights: values,
      isNew: this.isNew,
      step: this.step,
    };
  }

  get numLayers(): number {
    return this.layers.length;
  }

  /** The edits of each layer. They act at once, but while the model trains. */
  edit(edits: readonly Edits[]): void {
    this.edits = this.layers.map((_, layer) => edits[layer] ?? noEdits());
    if (!this.isTraining) {
      this.applyEdits();
    }
  }

  /** The routes of each character of a text, one for each layer. */
  async routesOf(text: string): Promise<Route[][]> {
    await this.hush();
    return text === '' ? [] : routesOf(this, text);
  }

  /** Speaks until the length is reached, or until hush. */
  async speak(prompt: string, temperature: number, length: number, onCharacter: OnCharacter): Promise<void> {
    await this.hush();
    this.stopper = new AbortController();
    const {signal} = this.stopper;
    const spoken = speak(this, prompt, {length, temperature, signal, onCharacter});
    this.speaking = spoken.catch(() => {});
    await spoken.catch((error: unknown) => {
      if (!signal.aborted) {
        throw error;
      }
    });
  }

  async hush(): Promise<void> {
    this.stopper.abort();
    await this.speaking;
  }

  /** The loss of a text in bits a character, with the edits or without. */
  async bitsOf(text: string, isEdited: boolean): Promise<number> {
    const windows = windowsOf(this.alphabet.encode(text), [0], text.length - 1, this.alphabet.size);
    const wasEdited = this.edits.some(isAnyEdited) && !this.isTraining;
    if (wasEdited && !isEdited) {
      this.undoEdits();
    }
    // It calls the model before it waits for the loss, which is when edits may come back.
    const bits = unrecorded(this.model, () => bitsPerCharacter(this.model, windows));
    if (wasEdited && !isEdited) {
      this.applyEdits();
    }
    return bits.finally(() => tf.dispose(windows));
  }

  /** A step on windows of a text. A speech ends before. */
  async trainStep(text: readonly number[], isOnGpu: boolean): Promise<TextProgress> {
    if (!this.isTraining) {
      await this.hush();
      this.isTraining = true;
      this.undoEdits();
      tf.dispose(this.base);
    }
    const {batchSize, windowLength, learningRate} = stepAmounts(this.isNew, isOnGpu);
    const start = performance.now();
    this.step++;
    this.optimizer.setLearningRate(learningRate * Math.min(1, this.step / WARM_UP_STEPS));
    const starts = randomStarts(text.length - windowLength, batchSize);
    const {ids, targets} = windowsOf(text, starts, windowLength, this.alphabet.size);
    const [, nats] = (await this.model.trainOnBatch(ids, targets)) as number[];
    tf.dispose([ids, targets]);
    const loads = await expertLoads(this.model);
    const seconds = (performance.now() - start) / 1000;
    return {step: this.step, bits: nats / Math.LN2, loads, charactersPerSecond: (batchSize * windowLength) / seconds};
  }

  /** Edits act again, on the weights that were learned. */
  endTraining(): void {
    if (this.isTraining) {
      this.isTraining = false;
      this.takeBase();
      this.applyEdits();
    }
  }

  async dispose(): Promise<void> {
    await this.hush();
    if (!this.isTraining) {
      tf.dispose(this.base);
    }
    this.model.dispose();
    this.optimizer.dispose();
  }

  private takeBase(): void {
    this.base = this.layers.map((layer) => {
      const [, w1, w2] = layer.getWeights() as tf.Tensor3D[];
      return tf.tidy(() => ({w1: tf.keep(tf.clone(w1)), w2: tf.keep(tf.clone(w2))}));
    });
  }

  private applyEdits(): void {
    this.setExperts((layer) => this.edits[layer] ?? noEdits());
  }

  private undoEdits(): void {
    if (!this.isTraining) {
      this.setExperts(noEdits);
    }
  }

  private setExperts(editsOf: (layer: number) => Edits): void {
    tf.tidy(() =>
      this.layers.forEach((layer, l) => {
        const edits = editsOf(l);
        const {w1, w2} = editedExperts(this.base[l], edits);
        layer.setWeights([layer.getWeights()[0], w1, w2, silenceOf(edits)]);
      }),
    );
  }
}

/** The model with a score correction bias in each layer, by which experts are silenced. The given one goes. */
async function editable(model: tf.LayersModel): Promise<tf.LayersModel> {
  type SavedLayer = {class_name: string; config: {[name: string]: unknown}};
  const saved = model.toJSON(null, false) as unknown as {config: {layers: SavedLayer[]}};
  for (const {class_name: className, config} of saved.config.layers) {
    if (className === 'MixtureOfExperts') {
      config.use_score_correction_bias = true;
    }
  }
  const made = await tf.models.modelFromJSON(saved as unknown as Parameters<typeof tf.models.modelFromJSON>[0]);
  for (const layer of made.layers) {
    const weights = model.getLayer(layer.name).getWeights();
    layer.setWeights(layer.getClassName() === 'MixtureOfExperts' ? [...weights, layer.getWeights()[3]] : weights);
  }
  model.dispose();
  return made;
}
