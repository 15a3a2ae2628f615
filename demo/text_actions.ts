/** What a visitor does with the language model. */
import {proxy, type Remote} from 'comlink';
import type {Edits} from './engine/settings';
import type {TextEngine, TextReport} from './engine/text_engine';
import {latest} from './latest';
import type {PageState} from './state';

export type TextChoice = Partial<Pick<PageState, 'prompt' | 'temperature' | 'layer' | 'textExpert'>>;

export type TextActions = {
  /** Loads the model, and shows the prompt's routes. */
  open(): void;
  speak(): void;
  hush(): void;
  choose(change: TextChoice): void;
  /** Edits experts of the chosen layer. */
  edit(edits: Partial<Edits>): void;
  point(character: number): void;
  train(numSteps?: number): void;
  pause(): void;
  restart(from: 'trained' | 'new'): void;
};

/** What the actions need of the page. */
export type TextPage = {
  text: Remote<TextEngine>;
  state: PageState;
  show(): void;
  noteAddress(): void;
  isOnGpu(): boolean;
};

const SPEECH_LENGTH = 400;
/** Of a visitor who types. */
const PAUSE_MS = 80;

const wordsOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

export function textActions({text, state, show, noteAddress, isOnGpu}: TextPage): TextActions {
  const {speech, textTraining} = state;
  let numSpeeches = 0;
  let numTrainings = 0;

  /** Models differ in how many layers they have. */
  const noteLayers = (numLayers: number): void => {
    speech.numLayers = numLayers;
    state.layer = Math.min(state.layer, numLayers - 1);
  };

  const loading = (): void => {
    if (speech.numLayers === 0) {
      speech.status = 'Loading the model, 1 MB …';
      show();
    }
  };

  const routeAgain = latest(async () => {
    const {prompt} = state;
    const routing = numSpeeches;
    try {
      loading();
      const {routes, numLayers} = await text.route(prompt);
      // A speech that began meanwhile tells its own prompt.
      if (routing === numSpeeches) {
        noteLayers(numLayers);
        const spoken = Array.from(prompt, (character, i) => ({character, routes: routes[i]}));
        Object.assign(speech, {spoken, status: '', pointed: undefined});
      }
    } catch (error) {
      speech.status = wordsOf(error);
    }
    show();
  });

  const measureAgain = latest(async () => {
    try {
      const loss = await text.loss();
      speech.loss = loss ?? speech.loss;
      show();
    } catch (error) {
      speech.status = wordsOf(error);
      show();
    }
  });

  /** After a change of the model. */
  const answerAgain = (): void => {
    if (!speech.isSpeaking) {
      routeAgain();
    }
    measureAgain();
  };

  const open = (): void => {
    if (speech.numLayers === 0) {
      void text.edit(state.textEdits);
      answerAgain();
    }
  };

  async function hush(): Promise<void> {
    numSpeeches++;
    speech.isSpeaking = false;
    show();
    await text.hush();
  }

  let timer: ReturnType<typeof setTimeout> | undefined;
  function type(): void {
    void hush();
    clearTimeout(timer);
    timer = setTimeout(routeAgain, PAUSE_MS);
  }

  async function speak(): Promise<void> {
    const {prompt, temperature} = state;
    const isNew = speech.numLayers === 0;
    const thisOne = ++numSpeeches;
    loading();
    Object.assign(speech, {isSpeaking: true, spoken: [], pointed: undefined});
    show();
    const hear = (character: string, routes: PageState['speech']['spoken'][number]['routes']): void => {
      if (thisOne === numSpeeches) {
        speech.status = '';
        noteLayers(routes.length);
        speech.spoken.push({character, routes});
        show();
      }
    };
    let status = '';
    try {
      await text.edit(state.textEdits);
      await text.speak(prompt, {temperature, length: SPEECH_LENGTH}, proxy(hear));
    } catch (error) {
      status = wordsOf(error);
    }
    if (isNew) {
      measureAgain();
    }
    if (thisOne === numSpeeches) {
      Object.assign(speech, {isSpeaking: false, status});
      show();
    }
  }

  async function train(numSteps?: number): Promise<void> {
    const thisOne = ++numTrainings;
    await hush();
    Object.assign(textTraining, {isRunning: true, status: textTraining.history.length > 0 ? '' : 'Loading the text …'});
    show();
    const hear = (report: TextReport): void => {
      textTraining.history.push(report);
      const {heldOutBits} = report;
      speech.loss = heldOutBits == null ? speech.loss : {bits: heldOutBits, bitsWithoutEdits: heldOutBits};
      textTraining.status = '';
      show();
    };
    try {
      await text.train(proxy(hear), isOnGpu(), numSteps);
    } catch (error) {
      textTraining.status = wordsOf(error);
    }
    if (thisOne === numTrainings) {
      textTraining.isRunning = false;
      answerAgain();
      show();
    }
  }

  async function restart(from: 'trained' | 'new'): Promise<void> {
    await hush();
    Object.assign(textTraining, {history: [], status: ''});
    speech.loss = undefined;
    loading();
    try {
      await text.restart(from, isOnGpu());
    } catch (error) {
      textTraining.status = wordsOf(error);
    }
    answerAgain();
  }

  return {
    open,
    speak: () => void speak(),
    hush: () => void hush(),
    choose(change) {
      Object.assign(state, change);
      noteAddress();
      show();
      if (change.prompt != null) {
        type();
        open();
      }
    },
    edit(edits) {
      // An address may name a layer that this model has not.
      if (speech.numLayers > 0) {
        noteLayers(speech.numLayers);
      }
      state.textEdits = state.textEdits.map((ofLayer, layer) =>
        layer === state.layer ? {...ofLayer, ...edits} : ofLayer,
      );
      noteAddress();
      show();
      // Before the model is loaded nothing answers.
      void text
        .edit(state.textEdits)
        .then(() => speech.numLayers > 0 && answerAgain())
        .catch((error: unknown) => {
          speech.status = wordsOf(error);
          show();
        });
    },
    point(character) {
      speech.pointed = character;
      show();
    },
    train: (numSteps) => void train(numSteps),
    pause: () => void text.pause(),
    restart: (from) => void restart(from),
  };
}
