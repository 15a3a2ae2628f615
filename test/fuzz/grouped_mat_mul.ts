/** moeGroupedMatMul. */
import * as fc from 'fast-check';
import * as tf from '../../src/tf';
import {type QuantizedNumbers, type Shape, valuesOf} from '../support/quantized_experts';
import {callsOf} from './attempt';
import {exact} from './bounded';
import type {Args} from './call';
import {activate, activateGradient, type ActivationDraw, matMul, matMulGradients} from './experts';
import {asFloats, asInts, type Drawn, drawn, type Input} from './inputs';
import {anyIndices, floats, goodIndices, maybe, oneOf, ordinaryFloats, someOf} from './numbers';
import {anyQuantized, quantizedArgument, quantizedInputs} from './quantized';
import {type Wanted, wantedNear} from './wanted';

export const weightFormats = oneOf<tf.MoeWeightFormat | undefined>(undefined, 'outIn', 'inOut');

/** An activation and its options; swigluOai is gated. */
export const activations: fc.Arbitrary<ActivationDraw> = fc
  .record({
    activation: oneOf<tf.MoeActivation | undefined>(
      undefined, 'linear', 'relu', 'relu2', 'silu', 'swish', 'gelu', 'geluTanh', 'geluNew', 'swigluOai',
    ),
    gated: fc.boolean(),
    gateUp: oneOf<tf.MoeGateUp | undefined>(undefined, 'concatenated', 'interleaved'),
    swigluAlpha: oneOf(undefined, 1, 1.5),
    swigluLimit: oneOf(undefined, 0.5, 2),
  })
  .map((draw) => ({...draw, gated: draw.gated || draw.activation === 'swigluOai'}));

/** Weights of L experts, in one tensor or in several, or quantized. */
export type WeightsDraw = {drawn: Drawn; isInParts: boolean; quantized?: QuantizedNumbers};
export const anyWeights: fc.Arbitrary<(shape: Shape, format: tf.MoeWeightFormat | undefined) => WeightsDraw> = fc
  .tuple(drawn(someOf([4, ordinaryFloats], [1, floats])), fc.boolean(), maybe(anyQuantized))
  .map(([valuesOfLength, isInParts, quantize]) => (shape, format) => {
    const quantized = format === 'inOut' ? undefined : quantize?.(shape);
    const given: Drawn = quantized == null
      ? valuesOfLength(tf.util.sizeFromShape(shape))
      : {values: Array.from(valuesOf(quantized)), source: 'host'};
    return {drawn: given, isInParts, quantized};
  });

/** The weights as inputs named `name0`, `name1`, … */
export function weightInputs(name: string, {drawn: given, isInParts, quantized}: WeightsDraw, shape: number[]): Record<string, Input> {
  if (quantized != null) {
    return quantizedInputs(name, quantized, isInParts);
  }
  const [numExperts, ...rest] = shape;
  const numFirst = isInParts ? Math.ceil(numExperts / 3) : numExperts;
  const expertSize = tf.util.sizeFromShape(rest);
  const parts = [given.values.slice(0, numFirst * expertSize), given.values.slice(numFirst * expertSize)];
  return Object.fromEntries(
    parts.filter((values) => values.length > 0).map((values, p) => [
      `${name}${p}`,
      // A list of weights is a list of tensors.
      asFloats({values, source: given.source === 'array' && isInParts ? 'host' : given.source}, [values.length / expertSize, ...rest]),
    ]),
  );
}

/** The argument `weights`, from such inputs. */
export const weightArgument = (name: string, args: Args, {isInParts, quantized}: WeightsDraw): tf.MoeExpertWeights =>
  quantized != null ? quantizedArgument(name, args, quantized, isInParts) : isInParts ? ([0, 1].map((p) => args[`${name}${p}`]).filter((part) => part != null) as tf.Tensor[]) : args[`${name}0`];

/** The gradients of such inputs. Quantized weights have none. */
export function wantedOfWeights(name: string, inputs: Record<string, Input>, whole: {values: Float64Array; errors: Float64Array}): Record<string, Wanted> {
  let from = 0;
  return Object.fromEntries(
    [0, 1].map((p) => `${name}${p}`).filter((part) => inputs[part] != null).map((part) => {
      const {shape, values: {length}} = inputs[part];
      const [values, errors] = [whole.values, whole.errors].map((all) => all.slice(from, from + length));
      from += length;
      return [part, wantedNear({values, errors}, shape)];
    }),
  );
}

export const weightsShape = (numExperts: number, numIn: number, numColumns: number, format: tf.MoeWeightFormat | undefined) =>
  format === 'inOut' ? [numExperts, numIn, numColumns] : [numExperts, numColumns, numIn];

const ascending = goodIndices.map(
  (indices) => (length: number, numRows: number) => indices(length, numRows + 1).sort((a, b) => a - b),
);

const groupedDraws = fc
  .record({
    numRows: someOf([6, oneOf(0, 1, 2, 3, 7, 9)], [2, oneOf(17, 40, 80)], [1, oneOf(130, 200)]),
    numExperts: oneOf(1, 2, 3, 5, 9),
    numIn: oneOf(1, 2, 3, 4, 5, 8, 16, 33, 36, 68, 72),
    numOutputs: oneOf(1, 2, 3, 4, 6, 8, 18, 66),
    activation: activations,
    weightFormat: weightFormats,
    x: drawn(floats),
    weights: anyWeights,
    bias: maybe(drawn(ordinaryFloats)),
    // Offsets that do not ascend give unspecified values, but have no other effect.
    offset: drawn(someOf([9, ascending], [1, anyIndices])),
    isPoisoned: fc.boolean(),
    dy: maybe(drawn(floats)),
  })
  .map(({numRows, numExperts, numIn, numOutputs, ...draw}) => {
    const numColumns = draw.activation.gated ? 2 * numOutputs : numOutputs;
    return {
      ...draw,
      size: {numRows, numExperts, numIn, numColumns},
      x: draw.x(numRows * numIn),
      weights: draw.weights([numExperts, numColumns, numIn], draw.weightFormat),
      bias: draw.bias?.(numExperts * numColumns),
      offset: draw.offset(numExperts + 1, numRows),
      dy: draw.dy?.(numRows * numOutputs),
    };
  });

export const groupedMatMulCalls = callsOf(
  6,
  'moeGroupedMatMul',
  groupedDraws,
  ({size}) => size.numRows,
  ({size: {numRows, numExperts, numIn, numColumns}, activation, weightFormat, bias, offset, weights, ...draw}) => {
    const ascends = offset.values.every((row, i) => row >= (offset.values[i - 1] ?? 0) && row <= numRows);
    const expertOfRow = Array.from({length: numRows}, (_, row) =>
      offset.values.findIndex((first, e) => first <= row && row < (offset.values[e + 1] ?? -1)),
    );
    const numOutputs = activation.gated ? numColumns / 2 : numColumns;
    // Rows of no expert are not read.
    const poisoned = (values: number[], rowSize: number) =>
      draw.isPoisoned && ascends ? values.map((value, i) => (expertOfRow[Math.floor(i / rowSize)] < 0 ? NaN : value)) : values;
    const x = poisoned(draw.x.values, numIn);
    const inputs = {
      x: asFloats({...draw.x, values: x}, [numRows, numIn]),
      offset: asInts(offset, [numExperts + 1]),
      ...weightInputs('weights', weights, weightsShape(numExperts, numIn, numColumns, weightFormat)),
      ...(bias && {bias: asFloats(bias, [numExperts, numColumns])}),
    };
    const product = {
      numIn, numColumns, weightFormat: weightFormat ?? 'outIn', weights: weights.drawn.values, bias: bias?.values,
    };
    const z = matMul(exact(x), expertOfRow, product);
    const y = activate(z, expertOfRow, activation, 'linear');
    if (!ascends) {
      y.errors.fill(Infinity);
    }
    const dy = draw.dy && poisoned(draw.dy.values, numOutputs);
    return {
      inputs,
      run: (args) => ({
        y: tf.moeGroupedMatMul(args.x, weightArgument('weights', args, weights), args.offset, {
          ...activation, weightFormat, bias: args.bias,
        }),
      }),
      wanted: () => ({y: wantedNear(y, [numRows, numOutputs])}),
      gradient: draw.dy && dy && ascends ? {
        of: 'y',
        dy: asFloats({...draw.dy, values: dy}, [numRows, numOutputs]),
        wanted: () => {
          const dz = activateGradient(z, exact(dy), expertOfRow, activation, 'linear');
          const {dx, dWeights, dBias} = matMulGradients(exact(x), dz, expertOfRow, product);
          return {
            x: wantedNear(dx, [numRows, numIn]),
            ...wantedOfWeights('weights', inputs, dWeights),
            ...(bias && {bias: wantedNear(dBias, [numExperts, numColumns])}),
          };
        },
      } : undefined,
    };
  },
);
