/** What the page asks of the language model in its worker. The model is loaded when it is first asked for. */
import {proxyMarker} from 'comlink';
import type {Route} from '../../examples/text/routes';
import {loadText} from './files';
import {type Edits, isAnyEdited} from './settings';
import type {OnCharacter, TextNet, TextNetState, TextProgress} from './text_net';

/** The routes of each character, one for each layer. */
export type RoutedText = {routes: Route[][]; numLayers: number};

/** The loss on the held-out passage, in bits a character. */
export type TextLoss = {bits: number; bitsWithoutEdits: number};

/** The held-out loss is there now and then, and without edits. */
export type TextReport = TextProgress & {heldOutBits?: number};

const STEPS_PER_EVALUATION = 10;
/** Windows of the held-out passage. The worker hears of other calls after each. */
const NUM_WINDOWS = 4;

export class TextEngine {
  readonly [proxyMarker] = true;
  private net: Promise<TextNet> | undefined;
  /** The model between two backends. */
  private state: TextNetState | undefined;
  private edits: Edits[] = [];
  /** Changes with the model and its edits. */
  private version = 0;
  private passage: string | undefined;
  private trainingIds: number[] | undefined;
  /** The last training goes on until this changes. */
  private numTrainings = 0;

  /** `inTurn` lets one call follow the other, each to its end. */
  constructor(private readonly inTurn: <T>(call: () => Promise<T>) => Promise<T>) {}

  async route(text: string): Promise<RoutedText> {
    return this.withNet(async (net) => ({routes: await net.routesOf(text), numLayers: net.numLayers}));
  }

  /** The edits of the experts of each layer. */
  async edit(edits: Edits[]): Promise<void> {
    this.edits = edits;
    this.version++;
    // A model that does not load has no edits. Whoever asked for it hears of it.
    await this.inTurn(async () => (await this.net?.catch(() => undefined))?.edit(this.edits));
  }

  /** Speaks until the length is reached, or until hush. A training ends before. */
  async speak(
    prompt: string,
    {temperature, length}: {temperature: number; length: number},
    onCharacter: OnCharacter,
  ): Promise<void> {
    await this.pause();
    // The speech begins in turn, and does not keep other calls waiting.
    const {speech} = await this.withNet(async (net) => ({
      speech: net.speak(prompt, temperature, length, onCharacter),
    }));
    await speech;
  }

  async hush(): Promise<void> {
    await (await this.net?.catch(() => undefined))?.hush();
  }

  /** Undefined if the model is not loaded, or changes meanwhile. */
  async loss(): Promise<TextLoss | undefined> {
    const net = await this.net;
    if (net == null) {
      return undefined;
    }
    const isEdited = this.edits.slice(0, net.numLayers).some(isAnyEdited);
    const {version} = this;
    const bitsWithoutEdits = await this.bits(version, false);
    const bits = isEdited ? await this.bits(version, true) : bitsWithoutEdits;
    return bits == null || bitsWithoutEdits == null ? undefined : {bits, bitsWithoutEdits};
  }

  /** Trains until pause, or for a number of steps. `isOnGpu`: on a hardware GPU, which takes more text in a step. */
  async train(onReport: (report: TextReport) => void, isOnGpu: boolean, numSteps = Infinity): Promise<void> {
    const training = ++this.numTrainings;
    const isLast = () => this.numTrainings === training;
    const {alphabet} = await this.loaded();
    this.trainingIds ??= alphabet.encode(await loadText('text/training.text'));
    const ids = this.trainingIds;
    for (let i = 1; i <= numSteps && isLast(); i++) {
      const progress = await this.withNet(async (net) => (isLast() ? net.trainStep(ids, isOnGpu) : undefined));
      if (progress != null) {
        this.version++;
        const isEvaluated = progress.step % STEPS_PER_EVALUATION === 0;
        onReport({...progress, heldOutBits: isEvaluated ? await this.bits(this.version, false) : undefined});
      }
      // Calls of the page come in between.
      await new Promise((resolve) => setTimeout(resolve));
    }
    await this.inTurn(async () => {
      if (isLast()) {
        (await this.net)?.endTraining();
        this.version++;
      }
    });
  }

  /** Ends the training. */
  async pause(): Promise<void> {
    this.numTrainings++;
    await this.inTurn(async () => (await this.net?.catch(() => undefined))?.endTraining());
  }

  /** The trained weights, or new ones: of a larger model for a hardware GPU. */
  async restart(from: 'trained' | 'new', isOnGpu: boolean): Promise<void> {
    await this.pause();
    await this.withNet(async (net) => {
      const {vocabulary} = net.alphabet;
      await net.dispose();
      const {TextNet} = await import('./text_net');
      await this.use(from === 'trained' ? TextNet.load() : TextNet.random(vocabulary, isOnGpu));
    });
  }

  /** Before another backend starts: the model goes on there as it is. Call it in turn. */
  async leaveBackend(): Promise<void> {
    this.numTrainings++;
    this.version++;
    const net = await this.net?.catch(() => undefined);
    this.net = undefined;
    if (net != null) {
      await net.hush();
      this.state = await net.state();
      await net.dispose();
    }
  }

  /** In turn, with the model of then: a call that came before may have made another, or taken it from its backend. */
  private async withNet<T>(call: (net: TextNet) => Promise<T>): Promise<T> {
    await this.loaded();
    return this.inTurn(async () => call(await this.loaded()));
  }

  private loaded(): Promise<TextNet> {
    const {state} = this;
    return (
      this.net ??
      this.use(import('./text_net').then(({TextNet}) => (state == null ? TextNet.load() : TextNet.restore(state))))
    );
  }

  private use(made: Promise<TextNet>): Promise<TextNet> {
    const net = made.then((ready) => {
      ready.edit(this.edits);
      return ready;
    });
    this.version++;
    this.net = net;
    net.then(
      () => (this.state = undefined),
      () => (this.net = undefined),
    );
    return net;
  }

  /** The mean of all windows. Undefined if the model changes meanwhile. */
  private async bits(version: number, isEdited: boolean): Promise<number | undefined> {
    this.passage ??= await loadText('text/held_out.text');
    const length = (this.passage.length - 1) / NUM_WINDOWS;
    let sum = 0;
    for (let i = 0; i < NUM_WINDOWS; i++) {
      const window = this.passage.slice(i * length, (i + 1) * length + 1);
      const bits = await this.inTurn(async () =>
        this.version === version ? (await this.net)?.bitsOf(window, isEdited) : undefined,
      );
      if (bits == null) {
        return undefined;
      }
      sum += bits;
    }
    return sum / NUM_WINDOWS;
  }
}
