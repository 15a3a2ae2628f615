/** The expected value of an output, and the comparison. */
import * as tf from '../../src/tf';
import {type Bounded, MAX_FLOAT32} from './bounded';

export type Wanted = {
  shape: number[];
  dtype: 'float32' | 'int32';
  values: ArrayLike<number>;
  /** The tolerance of each element. Without tolerances every bit must be equal. */
  errors?: ArrayLike<number>;
};

export const wantedInts = (values: number[], shape = [values.length]): Wanted => ({values, shape, dtype: 'int32'});
export const wantedBits = (values: number[], shape: number[], dtype: Wanted['dtype'] = 'float32'): Wanted => ({values, shape, dtype});
export const wantedNear = (bounded: Bounded, shape: number[]): Wanted => ({...bounded, shape, dtype: 'float32'});

/** Throws if an output is not the expected one. */
export function assertWanted(name: string, tensor: tf.Tensor, given: ArrayLike<number>, wanted: Wanted): void {
  const described = `${tensor.dtype} [${tensor.shape}]`;
  if (described !== `${wanted.dtype} [${wanted.shape}]`) {
    throw new Error(`${name} is ${described}, wanted ${wanted.dtype} [${wanted.shape}]`);
  }
  if (given.length !== wanted.values.length) {
    throw new Error(`${name} has ${given.length} values, wanted ${wanted.values.length}`);
  }
  const isRight = wanted.errors == null ? isSame : isNear;
  const wrong = Array.from(given, (_, i) => i).filter((i) => !isRight(given[i], wanted.values[i], wanted.errors?.[i] ?? 0));
  if (wrong.length > 0) {
    const [i] = wrong;
    const error = wanted.errors == null ? '' : ` within ${wanted.errors[i]}`;
    throw new Error(`${name}[${i}] is ${shown(given[i])}, wanted ${shown(wanted.values[i])}${error}; ${wrong.length} of ${given.length} wrong`);
  }
}

const shown = (value: number) => (Object.is(value, -0) ? '-0' : String(value));

/** WebGL may keep subnormals or make them 0. */
const isSame = (given: number, wanted: number) =>
  Object.is(given, wanted) || (tf.getBackend() === 'webgl' && Math.abs(wanted) < 2 ** -126 && given === 0);

function isNear(given: number, wanted: number, error: number): boolean {
  if (!Number.isFinite(error)) {
    return true;
  }
  if (!Number.isFinite(wanted)) {
    return Object.is(given, wanted);
  }
  return Math.abs(given - wanted) <= error || (Math.abs(wanted) + error > MAX_FLOAT32 && given === Math.sign(wanted) * Infinity);
}
