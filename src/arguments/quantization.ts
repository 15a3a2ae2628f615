/** The options of quantizing weights, which ops and layers share. */
import {
  encodingOf,
  type QuantizedEncoding,
  type QuantizedFormat,
  quantizedFormats,
  type ScaleFormat,
} from '../contract/quantized_weights';
import {assert, checkBoolean, checkOneOf, checkOptions} from './checks';
import {checkGroupSize, formatNames, scaleFormatNames, sizeOfGroups} from './quantized_weights';

export type MoeQuantizeWeightsOptions = {
  /** How a code stands for a number. Default `'int4'`. */
  format?: QuantizedFormat | null;
  /** How many inputs share a scale: a multiple of 16, or C. Default 32. Not for the 16-bit formats. */
  groupSize?: number | null;
  /**
   * Whether integers have a zero point in the middle, and not the least weight of a group as its offset. Default true.
   */
  symmetric?: boolean | null;
  /**
   * How scales and offsets are stored. Default `'float32'`, and `'e8m0'` for `'fp4'`. Integers cannot have `'e8m0'`.
   */
  scaleFormat?: ScaleFormat | null;
};

export const quantizationOptionNames = ['format', 'groupSize', 'symmetric', 'scaleFormat'] as const;

export const DEFAULT_GROUP_SIZE = 32;

/** `groupSize` and `scaleFormat` are undefined for the formats without scales. */
export type Quantization = {
  format: QuantizedFormat;
  /** Checked later, because it depends on the weights. */
  groupSize: number | undefined;
  symmetric: boolean;
  scaleFormat: ScaleFormat | undefined;
};

/** The options with their defaults. */
export function checkQuantization(options: MoeQuantizeWeightsOptions | null | undefined, opName: string): Quantization {
  const given = checkOptions(options, quantizationOptionNames, opName);
  const format = checkOneOf(given.format ?? 'int4', formatNames, 'format', opName);
  const {hasScales, zeroPoint: middle} = quantizedFormats[format];
  const symmetric = checkBoolean(given.symmetric ?? true, 'symmetric', opName);
  assert(symmetric || middle != null, opName, () => `symmetric must be true for ${format}, which has no offsets.`);
  if (!hasScales) {
    const name = (['groupSize', 'scaleFormat'] as const).find((option) => given[option] != null);
    assert(name == null, opName, () => `${name} must not be given for ${format}, which has no scales.`);
    return {format, groupSize: undefined, symmetric, scaleFormat: undefined};
  }
  const scaleFormat = checkOneOf(
    given.scaleFormat ?? defaultScaleFormat(format),
    scaleFormatNames,
    'scaleFormat',
    opName,
  );
  assert(
    middle == null || scaleFormat !== 'e8m0',
    opName,
    () => `scaleFormat must not be 'e8m0' for ${format}, whose scales and offsets have a sign.`,
  );
  return {format, groupSize: given.groupSize ?? DEFAULT_GROUP_SIZE, symmetric, scaleFormat};
}

/** The encoding of weights [L, D, C], C = numIn. */
export function quantizationEncoding(
  {format, groupSize, symmetric, scaleFormat}: Quantization,
  numIn: number,
  opName: string,
): QuantizedEncoding {
  if (scaleFormat == null || groupSize == null) {
    return encodingOf({format, groupSize: 0, scaleFormat: 'float32', zeroPoint: 0, hasOffsets: false});
  }
  return encodingOf({
    format,
    groupSize: sizeOfGroups(checkGroupSize(groupSize, numIn, 'groupSize', opName), numIn),
    scaleFormat,
    zeroPoint: symmetric ? (quantizedFormats[format].zeroPoint ?? 0) : 0,
    hasOffsets: !symmetric,
  });
}

export const defaultScaleFormat = (format: QuantizedFormat): ScaleFormat => (format === 'fp4' ? 'e8m0' : 'float32');
