/** Quantized weights of experts, whose numbers are exact in float32 in whatever order they are computed. */
import * as fc from 'fast-check';
import type * as tf from '../../src/tf';
import {bitsPerCode, bitsPerScale, packed, scaleOf} from '../naive/quantized_weights';
import {fieldsOf, isInteger, type QuantizedDraw, type QuantizedNumbers, randomNumbers, scaleFormatOf, type Shape} from '../support/quantized_experts';
import {lcg} from '../support/routings';
import {asFloats, asInts, type Input} from './inputs';
import {oneOf} from './numbers';

/**
 * Scales of 3 bits, at least 1. Kernels may multiply a code by x first, which must not overflow where the weight times x
 * does not.
 */
const coarse = (next: () => number, one: number, mantissaBits: number) =>
  one + Math.floor(8 * next()) * 2 ** (mantissaBits - 2);
const scales: Record<tf.ScaleFormat, (next: () => number) => number> = {
  float32: (next) => coarse(next, 127 * 2 ** 23, 23),
  float16: (next) => coarse(next, 15 * 2 ** 10, 10),
  bfloat16: (next) => coarse(next, 127 * 2 ** 7, 7),
  e8m0: (next) => 127 + Math.floor(3 * next()),
};

const NAN_OF_FLOAT8 = 127;

/** The numbers of weights of a shape; undefined if its rows are no whole words. */
export const anyQuantized: fc.Arbitrary<(shape: Shape) => QuantizedNumbers | undefined> = fc
  .record({
    format: oneOf<tf.QuantizedFormat>('int4', 'int8', 'fp4', 'float8', 'float16', 'bfloat16'),
    groupSize: oneOf(undefined, 16, 32),
    scaleFormat: oneOf<tf.ScaleFormat | undefined>(undefined, 'float32', 'float16', 'bfloat16', 'e8m0'),
    zeroPoint: oneOf(undefined, 0, 7),
    hasOffsets: fc.boolean(),
    hasNaN: oneOf(false, false, false, true),
    seed: fc.nat(),
  })
  .map(({format, zeroPoint, hasOffsets, hasNaN, seed, ...scaling}) => (shape) => {
    if (shape[2] % (32 / bitsPerCode[format]) !== 0) {
      return undefined;
    }
    const zeros: Partial<QuantizedDraw> = !isInteger(format) ? {} : hasOffsets ? {hasOffsets} : {zeroPoint};
    const numbers = randomNumbers(shape, {format, ...scaling, ...zeros}, lcg(seed), scales);
    if (format === 'float8' && hasNaN) {
      numbers.codes[seed % numbers.codes.length] = NAN_OF_FLOAT8;
    }
    return numbers;
  });

/** The numbers of some of the experts. */
function partOf({draw, shape: [numExperts, ...rest], codes, scales: all, offsets}: QuantizedNumbers, first: number, count: number): QuantizedNumbers {
  const some = (values: number[]) => values.slice((first * values.length) / numExperts, ((first + count) * values.length) / numExperts);
  return {draw, shape: [count, ...rest], codes: some(codes), scales: some(all), offsets: some(offsets)};
}

/** How many experts each part has. */
const countsOf = ({shape: [numExperts]}: QuantizedNumbers, isInParts: boolean): number[] => {
  const numFirst = isInParts ? Math.ceil(numExperts / 3) : numExperts;
  return numFirst < numExperts ? [numFirst, numExperts - numFirst] : [numFirst];
};

const partsOf = (numbers: QuantizedNumbers, isInParts: boolean): QuantizedNumbers[] => {
  let first = 0;
  return countsOf(numbers, isInParts).map((count) => {
    first += count;
    return partOf(numbers, first - count, count);
  });
};

/** Tensors as inputs `<name><part>Codes`, `…Scales` and `…Offsets`. On webgl words have to be on the host. */
export function quantizedInputs(name: string, numbers: QuantizedNumbers, isInParts: boolean): Record<string, Input> {
  const inputs: Record<string, Input> = {};
  partsOf(numbers, isInParts).forEach(({draw, shape, codes, ...part}, p) => {
    const bits = bitsPerCode[draw.format];
    const words = (fields: number[], width: number, wordsShape?: number[]) => {
      const values = Array.from(packed(fields, width));
      return asInts({values, source: 'host'}, wordsShape ?? [values.length]);
    };
    inputs[`${name}${p}Codes`] = words(codes, bits, [shape[0], shape[1], (shape[2] * bits) / 32]);
    const scaleFormat = scaleFormatOf(draw);
    for (const [field, given] of [['Scales', part.scales], ['Offsets', part.offsets]] as const) {
      if (given.length > 0) {
        inputs[`${name}${p}${field}`] = scaleFormat === 'float32'
          ? asFloats({values: given.map(scaleOf.float32), source: 'host'}, [shape[0], shape[1], given.length / (shape[0] * shape[1])])
          : words(given, bitsPerScale[scaleFormat]);
      }
    }
  });
  return inputs;
}

/** The argument, from such inputs. */
export function quantizedArgument(name: string, args: Record<string, tf.Tensor>, numbers: QuantizedNumbers, isInParts: boolean): tf.MoeExpertWeights {
  const parts = partsOf(numbers, isInParts).map((part, p): tf.QuantizedWeights => ({
    ...fieldsOf(part),
    codes: args[`${name}${p}Codes`],
    ...(part.scales.length > 0 && {scales: args[`${name}${p}Scales`]}),
    ...(part.offsets.length > 0 && {offsets: args[`${name}${p}Offsets`]}),
  }));
  return isInParts ? parts : parts[0];
}
