/** The live page: what is shown, what a visitor does, and the worker that computes. */
import {proxy, wrap} from 'comlink';
import {html, render} from 'lit-html';
import type {BackendName} from './engine/backend_names';
import type {Engine, Progress} from './engine/engine';
import {defaultSettings, eachExpert, type Settings} from './engine/settings';
import {latest} from './latest';
import {imageOf} from './pen';
import {choiceOf, hashOf, type PageState, type Stroke} from './state';
import {textActions} from './text_actions';
import {digitsView} from './views/digits_view';
import {fly} from './views/flow';
import {expertsView} from './views/experts_view';
import {header} from './views/header';
import {machineView} from './views/machine_view';
import {whenNear} from './views/parts';
import {textView} from './views/text_view';
import {type Remedy, trainingView} from './views/training_view';

const engine = wrap<Engine>(new Worker(new URL('worker.js', import.meta.url), {type: 'module'}));

const state: PageState = {
  ...choiceOf(location.hash),
  status: 'Loading …',
  hasFailed: false,
  offers: [],
  training: {isRunning: false, history: []},
  speech: {isSpeaking: false, status: '', numLayers: 0, spoken: []},
  textTraining: {isRunning: false, status: '', history: []},
  isPermuted: false,
  isMeasuring: false,
};
let labels: number[] = [];

const root = document.querySelector<HTMLElement>('#page')!;
let isDrawing = false;

/** Shows the state in the next frame. */
function show(): void {
  if (!isDrawing) {
    isDrawing = true;
    requestAnimationFrame(() => {
      isDrawing = false;
      showNow();
    });
  }
}

const sections = [
  () => digitsView(state, {draw, clear, sample, selectExpert, change}),
  () => expertsView(state),
  () => trainingView(state, {train, pause, stepOnce, restart, tellStory, change}),
  () => textView(state, actionsOnText),
  () => machineView(state, {permute, measure}),
];
let numShown = 1;

function showNow(): void {
  const shown = sections.slice(0, numShown).map((section) => section());
  render(html`${header(state, {useBackend})} <main>${shown}</main>`, root);
}

/** A frame for each section below the first: all at once would block the page. */
async function showOtherSections(): Promise<void> {
  while (numShown < sections.length) {
    await new Promise(requestAnimationFrame);
    numShown++;
    showNow();
  }
}

/** Only at times: browsers limit how often an address may change. */
let addressTimer: ReturnType<typeof setTimeout> | undefined;
function noteAddress(): void {
  clearTimeout(addressTimer);
  addressTimer = setTimeout(() => history.replaceState(null, '', `#${hashOf(state)}`), 300);
}

/** Whether the running backend is on a GPU that is hardware. */
const isOnGpu = (): boolean =>
  state.running !== 'cpu' && state.offers.some(({name, isSoftware}) => name === state.running && !isSoftware);

const actionsOnText = textActions({text: engine.text, state, show, noteAddress, isOnGpu});

function fail(error: unknown): void {
  state.status = error instanceof Error ? error.message : String(error);
  state.hasFailed = true;
  show();
}

let isFlightWanted = true;
let areExpertsSeen = false;

const routeAgain = latest(async () => {
  if (state.running == null || state.pixels == null) {
    return;
  }
  const wantsFlight = isFlightWanted;
  isFlightWanted = false;
  try {
    state.routed = await engine.route(state.pixels);
    showNow();
    if (wantsFlight) {
      fly(root);
    }
  } catch (error) {
    fail(error);
  }
});

const evaluateAgain = latest(async () => {
  try {
    state.evaluation = await engine.evaluate();
    show();
  } catch (error) {
    fail(error);
  }
});

const showExpertsAgain = latest(async () => {
  try {
    const found = await engine.expertPatches();
    // A frame for each: all bitmaps at once would block the page.
    for (const expert of found.keys()) {
      state.experts = [...found.slice(0, expert + 1), ...(state.experts ?? []).slice(expert + 1)];
      showNow();
      await new Promise(requestAnimationFrame);
    }
  } catch (error) {
    fail(error);
  }
});

/** Shows what the settings or the weights have changed. */
function answerAgain(): void {
  isFlightWanted = true;
  routeAgain();
  evaluateAgain();
  if (areExpertsSeen) {
    showExpertsAgain();
  }
}

function change(settings: Partial<Settings>): void {
  state.settings = {...state.settings, ...settings};
  noteAddress();
  show();
  const areOfTraining = Object.keys(settings).every((name) => ['balance', 'biasRate', 'jitter'].includes(name));
  void engine.configure(state.settings).then(() => areOfTraining || answerAgain(), fail);
}

function selectExpert(expert: number): void {
  state.expert = state.expert === expert ? undefined : expert;
  noteAddress();
  show();
}

function draw(strokes: Stroke[], isDone: boolean): void {
  state.picture = {strokes};
  state.label = undefined;
  state.pixels = imageOf(strokes);
  isFlightWanted ||= isDone;
  show();
  routeAgain();
  if (isDone) {
    noteAddress();
  }
}

function clear(): void {
  state.picture = {strokes: []};
  state.label = undefined;
  state.pixels = undefined;
  state.routed = undefined;
  noteAddress();
  show();
}

/** The next held-out digit; of a class, if one is named. */
function sample(digit?: number): void {
  const last = 'sample' in state.picture ? state.picture.sample : -1;
  const order = labels.map((_, i) => (last + 1 + i) % labels.length);
  const next = order.find((index) => digit == null || labels[index] === digit);
  if (next != null) {
    state.picture = {sample: next};
    noteAddress();
    void showPicture().catch(fail);
  }
}

async function showPicture(): Promise<void> {
  const {picture} = state;
  if ('sample' in picture) {
    const {pixels, label} = await engine.sample(picture.sample);
    Object.assign(state, {pixels, label});
  } else {
    state.pixels = imageOf(picture.strokes);
  }
  isFlightWanted = true;
  show();
  routeAgain();
}

async function useBackend(name: BackendName): Promise<void> {
  state.backend = name;
  noteAddress();
  await startBackend(name);
}

let numStarting = 0;

async function startBackend(name: BackendName): Promise<void> {
  // While another backend starts, the running one may be asked for again.
  if (name === state.running && numStarting === 0) {
    return;
  }
  numStarting++;
  state.status = `Starting ${name} …`;
  state.hasFailed = false;
  show();
  try {
    await engine.useBackend(name);
    state.running = name;
    state.status = '';
    answerAgain();
  } catch (error) {
    fail(error);
  }
  numStarting--;
  show();
}

/** A training that another one follows is over. */
let numTrainings = 0;

/** Trains for a number of steps, or until pause. */
async function trainFor(numSteps?: number): Promise<void> {
  const {training} = state;
  const thisOne = ++numTrainings;
  training.isRunning = true;
  show();
  try {
    await engine.train(proxy(noteProgress), numSteps);
  } catch (error) {
    fail(error);
  }
  if (thisOne === numTrainings) {
    training.isRunning = false;
    answerAgain();
    show();
  }
}

function noteProgress(progress: Progress): void {
  state.training.history.push(progress);
  if (progress.accuracy != null && state.evaluation != null) {
    state.evaluation = {...state.evaluation, accuracy: progress.accuracy};
  }
  show();
  routeAgain();
}

const train = (): void => void trainFor();
const stepOnce = (): void => void trainFor(1);

function pause(): void {
  state.training.story = undefined;
  void engine.pause();
}

function restart(from: 'trained' | number): void {
  state.training.history = [];
  void engine.restart(from).then(answerAgain, fail);
}

/** New weights whose load collapses within a few steps. Of others it does so sooner, later, or not so far. */
const STORY_SEED = 5;

const remedies = {
  loss: {balance: 0.1, biasRate: 0, text: 'Now with the balancing loss: the others come back.'},
  bias: {balance: 0, biasRate: 0.02, text: 'Now with the balancing bias, and still no loss: the others come back.'},
};

/** Trains new weights without balance, and then with a remedy. Pause ends the story where it is. */
async function tell(remedy: Remedy): Promise<void> {
  const {training} = state;
  const isTold = (): boolean => training.story != null;
  training.story = 'Starting from new weights.';
  await engine.pause();
  restart(STORY_SEED);
  const acts = [
    {balance: 0, biasRate: 0, numSteps: 30, text: 'One expert a patch, and no balance: few experts get everything.'},
    {...remedies[remedy], numSteps: 40},
  ];
  for (const {numSteps, text, ...balance} of acts) {
    if (isTold()) {
      training.story = text;
      change({topk: 1, capacityFactor: null, jitter: 0, ...balance, silenced: eachExpert(() => false)});
      await trainFor(numSteps);
    }
  }
  training.story = undefined;
  show();
}

const tellStory = (remedy: Remedy): void => void tell(remedy);
const measure = (): void => void measureNow();

function permute(): void {
  state.isPermuted = !state.isPermuted;
  show();
}

async function measureNow(): Promise<void> {
  state.isMeasuring = true;
  show();
  try {
    state.measurement = await engine.measure(isOnGpu());
  } catch (error) {
    fail(error);
  }
  state.isMeasuring = false;
  show();
}

async function start(): Promise<void> {
  showNow();
  const allSections = showOtherSections();
  const {picture, settings} = state;
  const first = await engine.start(settings, 'sample' in picture ? picture.sample : imageOf(picture.strokes));
  ({labels} = first);
  Object.assign(state, {pixels: first.pixels, label: first.label, routed: first.routed, running: 'cpu', status: ''});
  showNow();
  fly(root);
  evaluateAgain();
  state.trainedAccuracy = (await engine.evaluate(defaultSettings())).accuracy;
  await allSections;
  whenNear(root.querySelector('#experts')!, () => {
    areExpertsSeen = true;
    showExpertsAgain();
  });
  const {offers, best} = await engine.offers();
  state.offers = offers;
  await startBackend(state.backend ?? best);
  show();
}

addEventListener('hashchange', () => {
  Object.assign(state, {expert: undefined, textExpert: undefined, backend: undefined, ...choiceOf(location.hash)});
  change(state.settings);
  actionsOnText.edit({});
  if (state.backend != null && state.running != null) {
    void startBackend(state.backend);
  }
  void showPicture().catch(fail);
});

start().catch(fail);
