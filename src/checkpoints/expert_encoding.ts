/** How the experts of a checkpoint become weights of ops: as they are stored, as float32, or quantized. */
import {assert, describeValue} from '../arguments/checks';
import {
  checkQuantization,
  type MoeQuantizeWeightsOptions,
  type Quantization,
  quantizationEncoding,
  quantizationOptionNames,
} from '../arguments/quantization';
import {assertWholeWords} from '../arguments/quantized_weights';
import {
  encodingKey,
  float32Encoding,
  isQuantizedEncoding,
  type QuantizedFormat,
  type WeightEncoding,
} from '../contract/quantized_weights';
import type {StoredWeight} from './block';

export type ExpertFormatOptions = Omit<MoeQuantizeWeightsOptions, 'format'> & {
  /**
   * How w1 and w2 are stored in the result. Default: as in the files, if these are quantized, else `'float32'`. A file
   * that has the format already is taken as it is; any other is quantized like moeQuantizeWeights does.
   */
  format?: 'float32' | QuantizedFormat | null;
};

export const expertFormatOptionNames = quantizationOptionNames;

/** `'stored'`: as in the files. */
export type ExpertFormatChoice = 'stored' | 'float32' | (Quantization & {isAnyLike: boolean});

export function checkExpertFormat(given: ExpertFormatOptions, opName: string): ExpertFormatChoice {
  const {format, groupSize, symmetric, scaleFormat} = given;
  const isPlain = groupSize == null && symmetric == null && scaleFormat == null;
  if (format == null || format === 'float32') {
    const [name] = quantizationOptionNames.filter((option) => option !== 'format' && given[option] != null);
    assert(
      isPlain,
      opName,
      () => `${name} must not be given without a format of codes, but is ${describeValue(given[name])}.`,
    );
    return format ?? 'stored';
  }
  return {...checkQuantization({format, groupSize, symmetric, scaleFormat}, opName), isAnyLike: isPlain};
}

/** The encoding of w1 or w2 of the result. */
export function expertEncoding(
  {shape, numIn, stored}: StoredWeight,
  choice: ExpertFormatChoice,
  name: string,
  opName: string,
): WeightEncoding {
  const [{encoding: first}] = stored;
  const other = stored.find(({encoding}) => encoding !== first)?.encoding;
  if (choice === 'float32') {
    return float32Encoding;
  }
  if (choice === 'stored') {
    assert(
      other == null,
      opName,
      () =>
        `${name} is stored in two formats (${encodingKey(first)} and ${encodingKey(other!)}). Ask for one of them, or ` +
        'for another, by format.',
    );
    // Floats of 16 bits are weights of an unquantized file.
    return first.groupSize === 0 ? float32Encoding : first;
  }
  if (choice.isAnyLike && other == null && first.format === choice.format) {
    return first;
  }
  assertWholeWords(shape, choice.format, name, opName);
  return quantizationEncoding(choice, numIn, opName);
}

/** Whether a weight in the files is quantized. */
export const isStoredQuantized = ({stored: [{encoding}]}: StoredWeight): boolean =>
  isQuantizedEncoding(encoding) && encoding.groupSize > 0;
