/**
 * Rotary position embeddings: pairs of a head's elements, half a head apart, turn by an angle that grows with the
 * position. Frequencies are those of transformers' modeling_rope_utils, in float32 as there.
 */
import {add, mul, reshape, reverse, slice, type Tensor2D, tensor2d, type Tensor4D} from '@tensorflow/tfjs-core';
import {assert, checkBoolean, checkOneOf, checkOptions, describeValue, isPlainObject} from '../arguments/checks';
import {checkPositive} from './numbers';

/** Every wave longer by a factor. */
export type LinearRotaryScaling = {
  /** The name of the scaling. */
  type: 'linear';
  /** By how much waves become longer. */
  factor: number;
};

/** Long waves longer by a factor, short waves as they are, and those between in between, as Llama 3.1 has them. */
export type Llama3RotaryScaling = {
  /** The name of the scaling. */
  type: 'llama3';
  /** By how much long waves become longer. */
  factor: number;
  /** Waves are long if fewer than this fit into the original context. */
  lowFreqFactor: number;
  /** Waves are short if more than this fit into the original context. */
  highFreqFactor: number;
  /** The number of positions before the context was extended. */
  originalMaxPositions: number;
};

/** YaRN: as llama3, with a ramp over the pairs of a head and a factor of queries and keys. */
export type YarnRotaryScaling = {
  /** The name of the scaling. */
  type: 'yarn';
  /** By how much long waves become longer. */
  factor: number;
  /** The number of positions before the context was extended. */
  originalMaxPositions: number;
  /** The number of turns in the original context above which a wave is short. Default 32. */
  betaFast?: number | null;
  /** The number of turns in the original context below which a wave is long. Default 1. */
  betaSlow?: number | null;
  /** The factor of queries and keys. Default 0.1 ln(factor) + 1, and 1 for a factor of at most 1. */
  attentionFactor?: number | null;
  /** Whether the ends of the ramp are whole numbers of pairs. Default true. */
  truncate?: boolean | null;
};

/** How the waves of a rotary embedding follow from those of training, in a longer context. */
export type RotaryScaling = LinearRotaryScaling | Llama3RotaryScaling | YarnRotaryScaling;

/** What determines the angles. */
export type Rotation = {headDim: number; rotaryBase: number; rotaryScaling: RotaryScaling | null};

/** The angles of consecutive positions: cos [P, D], and sin [P, D], negative in the first half of a head. */
export type RotaryTable = {cos: Tensor2D; sin: Tensor2D};

const {fround} = Math;

const namesOf = {
  linear: ['type', 'factor'],
  llama3: ['type', 'factor', 'lowFreqFactor', 'highFreqFactor', 'originalMaxPositions'],
  yarn: ['type', 'factor', 'originalMaxPositions', 'betaFast', 'betaSlow', 'attentionFactor', 'truncate'],
} as const;

/** The scaling with its defaults, as a config holds it. */
export function checkRotaryScaling(given: RotaryScaling | null | undefined, opName: string): RotaryScaling | null {
  if (given == null) {
    return null;
  }
  assert(
    isPlainObject(given),
    opName,
    () => `rotaryScaling must be an object with type and factor, but is ${describeValue(given)}.`,
  );
  const type = checkOneOf(given.type, ['linear', 'llama3', 'yarn'], 'rotaryScaling.type', opName);
  const options = checkOptions<Record<string, unknown>>(given, namesOf[type], opName, 'rotaryScaling');
  const positive = (name: string, byDefault?: number) =>
    checkPositive((options[name] ?? byDefault) as number, `rotaryScaling.${name}`, opName);
  const factor = positive('factor');
  switch (type) {
    case 'linear':
      return {type, factor};
    case 'llama3': {
      const lowFreqFactor = positive('lowFreqFactor');
      const highFreqFactor = positive('highFreqFactor');
      assert(
        highFreqFactor > lowFreqFactor,
        opName,
        () =>
          `rotaryScaling.highFreqFactor must be more than lowFreqFactor (${lowFreqFactor}), but is ${highFreqFactor}.`,
      );
      return {type, factor, lowFreqFactor, highFreqFactor, originalMaxPositions: positive('originalMaxPositions')};
    }
    case 'yarn': {
      const byDefault = factor <= 1 ? 1 : 0.1 * Math.log(factor) + 1;
      const truncate = (options.truncate ?? true) as boolean;
      return {
        type,
        factor,
        originalMaxPositions: positive('originalMaxPositions'),
        betaFast: positive('betaFast', 32),
        betaSlow: positive('betaSlow', 1),
        attentionFactor: positive('attentionFactor', byDefault),
        truncate: checkBoolean(truncate, 'rotaryScaling.truncate', opName),
      };
    }
  }
}

/** The angle by which each pair of a head's elements turns from one position to the next. */
export function rotaryFrequencies({headDim, rotaryBase, rotaryScaling}: Rotation): number[] {
  const plain = Array.from({length: headDim / 2}, (_, i) =>
    fround(1 / fround(rotaryBase ** fround((2 * i) / headDim))),
  );
  switch (rotaryScaling?.type) {
    case undefined:
      return plain;
    case 'linear':
      return plain.map((frequency) => fround(frequency / rotaryScaling.factor));
    case 'llama3':
      return plain.map((frequency) => llama3Frequency(frequency, rotaryScaling));
    case 'yarn':
      return yarnFrequencies(plain, headDim, rotaryBase, rotaryScaling);
  }
}

/** Short waves stay, long waves become longer by the factor, and those between are between. */
function llama3Frequency(frequency: number, scaling: Llama3RotaryScaling): number {
  const {factor, lowFreqFactor, highFreqFactor, originalMaxPositions} = scaling;
  const numWaves = (originalMaxPositions * frequency) / (2 * Math.PI);
  const kept = Math.min(Math.max((numWaves - lowFreqFactor) / (highFreqFactor - lowFreqFactor), 0), 1);
  return fround(((1 - kept) * frequency) / factor + kept * frequency);
}

function yarnFrequencies(plain: number[], headDim: number, rotaryBase: number, scaling: YarnRotaryScaling): number[] {
  const {factor, originalMaxPositions, betaFast, betaSlow, truncate} = scaling;
  // The pair, as a real number, that turns so many times in the original context.
  const pairOf = (numTurns: number) =>
    (headDim * Math.log(originalMaxPositions / (numTurns * 2 * Math.PI))) / (2 * Math.log(rotaryBase));
  const [first, last] = [pairOf(betaFast!), pairOf(betaSlow!)];
  const low = Math.max(truncate ? Math.floor(first) : first, 0);
  const high = Math.min(truncate ? Math.ceil(last) : last, headDim - 1);
  const width = high === low ? 0.001 : high - low;
  return plain.map((frequency, i) => {
    const scaled = Math.min(Math.max((i - low) / width, 0), 1);
    return fround((frequency / factor) * scaled + frequency * (1 - scaled));
  });
}

/** The angles of the positions 0..numPositions-1. */
export function rotaryTable(numPositions: number, rotation: Rotation): RotaryTable {
  const {headDim} = rotation;
  const cos = new Float32Array(numPositions * headDim);
  const sin = new Float32Array(numPositions * headDim);
  forEachAngle(numPositions, rotation, (first, second, cosine, sine) => {
    cos[first] = cos[second] = cosine;
    sin[first] = -sine;
    sin[second] = sine;
  });
  return {cos: tensor2d(cos, [numPositions, headDim]), sin: tensor2d(sin, [numPositions, headDim])};
}

/** The same as kernels take it, [P, D]: the cosines of the D/2 pairs, then their sines. */
export function anglesTable(numPositions: number, rotation: Rotation): Tensor2D {
  const angles = new Float32Array(numPositions * rotation.headDim);
  forEachAngle(numPositions, rotation, (first, second, cosine, sine) => {
    angles[first] = cosine;
    angles[second] = sine;
  });
  return tensor2d(angles, [numPositions, rotation.headDim]);
}

/** `first` and `second` are the places of a pair in a row of D for each position. */
function forEachAngle(
  numPositions: number,
  rotation: Rotation,
  take: (first: number, second: number, cosine: number, sine: number) => void,
): void {
  const {headDim, rotaryScaling} = rotation;
  const frequencies = rotaryFrequencies(rotation);
  const size = rotaryScaling?.type === 'yarn' ? rotaryScaling.attentionFactor! : 1;
  for (let position = 0; position < numPositions; position++) {
    frequencies.forEach((frequency, i) => {
      const angle = fround(position * frequency);
      const first = position * headDim + i;
      take(first, first + headDim / 2, Math.cos(angle) * size, Math.sin(angle) * size);
    });
  }
}

/** `numPositions` rows of the table from row `start` on. */
export function rowsOfTable({cos, sin}: RotaryTable, start: number, numPositions: number): RotaryTable {
  return cos.shape[0] === numPositions
    ? {cos, sin}
    : {cos: slice(cos, [start, 0], [numPositions, -1]), sin: slice(sin, [start, 0], [numPositions, -1])};
}

/** Turns the heads of x [B, S, N, D], of which position s has row s of the table. */
export function rotate(x: Tensor4D, {cos, sin}: RotaryTable): Tensor4D {
  const [, numPositions, , headDim] = x.shape;
  const ofHeads = [numPositions, 1, headDim];
  const halves = reshape(x, [x.size / headDim, 2, headDim / 2]);
  const swapped = reshape(reverse(halves, 1), x.shape);
  return add(mul(x, reshape(cos, ofHeads)), mul(swapped, reshape(sin, ofHeads)));
}
