/** What the page shows. The part that a visitor chose is in the address, so that a link brings it back. */
import {type BackendName, backendNames} from './engine/backend_names';
import type {Offer} from './engine/backends';
import type {Evaluation, ExpertPatches, Measurement, Progress, Routed} from './engine/engine';
import {defaultSettings, type Edits, eachExpert, noEdits, NUM_EXPERTS, type Settings} from './engine/settings';
import type {Route} from '../examples/text/routes';
import type {TextLoss, TextReport} from './engine/text_engine';

/** A stroke of a pen: points of 0..SIDE in a square. */
export type Stroke = {x: number; y: number}[];
export const SIDE = 200;

/** A held-out digit, or what the visitor drew. */
export type Picture = {sample: number} | {strokes: Stroke[]};

/** Part of the address. */
export type Choice = {
  settings: Settings;
  picture: Picture;
  expert?: number;
  backend?: BackendName;
  prompt: string;
  temperature: number;
  /** The layer of the language model whose experts give the colours and are edited. */
  layer: number;
  textExpert?: number;
  /** Of the experts of each layer of the language model. */
  textEdits: Edits[];
};

const usualText = {prompt: 'And the LORD said', temperature: 0.7, layer: 0};

/** A character of the language model, and its experts in each layer. */
export type Spoken = {character: string; routes: Route[]};
export type Speech = {
  isSpeaking: boolean;
  status: string;
  /** 0 before the model is loaded. */
  numLayers: number;
  spoken: Spoken[];
  /** The character whose experts are told: the last one unless another is pointed at. */
  pointed?: number;
  loss?: TextLoss;
};

export type TextTraining = {isRunning: boolean; status: string; history: TextReport[]};

export type TrainingState = {
  isRunning: boolean;
  /** What the story tells now, if it is being told. */
  story?: string;
  history: Progress[];
};

export type PageState = Choice & {
  /** What the page is doing, or why it cannot. */
  status: string;
  hasFailed: boolean;
  running?: BackendName;
  offers: Offer[];
  pixels?: Float32Array;
  label?: number;
  routed?: Routed;
  evaluation?: Evaluation;
  /** The accuracy without edits. */
  trainedAccuracy?: number;
  experts?: ExpertPatches[];
  training: TrainingState;
  speech: Speech;
  textTraining: TextTraining;
  /** Whether the rows of the machine are in the order of experts. */
  isPermuted: boolean;
  isMeasuring: boolean;
  measurement?: Measurement;
};

const MAX_K = 4;
/** Of the language model. */
export const MAX_LAYERS = 3;
export const MAX_PROMPT_LENGTH = 200;
/** Each character goes to two experts, so that two must be left. */
export const MOST_SILENCED = NUM_EXPERTS - 2;
const numberIn = (text: string | null, low: number, high: number, other: number): number => {
  const value = text == null || text === '' ? NaN : Number(text);
  return value >= low && value <= high ? value : other;
};
const integerIn = (text: string | null, high: number): number | undefined =>
  text != null && /^\d+$/.test(text) && Number(text) <= high ? Number(text) : undefined;

/** The edits of a layer, in words whose names end so. */
function noteEdits(words: URLSearchParams, end: string, {silenced, boosts, sources}: Edits): void {
  const experts = eachExpert((e) => e);
  const texts = {
    silent: experts.filter((e) => silenced[e]).join('.'),
    boost: experts
      .filter((e) => boosts[e] !== 1)
      .map((e) => `${e}x${boosts[e]}`)
      .join('_'),
    clone: experts
      .filter((e) => sources[e] !== e)
      .map((e) => `${sources[e]}-${e}`)
      .join('_'),
  };
  Object.entries(texts)
    .filter(([, text]) => text !== '')
    .forEach(([name, text]) => words.set(`${name}${end}`, text));
}

function editsOf(words: URLSearchParams, end: string, mostSilenced = NUM_EXPERTS): Edits {
  const edits = noEdits();
  const isExpert = (e: number) => Number.isInteger(e) && e >= 0 && e < NUM_EXPERTS;
  const pairs = (name: string, between: string) =>
    (words.get(`${name}${end}`) ?? '').split('_').map((pair) => pair.split(between).map(Number));
  (words.get(`silent${end}`) ?? '')
    .split('.')
    .filter((text) => text !== '' && isExpert(Number(text)))
    .slice(0, mostSilenced)
    .forEach((text) => (edits.silenced[Number(text)] = true));
  for (const [e, factor] of pairs('boost', 'x')) {
    if (isExpert(e) && factor >= 0 && factor <= 8) {
      edits.boosts[e] = factor;
    }
  }
  for (const [source, e] of pairs('clone', '-')) {
    if (isExpert(e) && isExpert(source)) {
      edits.sources[e] = source;
    }
  }
  return edits;
}

/** A choice as the part of an address after #. What is as usual is left out. */
export function hashOf({settings, picture, expert, backend, ...text}: Choice): string {
  const usual = defaultSettings();
  const words = new URLSearchParams();
  const note = (name: string, value: string | number, isUsual: boolean) => {
    if (!isUsual) {
      words.set(name, String(value));
    }
  };
  note('k', settings.topk, settings.topk === usual.topk);
  note('capacity', settings.capacityFactor ?? '', settings.capacityFactor == null);
  note('jitter', settings.jitter, settings.jitter === usual.jitter);
  note('balance', settings.balance, settings.balance === usual.balance);
  note('bias', settings.biasRate, settings.biasRate === usual.biasRate);
  noteEdits(words, '', settings);
  text.textEdits.forEach((edits, layer) => noteEdits(words, `.${layer}`, edits));
  if ('sample' in picture) {
    note('digit', picture.sample, picture.sample === 0);
  } else {
    note('strokes', textOf(picture.strokes), false);
  }
  note('expert', expert ?? '', expert == null);
  note('textExpert', text.textExpert ?? '', text.textExpert == null);
  note('backend', backend ?? '', backend == null);
  for (const name of ['prompt', 'temperature', 'layer'] as const) {
    note(name, text[name], text[name] === usualText[name]);
  }
  return words.toString();
}

/** The choice of an address. What makes no sense in it counts as not given. */
export function choiceOf(hash: string): Choice {
  const words = new URLSearchParams(hash.replace(/^#/, ''));
  const settings = defaultSettings();
  settings.topk = Math.max(1, integerIn(words.get('k'), MAX_K) ?? settings.topk);
  const capacity = numberIn(words.get('capacity'), 0.25, 8, 0);
  settings.capacityFactor = capacity === 0 ? null : capacity;
  settings.jitter = numberIn(words.get('jitter'), 0, 1, settings.jitter);
  settings.balance = numberIn(words.get('balance'), 0, 1, settings.balance);
  settings.biasRate = numberIn(words.get('bias'), 0, 1, settings.biasRate);
  Object.assign(settings, editsOf(words, ''));
  const strokes = strokesOf(words.get('strokes') ?? '');
  const picture = strokes.length > 0 ? {strokes} : {sample: integerIn(words.get('digit'), 499) ?? 0};
  const backend = backendNames.find((name) => name === words.get('backend'));
  return {
    settings,
    picture,
    expert: integerIn(words.get('expert'), NUM_EXPERTS - 1),
    backend,
    prompt: words.get('prompt')?.slice(0, MAX_PROMPT_LENGTH) ?? usualText.prompt,
    temperature: numberIn(words.get('temperature'), 0.1, 1.5, usualText.temperature),
    layer: integerIn(words.get('layer'), MAX_LAYERS - 1) ?? usualText.layer,
    textExpert: integerIn(words.get('textExpert'), NUM_EXPERTS - 1),
    textEdits: Array.from({length: MAX_LAYERS}, (_, layer) => editsOf(words, `.${layer}`, MOST_SILENCED)),
  };
}

/** A byte for each coordinate; SIDE + 1 ends a stroke. */
function textOf(strokes: readonly Stroke[]): string {
  const bytes = strokes.flatMap((stroke) => [...stroke.flatMap(({x, y}) => [Math.round(x), Math.round(y)]), SIDE + 1]);
  return btoa(String.fromCharCode(...bytes))
    .replaceAll('+', '-')
    .replaceAll('/', '_')
    .replaceAll('=', '');
}

function strokesOf(text: string): Stroke[] {
  const strokes: Stroke[] = [];
  try {
    const bytes = Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0));
    let stroke: Stroke = [];
    for (let i = 0; i < bytes.length;) {
      if (bytes[i] > SIDE) {
        strokes.push(stroke);
        stroke = [];
        i++;
      } else {
        stroke.push({x: bytes[i], y: bytes[i + 1] ?? 0});
        i += 2;
      }
    }
  } catch {
    // A text that is not base64 has no strokes.
  }
  return strokes.filter((stroke) => stroke.length > 0);
}
