/** Writes language models as folders of Hugging Face. */
import type {LayersModel} from '@tensorflow/tfjs-layers';
import {assertPositiveInteger, checkOneOf, checkOptions} from '../arguments/checks';
import type {MoeModelConfig} from '../checkpoints/config_reader';
import {checkpointFolder} from '../checkpoints/files/checkpoint_folder';
import type {CheckpointTensors} from '../checkpoints/files/safetensors';
import {floatDtypes} from '../checkpoints/files/write_safetensors';
import {findBlocks, type MoeCheckpointFilesOptions} from '../checkpoints/moe_checkpoint_files';
import {weightsOfBlock, type WrittenWeight, writtenTensors} from '../checkpoints/weights/written_tensors';
import {assertModel, partsOf} from './decoder';
import {readLanguageModelConfig} from './language_model_config';
import {checkPrefix} from './load_moe_language_model';
import {assertSameModel} from './same_model';
import {storedLayers, weightNamesOf} from './stored_weights';

export type LanguageModelFilesOptions = Pick<
  MoeCheckpointFilesOptions,
  'dtype' | 'prefix' | 'maxShardBytes' | 'signal'
>;

const optionNames = ['dtype', 'prefix', 'maxShardBytes', 'signal'] as const;

const opName = 'languageModelFiles';

/**
 * Writes a language model as a folder that transformers and vLLM load: config.json and safetensors files, in the names
 * and the layout of the family.
 *
 * ```js
 * import {languageModelFiles, moeLanguageModel} from 'tfjs-moe/models';
 * const config = {
 *   model_type: 'granitemoe', vocab_size: 6, hidden_size: 4, intermediate_size: 4, num_hidden_layers: 1,
 *   num_attention_heads: 2, num_local_experts: 2, num_experts_per_tok: 1, tie_word_embeddings: true,
 * };
 * const model = moeLanguageModel(config); // and fit
 * const files = await languageModelFiles(model, config, {dtype: 'BF16'});
 * Object.keys(files); // => ['config.json', 'model.safetensors']
 * ```
 *
 * @param model  A model of moeLanguageModel or loadMoeLanguageModel, also after it was saved and loaded. Weights in
 *     codes are decoded.
 * @param config  The config.json of the family that the model was made with.
 * @param options  {@link LanguageModelFilesOptions}: dtype, maxShardBytes, prefix and signal, as in moeCheckpointFiles.
 * @returns A promise of Blobs by file name, as moeCheckpointFiles gives them. Files of a tokenizer are not written.
 *
 * @throws if the model is no such model, or differs from what config says. One error lists the first ten differences,
 *     before a value is read.
 */
export async function languageModelFiles(
  model: LayersModel,
  config: MoeModelConfig,
  options: LanguageModelFilesOptions = {},
): Promise<{[fileName: string]: Blob}> {
  const {dtype, prefix, maxShardBytes, signal} = checkOptions(options, optionNames, opName);
  if (dtype != null) {
    checkOneOf(dtype, floatDtypes, 'dtype', opName);
  }
  if (maxShardBytes != null) {
    assertPositiveInteger(maxShardBytes, 'maxShardBytes', opName);
  }
  const $prefix = checkPrefix(prefix, opName);
  assertModel(model, opName);
  const parts = partsOf(model, opName);
  assertSameModel(parts, readLanguageModelConfig(config, opName), opName);
  const experts = parts.blocks.flatMap(({feedForward}, block) =>
    'experts' in feedForward ? [[block, feedForward.experts] as const] : [],
  );
  const blocks = await findBlocks(Object.fromEntries(experts), config, {prefix: $prefix}, opName);

  const dtypeOf = () => dtype ?? 'F32';
  const written: CheckpointTensors = new Map();
  const write = async (weights: WrittenWeight[]): Promise<void> => {
    signal?.throwIfAborted();
    for (const [name, tensor] of await writtenTensors(weights, dtypeOf, opName)) {
      written.set(name, tensor);
    }
  };
  for (const {layer, weights} of storedLayers(parts, $prefix)) {
    const tensors = layer.getWeights();
    const tensorOf = new Map(weightNamesOf(layer).map((name, w) => [name, tensors[w]]));
    await write(
      weights.map(({name, tensorNames, encoding, matrices}) => {
        const [codes, scales, offsets] = tensorNames.map((tensorName) => tensorOf.get(tensorName));
        return {
          name: `${name} of layer '${layer.name}'`,
          weights: matrices,
          given: {encoding, parts: [{weights: codes!, scales, offsets}]},
        };
      }),
    );
  }
  for (const {block, layout} of blocks) {
    await write(weightsOfBlock(block, layout));
  }
  return checkpointFolder(written, config, {dtype, maxShardBytes}, {opName, signal});
}
