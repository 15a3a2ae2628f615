/** Arguments of ops that are tensors, and the possible origins of a tensor. */
import * as fc from 'fast-check';
import * as tf from '../../src/tf';
import {oneOf} from './numbers';

/** Values and their origin. If a tensor cannot have this origin, it comes from the host. */
export type Drawn = {values: number[]; source: Source};
export type Source =
  | 'host'
  /** Arrays in place of a tensor. */
  | 'array'
  /** Only on the device, after an upload. */
  | 'device'
  /** A view in another shape. */
  | 'reshape'
  /** Rows of a larger tensor that is disposed. */
  | 'slice'
  /** The concatenated rows of two tensors. */
  | 'concat'
  /** A cast of integers or booleans to float32, or of floats or booleans to int32. */
  | 'cast'
  /** Made on the cpu backend, and moved to this backend when it is used. */
  | 'cpu';
export type Input = Drawn & {shape: number[]; dtype: 'float32' | 'int32' | 'bool'};

const sources = oneOf<Source>('host', 'host', 'array', 'device', 'device', 'reshape', 'slice', 'concat', 'cast', 'cpu');

/** Values that are drawn before their number is known, with a drawn origin. */
export const drawn = <Sizes extends number[]>(
  values: fc.Arbitrary<(...sizes: Sizes) => number[]>,
): fc.Arbitrary<(...sizes: Sizes) => Drawn> =>
  fc.tuple(values, sources).map(([valuesOf, source]) => (...sizes) => {
    const given = valuesOf(...sizes);
    return {values: source === 'cast' ? given.map(asInteger) : given, source};
  });

const MAX_CAST = 2 ** 24;
const asInteger = (value: number) =>
  Number.isNaN(value) ? 0 : Math.trunc(Math.min(Math.max(value, -MAX_CAST), MAX_CAST)) + 0;

export const asFloats = (given: Drawn, shape: number[]): Input => ({...given, shape, dtype: 'float32'});
export const asInts = (given: Drawn, shape: number[]): Input => ({...given, shape, dtype: 'int32'});

const sizeOf = (shape: number[]) => tf.util.sizeFromShape(shape);
const MIN_NORMAL = 2 ** -126;

/** A new tensor of these values, or arrays of them. */
export async function makeInput(input: Input, mayBeArrays: boolean): Promise<tf.Tensor | tf.TensorLike> {
  const {values, shape, source} = input;
  const typed = typedArrayOf(input);
  const fromHost = () => tf.tensor(typed, shape, input.dtype);
  if (values.length === 0) {
    return fromHost();
  }
  switch (source) {
    case 'array':
      return mayBeArrays && (shape.length > 0 || input.dtype === 'float32') ? nested(elementsOf(input), shape) : fromHost();
    case 'device': {
      const tensor = fromHost();
      (tf.backend() as {uploadToGPU?: (dataId: object) => void}).uploadToGPU?.(tensor.dataId);
      return tensor;
    }
    case 'reshape':
      return tf.tidy(() => tf.reshape(tf.tensor(typed, [values.length], input.dtype), shape));
    case 'slice':
      return shape.length > 0 && keepsBits(values) ? sliceOfMore(input) : fromHost();
    case 'concat':
      return shape[0] > 1 && keepsBits(values) ? concatOfParts(input) : fromHost();
    case 'cast':
      return castOf(input) ?? fromHost();
    case 'cpu':
      return onCpu(fromHost);
    default:
      return fromHost();
  }
}

function typedArrayOf({values, dtype}: Input): Float32Array | Int32Array | Uint8Array {
  return {float32: Float32Array, int32: Int32Array, bool: Uint8Array}[dtype].from(values);
}

/** Plain numbers have no dtype: they are floats if an argument takes both. */
const elementsOf = ({values, dtype}: Input): boolean[] | number[] | Int32Array =>
  dtype === 'bool' ? values.map((value) => value !== 0) : dtype === 'int32' ? Int32Array.from(values) : values;

function nested(values: boolean[] | number[] | Int32Array, shape: number[]): tf.TensorLike {
  const [, ...rest] = shape;
  if (shape.length === 0) {
    return values[0];
  }
  if (rest.length === 0) {
    return values;
  }
  const size = sizeOf(rest);
  return Array.from({length: shape[0]}, (_, i) => nested(values.slice(i * size, (i + 1) * size), rest)) as tf.TensorLike;
}

/** Whether tfjs's programs copy these values unchanged: the programs compute in floats, and subnormals may become 0. */
const keepsBits = (values: number[]) =>
  values.every((value) => value === 0 || (Math.abs(value) >= MIN_NORMAL && !(Math.abs(value) > 2 ** 24 && Number.isInteger(value))) || !Number.isFinite(value));

function sliceOfMore(input: Input): tf.Tensor {
  const {shape, dtype} = input;
  const [numRows, ...rest] = shape;
  const rowSize = sizeOf(rest);
  const others = {float32: NaN, int32: 1000003, bool: 1}[dtype];
  const row = new Array<number>(rowSize).fill(others);
  const values = [...row, ...input.values, ...row, ...row];
  return tf.tidy(() => {
    const more = tf.tensor(typedArrayOf({...input, values}), [numRows + 3, ...rest], dtype);
    return tf.slice(more, [1, ...rest.map(() => 0)], shape);
  });
}

function concatOfParts(input: Input): tf.Tensor {
  const {shape: [numRows, ...rest], values, dtype} = input;
  const rowSize = sizeOf(rest);
  const part = (from: number, to: number) => {
    const shape = [to - from, ...rest];
    return tf.tensor(typedArrayOf({...input, values: values.slice(from * rowSize, to * rowSize)}), shape, dtype);
  };
  return tf.tidy(() => tf.concat([part(0, 1), part(1, numRows)]));
}

/** The drawn values are integers, but a call may have replaced them. */
function castOf({values, shape, dtype}: Input): tf.Tensor | undefined {
  if (dtype === 'bool' || !values.every((value) => Object.is(asInteger(value), value))) {
    return undefined;
  }
  const areFlags = values.every((value) => value === 0 || value === 1);
  const from = areFlags ? 'bool' : dtype === 'int32' ? 'float32' : 'int32';
  return tf.tidy(() => tf.cast(tf.tensor(typedArrayOf({values, shape, dtype: from, source: 'host'}), shape, from), dtype));
}

async function onCpu(make: () => tf.Tensor): Promise<tf.Tensor> {
  const backendName = tf.getBackend();
  await tf.setBackend('cpu');
  try {
    return make();
  } finally {
    await tf.setBackend(backendName);
  }
}
