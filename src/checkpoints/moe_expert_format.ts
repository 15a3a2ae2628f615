/** How a layer stores experts as the files have them. */
import {assert, checkOptions} from '../arguments/checks';
import type {WeightName} from '../contract/block_weights';
import {encodingKey, isQuantizedEncoding, quantizedFormats, type WeightEncoding} from '../contract/quantized_weights';
import {findBlock, type LoadMoeCheckpointOptions, type MoeCheckpointSource, type StoredWeight} from './block';
import type {MoeModelConfig} from './config_reader';
import {expertEncoding, type ExpertFormatChoice} from './expert_encoding';
import type {LayerExpertFormat} from './moe_weights_layer';

const opName = 'moeExpertFormat';

/**
 * The arguments of a mixtureOfExperts layer that stores its experts as the files have them, so that loadMoeCheckpoint
 * changes no value. Only headers are read.
 *
 * ```js
 * import {moeExpertFormat} from 'tfjs-moe/checkpoints';
 * // gpt-oss as it is published, in MXFP4: the tensors of readSafetensors. Here H = I = 32 and E = 2.
 * const config = {
 *   model_type: 'gpt_oss', hidden_size: 32, intermediate_size: 32, num_local_experts: 2, num_experts_per_tok: 1,
 *   quantization_config: {quant_method: 'mxfp4'},
 * };
 * const bytes = {
 *   'experts.gate_up_proj_blocks': [2, 64, 1, 16], 'experts.gate_up_proj_scales': [2, 64, 1],
 *   'experts.down_proj_blocks': [2, 32, 1, 16], 'experts.down_proj_scales': [2, 32, 1],
 * };
 * const floats = {
 *   'router.weight': [2, 32], 'router.bias': [2],
 *   'experts.gate_up_proj_bias': [2, 64], 'experts.down_proj_bias': [2, 32],
 * };
 * const tensors = new Map();
 * for (const [name, shape] of Object.entries({...bytes, ...floats})) {
 *   const isFloat = name in floats;
 *   const numBytes = tf.util.sizeFromShape(shape) * (isFloat ? 2 : 1);
 *   const tensor = {dtype: isFloat ? 'BF16' : 'U8', shape, bytes: new Uint8Array(numBytes)};
 *   tensors.set(`model.layers.0.mlp.${name}`, tensor);
 * }
 * const {expertFormat, expertGroupSize} = await moeExpertFormat(tensors, config, {layerIndex: 0});
 * [expertFormat, expertGroupSize]; // => ['fp4', 32]
 * ```
 *
 * Put the result after that of moeLayerConfig: `{...moeLayerConfig(config), ...await moeExpertFormat(…)}`.
 *
 * @param files  As in moeCheckpoint.
 * @param config  As in moeCheckpoint.
 * @param options  layerIndex, prefix and signal, as in moeCheckpoint.
 * @returns A promise of expertFormat, expertGroupSize, expertScaleFormat, expertZeroPoint and useExpertOffsets; of
 *     expertFormat `'float32'` alone for files that are not quantized.
 *
 * @throws as moeCheckpoint. Also if w1 and w2 are stored in different formats, which a layer cannot do: choose one.
 */
export async function moeExpertFormat(
  files: MoeCheckpointSource,
  config: MoeModelConfig,
  options: Pick<LoadMoeCheckpointOptions, 'layerIndex' | 'prefix' | 'signal'>,
): Promise<LayerExpertFormat> {
  const given = checkOptions(options, ['layerIndex', 'prefix', 'signal'], opName);
  const {weights} = await findBlock(files, config, given, opName);
  return layerFormatOf(weights, 'stored', opName);
}

/** The arguments of a layer that stores the experts of a block as `choice` says. */
export function layerFormatOf(
  weights: ReadonlyMap<WeightName, StoredWeight>,
  choice: ExpertFormatChoice,
  opName: string,
): LayerExpertFormat {
  const encodingOfWeight = (name: 'w1' | 'w2') => expertEncoding(weights.get(name)!, choice, name, opName);
  const [first, second] = [encodingOfWeight('w1'), encodingOfWeight('w2')];
  assert(
    areAlike(first, weights.get('w1')!, second, weights.get('w2')!),
    opName,
    () =>
      `w1 and w2 must be stored in one format, but are in ${encodingKey(first)} and ${encodingKey(second)}. Choose one ` +
      'by the arguments of the layer.',
  );
  if (!isQuantizedEncoding(first)) {
    return {expertFormat: 'float32'};
  }
  const {format, scaleFormat, zeroPoint, hasOffsets} = first;
  if (first.groupSize === 0) {
    return {expertFormat: format};
  }
  return {
    expertFormat: format,
    // Rows that are shorter have one group.
    expertGroupSize: Math.max(first.groupSize, second.groupSize),
    expertScaleFormat: scaleFormat,
    expertZeroPoint: quantizedFormats[format].zeroPoint == null || hasOffsets ? null : zeroPoint,
    useExpertOffsets: hasOffsets,
  };
}

/** Whether the encodings differ at most in the size of groups, of which one has all inputs. */
function areAlike(a: WeightEncoding, ofA: StoredWeight, b: WeightEncoding, ofB: StoredWeight): boolean {
  const fits = (size: number, {groupSize}: WeightEncoding, {numIn}: StoredWeight) =>
    groupSize === Math.min(size, numIn);
  const size = Math.max(a.groupSize, b.groupSize);
  return (
    encodingKey({...a, groupSize: 0}) === encodingKey({...b, groupSize: 0}) && fits(size, a, ofA) && fits(size, b, ofB)
  );
}
