/**
 * Quantized weights of a node: an input has the codes, scales and offsets are optional inputs of their own, and attrs
 * say what they mean. Without such attrs the input has float32 weights.
 */
import type {Tensor} from '@tensorflow/tfjs-core';
import {assert} from '../arguments/checks';
import {formatNames, scaleFormatNames} from '../arguments/quantized_weights';
import {
  type QuantizedFormat,
  quantizedFormats,
  type QuantizedWeights,
  type ScaleFormat,
} from '../contract/quantized_weights';
import {type AttrTypes, integer, oneOf, toSnakeCase} from './attr_types';

type NamedValues = {[name: string]: unknown};

/** The optional inputs of input `name`. */
export const quantizedInputs = (name: string): string[] => [`${name}Scales`, `${name}Offsets`];

/** The optional attrs of input `name`. */
export const quantizedAttrs = (name: string): AttrTypes => ({
  [`${name}QuantizedFormat`]: oneOf(formatNames),
  [`${name}GroupSize`]: integer,
  [`${name}ScaleFormat`]: oneOf(scaleFormatNames),
  [`${name}ZeroPoint`]: integer,
});

/** The values of quantizedAttrs; null for what the weights do not have. */
export const quantizedAttrValues = (name: string, weights: QuantizedWeights): NamedValues => ({
  [`${name}QuantizedFormat`]: weights.format,
  [`${name}GroupSize`]: weights.groupSize,
  [`${name}ScaleFormat`]: weights.scaleFormat,
  [`${name}ZeroPoint`]: weights.zeroPoint,
});

/** The weights of input `name`, which is `codes` if they are quantized. Their parts leave the options. */
export function takeWeights(
  name: string,
  codes: Tensor,
  options: NamedValues,
  where: string,
): Tensor | QuantizedWeights {
  const take = <Value>(part: string): Value | undefined => {
    const value = options[`${name}${part}`] as Value | undefined;
    delete options[`${name}${part}`];
    return value;
  };
  const format = take<QuantizedFormat>('QuantizedFormat');
  const parts = {
    groupSize: take<number>('GroupSize'),
    scales: take<Tensor>('Scales'),
    scaleFormat: take<ScaleFormat>('ScaleFormat'),
    zeroPoint: take<number>('ZeroPoint'),
    offsets: take<Tensor>('Offsets'),
  };
  if (format == null) {
    const given = Object.entries(parts).find(([, value]) => value != null);
    assert(
      given == null,
      where,
      () =>
        `attr ${toSnakeCase(name)}_quantized_format must be given with ${toSnakeCase(name)}_${toSnakeCase(given![0])}, ` +
        'but is not.',
    );
    return codes;
  }
  const sizes = codes.shape.slice();
  const numWords = sizes.pop() ?? 0;
  return {format, shape: [...sizes, (numWords * 32) / quantizedFormats[format].bits], codes, ...parts};
}
