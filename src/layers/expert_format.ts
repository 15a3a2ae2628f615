/** How the experts of the layer are stored. */
import type {QuantizedFormat, ScaleFormat} from '../contract/quantized_weights';
import {assertWholeWords, checkWeightFormat, type NamedFormat} from './weight_format';

export type ExpertFormatArgs = {
  /**
   * How the weights of the experts are stored. Default `'float32'`. The experts of any other format are not trainable,
   * and 0 until a file, setWeights or quantizeMixtureOfExperts sets them.
   */
  expertFormat?: 'float32' | QuantizedFormat | null;
  /**
   * How many inputs share a scale: a multiple of 16. A number above H and I gives one scale a row. Default 32. Only for
   * formats with scales.
   */
  expertGroupSize?: number | null;
  /**
   * How scales and offsets are stored. Default `'float32'`, and `'e8m0'` for `'fp4'`. Only for formats with scales.
   */
  expertScaleFormat?: ScaleFormat | null;
  /** The code that stands for 0. Default 8 for `'int4'`, 128 for `'int8'`. Only for integers without offsets. */
  expertZeroPoint?: number | null;
  /** Whether groups have offsets, the values of code 0, in place of a zero point. Default false. Only for integers. */
  useExpertOffsets?: boolean | null;
};

export const expertFormatNames = {
  format: 'expertFormat',
  groupSize: 'expertGroupSize',
  scaleFormat: 'expertScaleFormat',
  zeroPoint: 'expertZeroPoint',
  hasOffsets: 'useExpertOffsets',
} as const;

export const expertFormatArgNames = [
  'expertFormat',
  'expertGroupSize',
  'expertScaleFormat',
  'expertZeroPoint',
  'useExpertOffsets',
] as const;

export type ExpertFormat = NamedFormat<typeof expertFormatNames>;

export function checkExpertFormat(given: ExpertFormatArgs & {intermediateSize: number}, opName: string): ExpertFormat {
  const checked = checkWeightFormat(given, expertFormatNames, opName);
  assertWholeWords(given.intermediateSize, checked.expertFormat, 'intermediateSize', opName);
  return checked;
}
