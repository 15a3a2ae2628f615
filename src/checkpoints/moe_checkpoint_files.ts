/** Writes blocks of experts as files of Hugging Face checkpoints. */
import {assert, assertPositiveInteger, checkOneOf, checkOptions, describeValue} from '../arguments/checks';
import type {MoeModelConfig} from './config_reader';
import {checkpointLayout} from './layouts';
import {assertNone, findBlock} from './block';
import type {Reading} from './files/checkpoint_file';
import {checkpointFolder} from './files/checkpoint_folder';
import {type CheckpointTensor, type CheckpointTensors, shortName} from './files/safetensors';
import {type FloatDtype, floatDtypes} from './files/write_safetensors';
import {isGguf} from './gguf_weights';
import type {MoeCheckpoint} from './moe_checkpoint';
import type {MoeWeightsLayer} from './moe_weights_layer';
import {hasMatrices} from './stored_formats/index';
import {blockOf, type GivenBlock, problemsOfBlock} from './weights/given_block';
import {weightsOfBlock, writtenTensors} from './weights/written_tensors';

export type MoeCheckpointFilesOptions = {
  /**
   * How weights are written. F16 and BF16 are rounded to the nearest. Default: as in `base`, or `'F32'` without it. To
   * be given if the experts of `base` are quantized.
   */
  dtype?: FloatDtype | null;
  /** The tensors of a checkpoint, by readSafetensors: all that do not belong to the blocks are written as they are. */
  base?: CheckpointTensors | null;
  /** The beginning of the tensors' names, up to `layers.`. Default: `'model.'`, or what the family has. */
  prefix?: string | null;
  /** A file that would be larger becomes several, with an index. Default 5,000,000,000. */
  maxShardBytes?: number | null;
  /** Calls the writing off. */
  signal?: AbortSignal | null;
};

const optionNames = ['dtype', 'base', 'prefix', 'maxShardBytes', 'signal'] as const;

const opName = 'moeCheckpointFiles';

/**
 * Writes blocks of experts as vLLM and transformers read them: config.json and safetensors files, in the names and the
 * layout of the family.
 *
 * ```js
 * import {moeCheckpoint, moeCheckpointFiles, moeLayerConfig} from 'tfjs-moe/checkpoints';
 * const config = {
 *   model_type: 'olmoe', hidden_size: 2, intermediate_size: 1, num_experts: 4, num_experts_per_tok: 2,
 *   hidden_act: 'silu',
 * };
 * const layer = tf.layers.mixtureOfExperts({...moeLayerConfig(config), kernelInitializer: 'ones', inputShape: [2]});
 * tf.sequential({layers: [layer]}); // and fit
 * const files = await moeCheckpointFiles({0: layer}, config, {dtype: 'BF16'});
 * Object.keys(files); // => ['config.json', 'model.safetensors']
 * const {w2} = await moeCheckpoint(files['model.safetensors'], config, {layerIndex: 0, format: 'float32'});
 * await w2.array(); // => [[[1], [1]], [[1], [1]], [[1], [1]], [[1], [1]]]
 * ```
 *
 * Files of `base`, the checkpoint that was loaded, make it a whole model again: its other tensors are copied without
 * change, and its shards may be Blobs or files of a server. Blobs are copied without being read.
 *
 * @param blocks  For each number of a layer a built MixtureOfExperts, or what moeCheckpoint returned. Quantized experts
 *     are decoded.
 * @param config  The config.json of the family, parsed. The blocks must choose and compute as it says.
 * @param options  {@link MoeCheckpointFilesOptions}: dtype, base, prefix, maxShardBytes and signal.
 * @returns A promise of Blobs by file name: `config.json`, and `model.safetensors`; or
 *     `model-00001-of-0000n.safetensors` and so on, and `model.safetensors.index.json`. The config is `config`, with
 *     `dtype` if it was asked for, and without `quantization_config`; so is its text_config.
 *
 * Numbers are kept to the bit if the dtype holds them. Stored as the family is published: `base` decides between names
 * of single and of stacked experts, if it has the block.
 *
 * @throws if a block is no built layer or result of moeCheckpoint, or its weights or arguments differ from what config
 *     asks for. One error lists all differences, before a value is read. Also if the family stores one tensor for
 *     values that differ, such as the bias of JetMoE's output, or has none for values that are not 0.
 */
export async function moeCheckpointFiles(
  blocks: {readonly [layerIndex: number]: MoeWeightsLayer | MoeCheckpoint},
  config: MoeModelConfig,
  options: MoeCheckpointFilesOptions = {},
): Promise<{[fileName: string]: Blob}> {
  const {dtype, base, prefix, maxShardBytes, signal} = checkOptions(options, optionNames, opName);
  if (dtype != null) {
    checkOneOf(dtype, floatDtypes, 'dtype', opName);
  }
  if (maxShardBytes != null) {
    assertPositiveInteger(maxShardBytes, 'maxShardBytes', opName);
  }
  assert(
    base == null || !isGguf(base),
    opName,
    () => 'base must have the tensors of safetensors files, but has those of a GGUF file.',
  );
  const reading: Reading = {opName, signal};
  const found = await findBlocks(blocks, config, {prefix, base}, opName);

  const written: CheckpointTensors = new Map(base);
  found.forEach(({replaced}) => replaced.forEach((name) => written.delete(name)));
  assertNoCodes(written);
  for (const {block, layout} of found) {
    signal?.throwIfAborted();
    const dtypeOf = (name: string) => dtype ?? floatDtypeIn(base, name);
    for (const [name, tensor] of await writtenTensors(weightsOfBlock(block, layout), dtypeOf, opName)) {
      written.set(name, tensor);
    }
  }
  return checkpointFolder(written, config, {dtype, maxShardBytes}, reading);
}

type FoundBlock = {
  block: GivenBlock;
  layout: ReturnType<typeof checkpointLayout>;
  /** The names in `base` for which others are written. */
  replaced: string[];
};

/** Checks every block, and finds the tensors of `base` that it stands for. */
export async function findBlocks(
  blocks: {readonly [layerIndex: number]: MoeWeightsLayer | MoeCheckpoint},
  config: MoeModelConfig,
  {prefix, base}: Pick<MoeCheckpointFilesOptions, 'prefix' | 'base'>,
  opName: string,
): Promise<FoundBlock[]> {
  const entries = Object.entries(blocks ?? {});
  assert(
    entries.length > 0 && entries.every(([layer]) => /^\d+$/.test(layer)),
    opName,
    () => `blocks must have a block for at least one number of a layer, but is ${describeValue(blocks)}.`,
  );
  const found: FoundBlock[] = [];
  for (const [layer, given] of entries) {
    const layerIndex = Number(layer);
    const tensors: CheckpointTensors = base ?? new Map<string, CheckpointTensor>();
    const hasTensor = (name: string) => hasMatrices({tensors, config, opName}, name);
    const layout = checkpointLayout(config, {layerIndex, prefix, hasTensor}, opName);
    const block = blockOf(given, `blocks[${layer}]`, opName);
    const what = `${block.name} must have the weights and arguments that config asks for, as moeLayerConfig gives them`;
    assertNone(problemsOfBlock(block, layout, opName), what, opName);
    found.push({
      block,
      layout,
      replaced: base == null ? [] : await namesOfBlock(base, config, {layerIndex, prefix}, opName),
    });
  }
  return found;
}

/** The names of the block's tensors in `base`. */
async function namesOfBlock(
  base: CheckpointTensors,
  config: MoeModelConfig,
  place: {layerIndex: number; prefix: string | null | undefined},
  opName: string,
): Promise<string[]> {
  const {weights} = await findBlock(base, config, place, opName);
  const ofBlock = new Set(
    [...weights.values()].flatMap(({stored}) =>
      stored.flatMap(({weights: codes, extras}) => [codes, ...extras].map(({bytes}) => bytes)),
    ),
  );
  return [...base].filter(([, {bytes}]) => ofBlock.has(bytes)).map(([name]) => name);
}

/** Names of codes and scales in quantized files. */
const namesOfCodes = /(_blocks|_scales|_scale_inv|\.qweight|\.qzeros|\.weight_packed|\.weight_scale)$/;

/** The config that is written says nothing of quantization. */
function assertNoCodes(tensors: CheckpointTensors): void {
  const [name] = [...tensors.keys()].filter((each) => namesOfCodes.test(each));
  assert(
    name == null,
    opName,
    () => `base must have no quantized tensors but those of the blocks, but has ${shortName(name)}.`,
  );
}

function floatDtypeIn(base: CheckpointTensors | null | undefined, name: string): FloatDtype {
  if (base == null) {
    return 'F32';
  }
  const {dtype} = base.get(name) ?? {};
  const known = floatDtypes.find((each) => each === dtype);
  assert(
    known != null,
    opName,
    () => `dtype must be given, because base has ${dtype == null ? 'no' : `a ${dtype}`} tensor ${name}.`,
  );
  return known!;
}
