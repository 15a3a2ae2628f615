/** Language models from the files of checkpoints. */
import {dispose, type Tensor} from '@tensorflow/tfjs-core';
import type {LayersModel} from '@tensorflow/tfjs-layers';
import {assert, checkOptions, describeValue} from '../arguments/checks';
import type {WeightName} from '../contract/block_weights';
import {
  assertNone,
  findBlock,
  findWeight,
  float32Target,
  isTensorMap,
  type LoadMoeCheckpointOptions,
  type MoeCheckpointSource,
  numStoredBytes,
  readWeights,
  type StoredWeight,
} from '../checkpoints/block';
import type {MoeModelConfig} from '../checkpoints/config_reader';
import {checkExpertFormat, type ExpertFormatOptions, expertFormatOptionNames} from '../checkpoints/expert_encoding';
import type {Reading} from '../checkpoints/files/checkpoint_file';
import {type CheckpointTensors, readHeaders} from '../checkpoints/files/safetensors';
import {isGguf} from '../checkpoints/gguf_weights';
import {fillLayer} from '../checkpoints/load_moe_checkpoint';
import {layerFormatOf} from '../checkpoints/moe_expert_format';
import {whyFormatIsUnknown} from '../checkpoints/stored_formats/index';
import type {StoredFiles} from '../checkpoints/stored_formats/stored_format';
import {partsOf} from './decoder';
import {readLanguageModelConfig} from './language_model_config';
import {buildModel, checkModelOptions, type ModelOptions, modelOptionNames} from './moe_language_model';
import type {TfjsModels} from './new_layers';
import {storedLayers, type StoredLayer, weightNamesOf} from './stored_weights';

export type LoadMoeLanguageModelOptions = ExpertFormatOptions &
  ModelOptions &
  Pick<LoadMoeCheckpointOptions, 'onProgress' | 'signal'> & {
    /** The beginning of the names of all tensors but those of the head. Default `'model.'`. */
    prefix?: string | null;
  };

const optionNames = [...expertFormatOptionNames, ...modelOptionNames, 'onProgress', 'signal', 'prefix'] as const;

const opName = 'loadMoeLanguageModel';

/**
 * A language model with the weights of a Hugging Face checkpoint.
 *
 * ```js
 * import {languageModelFiles, loadMoeLanguageModel, moeLanguageModel} from 'tfjs-moe/models';
 * // In your code, `await remoteCheckpointFile('…/model.safetensors')`. Here a new model is written.
 * const config = {
 *   model_type: 'olmoe', vocab_size: 6, hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1,
 *   num_attention_heads: 2, num_experts: 2, num_experts_per_tok: 1, hidden_act: 'silu',
 * };
 * const files = await languageModelFiles(moeLanguageModel(config), config);
 * const file = files['model.safetensors'];
 * const model = await loadMoeLanguageModel(file, config, {format: 'int4', denseFormat: 'int8'});
 * model.getLayer('layers_0_experts').getConfig().expertFormat; // => 'int4'
 * model.getLayer('layers_0_attention').getConfig().projectionFormat; // => 'int8'
 * ```
 *
 * Experts are read as loadMoeCheckpoint reads them, in slices. All other weights must be F32, F16 or BF16 in the files.
 * Attention projections, embeddings and the head are stored as `denseFormat` says, quantized slice by slice like
 * moeQuantizeWeights does, and the rest as float32.
 *
 * @param files  As in moeCheckpoint: safetensors files of the whole model.
 * @param config  As in moeLanguageModel.
 * @param options  {@link LoadMoeLanguageModelOptions}: format, groupSize, symmetric and scaleFormat of the experts, as
 *     in moeCheckpoint; denseFormat, denseGroupSize, denseScaleFormat, useDenseOffsets, padTokenId and name, as in
 *     moeLanguageModel; prefix, onProgress and signal.
 * @returns A promise of the model.
 *
 * @throws as moeLanguageModel. Also if tensors are missing, or have another shape or dtype than config.json asks for:
 *     one error names the first ten of them, before any is read. If the promise is rejected, no tensor stays.
 */
export type LoadMoeLanguageModel = (
  files: MoeCheckpointSource,
  config: MoeModelConfig,
  options?: LoadMoeLanguageModelOptions,
) => Promise<LayersModel>;

/** loadMoeLanguageModel for one copy of tfjs. */
export function makeLoadMoeLanguageModel(tf: TfjsModels): LoadMoeLanguageModel {
  return async (files, config, options = {}) => {
    const given = checkOptions(options, optionNames, opName);
    const {format, groupSize, symmetric, scaleFormat, onProgress, signal, prefix, ...forModel} = given;
    const read = readLanguageModelConfig(config, opName);
    const ofModel = checkModelOptions(forModel, read, opName);
    const choice = checkExpertFormat({format, groupSize, symmetric, scaleFormat}, opName);
    const $prefix = checkPrefix(prefix);
    const tensors = isTensorMap(files) ? files : await readHeaders(files, {opName, signal});
    assertSafetensors(tensors);

    const experts = new Map<number, ReadonlyMap<WeightName, StoredWeight>>();
    for (const [layerIndex, {dense}] of read.blocks.entries()) {
      if (dense == null) {
        const place = {layerIndex, prefix: $prefix, onProgress, signal};
        experts.set(layerIndex, (await findBlock(tensors, config, place, opName)).weights);
      }
    }
    const expertFormat = (layer: number) => layerFormatOf(experts.get(layer)!, choice, opName);
    const model = buildModel(tf, read, {...ofModel, weights: 'zeros', expertFormat}, opName);
    try {
      const fillings = fillingsOf(model, experts, {tensors, config, opName}, $prefix);
      await fill(fillings, {opName, signal}, onProgress);
      return model;
    } catch (error) {
      model.dispose();
      throw error;
    }
  };
}

export function checkPrefix(prefix: string | null | undefined, ofFunction = opName): string {
  assert(
    prefix == null || typeof prefix === 'string',
    ofFunction,
    () => `prefix must be a string, but is ${describeValue(prefix)}.`,
  );
  return prefix ?? 'model.';
}

function assertSafetensors(tensors: CheckpointTensors): void {
  assert(
    !isGguf(tensors),
    opName,
    () => 'files must be safetensors files of a whole model. Of GGUF files, loadMoeCheckpoint reads the experts.',
  );
}

/** Weights of files, and how to put them into a layer. */
type Filling = {
  numBytes: number;
  fill: (reading: Reading & Pick<LoadMoeCheckpointOptions, 'onProgress'>) => Promise<void>;
};

/** Finds the weights of all layers. */
function fillingsOf(
  model: LayersModel,
  experts: ReadonlyMap<number, ReadonlyMap<WeightName, StoredWeight>>,
  files: StoredFiles,
  prefix: string,
): Filling[] {
  const parts = partsOf(model, opName);
  const problems: string[] = [];
  const fillings = storedLayers(parts, prefix).map(({layer, weights}): Filling => {
    const found = new Map(
      weights.map(({name, matrices}) => [name, matrices.map((matrix) => findWeight(matrix, files, problems))]),
    );
    return {numBytes: numStoredBytes(found), fill: (reading) => fillStored({layer, weights}, found, reading)};
  });
  const reasons = whyFormatIsUnknown(files.config);
  assertNone(problems, 'the checkpoint must have the tensors of the model', opName, reasons);
  for (const [block, weights] of experts) {
    const {feedForward} = parts.blocks[block];
    if ('experts' in feedForward) {
      const layer = feedForward.experts;
      fillings.push({numBytes: numStoredBytes(weights), fill: (reading) => fillLayer(layer, weights, reading)});
    }
  }
  return fillings;
}

async function fillStored(
  {layer, weights}: StoredLayer,
  found: ReadonlyMap<string, StoredWeight[]>,
  reading: Parameters<Filling['fill']>[0],
): Promise<void> {
  const encodings = new Map(weights.map(({name, encoding}) => [name, encoding]));
  const targetOf = (name: string) => ({...float32Target, encoding: encodings.get(name)!});
  const read = await readWeights(found, targetOf, reading);
  const values = new Map<string, Tensor>();
  for (const {name, tensorNames} of weights) {
    const [{weights: codes, scales, offsets}] = read.get(name)!;
    const tensors = [codes, scales, offsets].filter((tensor) => tensor != null);
    tensorNames.forEach((tensorName, t) => values.set(tensorName, tensors[t]));
  }
  try {
    layer.setWeights(weightNamesOf(layer).map((name) => values.get(name)!));
  } finally {
    dispose([...values.values()]);
  }
}

async function fill(
  fillings: readonly Filling[],
  reading: Reading,
  onProgress: LoadMoeCheckpointOptions['onProgress'],
): Promise<void> {
  const total = fillings.reduce((sum, {numBytes}) => sum + numBytes, 0);
  let done = 0;
  for (const filling of fillings) {
    const before = done;
    await filling.fill({
      ...reading,
      onProgress: (fraction) => onProgress?.((before + fraction * filling.numBytes) / total),
    });
    done += filling.numBytes;
  }
}
