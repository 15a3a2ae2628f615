/** How a model stores its matrices beside those of its experts: attention projections, embeddings and head. */
import {assert} from '../arguments/checks';
import {type QuantizedFormat, quantizedFormats, type ScaleFormat} from '../contract/quantized_weights';
import type {ProjectionFormatArgs} from '../layers/causal_self_attention_options';
import type {EmbeddingsFormatArgs} from '../layers/reversible_embedding';
import {assertWholeWords, checkWeightFormat} from '../layers/weight_format';
import type {LanguageModelConfig} from './language_model_config';

export type DenseFormatArgs = {
  /**
   * How attention projections, embeddings and the head are stored. Default `'float32'`. Weights of any other format are
   * not trainable.
   */
  denseFormat?: 'float32' | QuantizedFormat | null;
  /**
   * How many of their inputs share a scale: a multiple of 16. A larger number than inputs gives one scale a row.
   * Default 32. Only for formats with scales.
   */
  denseGroupSize?: number | null;
  /**
   * How their scales and offsets are stored. Default `'float32'`, and `'e8m0'` for `'fp4'`. Only for formats with
   * scales.
   */
  denseScaleFormat?: ScaleFormat | null;
  /** Whether groups have offsets in place of a zero point. Default false. Only for integers. */
  useDenseOffsets?: boolean | null;
};

export const denseFormatArgNames = ['denseFormat', 'denseGroupSize', 'denseScaleFormat', 'useDenseOffsets'] as const;

/** A model has no argument denseZeroPoint: codes have the zero point of their format. */
const denseFormatNames = {
  format: 'denseFormat',
  groupSize: 'denseGroupSize',
  scaleFormat: 'denseScaleFormat',
  zeroPoint: 'denseZeroPoint',
  hasOffsets: 'useDenseOffsets',
} as const;

/** The arguments of the layers. */
export type DenseFormat = {projections: ProjectionFormatArgs; embeddings: EmbeddingsFormatArgs};

export function checkDenseFormat(
  given: DenseFormatArgs,
  {hiddenSize, blocks}: LanguageModelConfig,
  opName: string,
): DenseFormat {
  const {denseFormat, denseGroupSize, denseScaleFormat, useDenseOffsets} = checkWeightFormat(
    given,
    denseFormatNames,
    opName,
  );
  const isInteger = denseFormat !== 'float32' && quantizedFormats[denseFormat].zeroPoint != null;
  assert(
    !isInteger || denseScaleFormat !== 'e8m0',
    opName,
    () => `denseScaleFormat must not be 'e8m0' for ${denseFormat}, whose scales and offsets have a sign.`,
  );
  const [{attention}] = blocks;
  assertWholeWords(hiddenSize, denseFormat, 'config.hidden_size', opName);
  assertWholeWords(attention.numHeads * attention.headDim!, denseFormat, 'the size of all heads together', opName);
  return {
    projections: {
      projectionFormat: denseFormat,
      projectionGroupSize: denseGroupSize,
      projectionScaleFormat: denseScaleFormat,
      useProjectionOffsets: useDenseOffsets,
    },
    embeddings: {
      embeddingsFormat: denseFormat,
      embeddingsGroupSize: denseGroupSize,
      embeddingsScaleFormat: denseScaleFormat,
      useEmbeddingsOffsets: useDenseOffsets,
    },
  };
}
