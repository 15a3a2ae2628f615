/** Quantized weights as arguments: every field is checked before any work. */
import {backend, type Tensor, util} from '@tensorflow/tfjs-core';
import {assertBindable, assertKeepsWords} from '../contract/devices';
import type {MoeWeightFormat} from '../contract/kernel_names';
import {
  encodingOf,
  type QuantizedEncoding,
  type QuantizedFormat,
  quantizedFormats,
  quantizedShapes,
  type QuantizedTensors,
  type QuantizedWeights,
  scaleBits,
  type ScaleFormat,
} from '../contract/quantized_weights';
import {assert, checkOneOf, convertToOptionalTensor, convertToTensor, describeValue, isPlainObject} from './checks';

const fields = ['format', 'shape', 'codes', 'groupSize', 'scales', 'scaleFormat', 'zeroPoint', 'offsets'] as const;

export const formatNames = /* @__PURE__ */ Object.keys(quantizedFormats) as QuantizedFormat[];
export const scaleFormatNames = /* @__PURE__ */ Object.keys(scaleBits) as ScaleFormat[];

/** Quantized weights of L experts, in one part or several that are read as their concatenation. */
export type ConvertedQuantizedWeights = {
  encoding: QuantizedEncoding;
  parts: Array<QuantizedTensors<Tensor>>;
  numExperts: number;
  /** D */
  numOut: number;
  /** C */
  numIn: number;
};

/** Whether an argument is quantized weights, or a list of them. */
export function isQuantized(weights: unknown): weights is QuantizedWeights | QuantizedWeights[] {
  return isPlainObject(Array.isArray(weights) ? weights[0] : weights);
}

export function convertQuantizedWeights(
  weights: QuantizedWeights | QuantizedWeights[],
  argName: string,
  weightFormat: MoeWeightFormat,
  opName: string,
): ConvertedQuantizedWeights {
  assert(
    weightFormat === 'outIn',
    opName,
    () => `weightFormat must be 'outIn' where ${argName} is quantized, but is '${weightFormat}'.`,
  );
  const isList = Array.isArray(weights);
  const given = isList ? weights : [weights];
  const nameOf = (p: number) => (isList ? `${argName}[${p}]` : argName);
  const parts = given.map((part, p) => convertPart(part, nameOf(p), opName));
  const [first] = parts;
  parts.forEach((part, p) => assertAlike(first, part, [nameOf(0), nameOf(p)], opName));
  given.forEach(({shape}, p) => assertCodesBind(shape, first.encoding, argName, nameOf(p), opName));
  return {
    encoding: first.encoding,
    parts: parts.map(({tensors}) => tensors),
    numExperts: parts.reduce((count, {shape}) => count + shape[0], 0),
    numOut: first.shape[1],
    numIn: first.shape[2],
  };
}

type ConvertedPart = {encoding: QuantizedEncoding; shape: number[]; tensors: QuantizedTensors<Tensor>};

function convertPart(weights: QuantizedWeights, argName: string, opName: string): ConvertedPart {
  assert(
    isPlainObject(weights),
    opName,
    () => `${argName} must be quantized weights like the other parts, but is ${describeValue(weights)}.`,
  );
  const unknown = Object.keys(weights).find((name) => !(fields as readonly string[]).includes(name));
  assert(
    unknown == null,
    opName,
    () => `unknown field '${argName}.${unknown}'. The fields of quantized weights are ${fields.join(', ')}.`,
  );
  const format = checkOneOf(weights.format, formatNames, `${argName}.format`, opName);
  const {bits, hasScales} = quantizedFormats[format];
  const shape = checkShape(weights.shape, format, argName, opName);
  if (!hasScales) {
    assertNone(weights, ['groupSize', 'scales', 'scaleFormat'], argName, opName);
  }
  const scaleFormat = checkOneOf(weights.scaleFormat ?? 'float32', scaleFormatNames, `${argName}.scaleFormat`, opName);
  const groupSize = hasScales ? checkGroupSize(weights.groupSize, shape[2], `${argName}.groupSize`, opName) : 0;
  const zeroPoint = checkZeroPoint(weights, argName, opName);
  const encoding = encodingOf({
    format,
    groupSize: sizeOfGroups(groupSize, shape[2]),
    scaleFormat,
    zeroPoint,
    hasOffsets: weights.offsets != null,
  });
  const shapes = quantizedShapes(shape, encoding);

  const codes = convertToTensor(weights.codes, `${argName}.codes`, opName, ['int32']);
  assert(
    util.arraysEqual(codes.shape, shapes.codes),
    opName,
    () =>
      `${argName}.codes must be int32 [L, D, C/${32 / bits}] = [${shapes.codes}] for ${format} of shape [${shape}], ` +
      `but is [${codes.shape}].`,
  );
  assertKeepsWords(backend(), opName, `${argName}.codes`, codes);
  const scalesOf = (name: 'scales' | 'offsets') => {
    const path = `${argName}.${name}`;
    const dtype = scaleFormat === 'float32' ? 'float32' : 'int32';
    const scales = convertToOptionalTensor(weights[name], path, opName, [dtype]);
    assert(scales == null || util.arraysEqual(scales.shape, shapes.scales), opName, () => {
      const axes = dtype === 'float32' ? '[L, D, G]' : `[n], ${32 / scaleBits[scaleFormat]} to a word,`;
      return (
        `${path} must be ${dtype} ${axes} = [${shapes.scales}] for ${scaleFormat} scales of groupSize ${groupSize} ` +
        `and shape [${shape}], but is [${scales!.shape}].`
      );
    });
    if (scales?.dtype === 'int32') {
      assertKeepsWords(backend(), opName, path, scales);
    }
    return scales;
  };
  if (!hasScales) {
    return {encoding, shape, tensors: {codes}};
  }
  assert(weights.scales != null, opName, () => `${argName}.scales must be given for ${format}.`);
  return {encoding, shape, tensors: {codes, scales: scalesOf('scales'), offsets: scalesOf('offsets')}};
}

function assertNone(
  weights: QuantizedWeights,
  names: ReadonlyArray<keyof QuantizedWeights>,
  argName: string,
  opName: string,
): void {
  const given = names.find((name) => weights[name] != null);
  assert(given == null, opName, () => `${argName}.${given} must not be given for ${weights.format}, which has none.`);
}

function checkShape(shape: number[], format: QuantizedFormat, argName: string, opName: string): number[] {
  assert(
    Array.isArray(shape) && shape.length === 3 && shape.every((size) => Number.isInteger(size) && size >= 1),
    opName,
    () => `${argName}.shape must be [L, D, C], positive integers, but is ${describeValue(shape)}.`,
  );
  assertWholeWords(shape, format, `${argName}.shape`, opName);
  return shape;
}

/** Asserts that a row of [L, D, C] fills its 32-bit words. */
export function assertWholeWords(shape: number[], format: QuantizedFormat, argName: string, opName: string): void {
  const perWord = 32 / quantizedFormats[format].bits;
  assert(
    shape[2] % perWord === 0,
    opName,
    () => `${argName} must be [L, D, C] with C a multiple of ${perWord} for ${format}, whole words, but is [${shape}].`,
  );
}

/** The group size: a multiple of 16, or all inputs. */
export function checkGroupSize(
  groupSize: number | null | undefined,
  numIn: number,
  argName: string,
  opName: string,
): number {
  assert(
    Number.isInteger(groupSize) && groupSize! >= 1 && (groupSize! % 16 === 0 || groupSize === numIn),
    opName,
    () => `${argName} must be a multiple of 16, or C = ${numIn}, but is ${describeValue(groupSize)}.`,
  );
  return groupSize!;
}

/** A group has no more than all inputs. Kernels have its size as a 32-bit integer, whatever the caller's number is. */
export const sizeOfGroups = (groupSize: number, numIn: number): number => Math.min(groupSize, numIn);

function checkZeroPoint(weights: QuantizedWeights, argName: string, opName: string): number {
  const {format, zeroPoint, offsets} = weights;
  const {zeroPoint: usual} = quantizedFormats[format];
  if (usual == null) {
    assertNone(weights, ['zeroPoint', 'offsets'], argName, opName);
    return 0;
  }
  assert(
    zeroPoint == null || offsets == null,
    opName,
    () => `${argName} must have a zeroPoint or offsets, but has both.`,
  );
  if (zeroPoint != null) {
    assertZeroPoint(zeroPoint, format, `${argName}.zeroPoint`, opName);
  }
  return offsets == null ? (zeroPoint ?? usual) : 0;
}

/** Asserts that a zero point is a code of the format. */
export function assertZeroPoint(zeroPoint: number, format: QuantizedFormat, argName: string, opName: string): void {
  const largest = 2 ** quantizedFormats[format].bits - 1;
  assert(
    Number.isInteger(zeroPoint) && zeroPoint >= 0 && zeroPoint <= largest,
    opName,
    () => `${argName} must be an integer 0 to ${largest} for ${format}, but is ${describeValue(zeroPoint)}.`,
  );
}

function assertAlike(first: ConvertedPart, part: ConvertedPart, [firstName, name]: string[], opName: string): void {
  assert(
    part.shape[1] === first.shape[1] && part.shape[2] === first.shape[2],
    opName,
    () => `${name}.shape must be that of ${firstName} [${first.shape}] except for axis 0, but is [${part.shape}].`,
  );
  for (const field of ['format', 'groupSize', 'scaleFormat', 'hasOffsets', 'zeroPoint'] as const) {
    const [wanted, given] = [first.encoding[field], part.encoding[field]];
    assert(given === wanted, opName, () =>
      field === 'hasOffsets'
        ? `${name} must have offsets if ${firstName} has, but ${given ? name : firstName} alone has them.`
        : `${name}.${field} must be that of ${firstName}, ${describeField(wanted)}, but is ${describeField(given)}.`,
    );
  }
}

const describeField = (value: unknown) => (typeof value === 'string' ? `'${value}'` : String(value));

function assertCodesBind(
  shape: number[],
  encoding: QuantizedEncoding,
  argName: string,
  name: string,
  opName: string,
): void {
  const [, ...expertShape] = quantizedShapes(shape, encoding).codes;
  const numBytes = 4 * util.sizeFromShape(expertShape);
  assertBindable(backend(), opName, {[`${name}.codes`]: [shape[0], ...expertShape]}, (limit) => {
    const numExperts = Math.floor(limit / numBytes);
    return numExperts === 0
      ? ' One expert alone is too large.'
      : ` Pass ${argName} as a list of parts of at most ${numExperts} experts, as expertsPerTensor: ${numExperts} gives them.`;
  });
}
