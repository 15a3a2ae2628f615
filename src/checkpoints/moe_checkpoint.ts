/** Mixture-of-experts blocks of Hugging Face checkpoints, as arguments of fusedMoe. */
import type {Tensor, Tensor1D, Tensor2D, Tensor3D} from '@tensorflow/tfjs-core';
import {assertPositiveInteger, checkOptions} from '../arguments/checks';
import type {WeightName} from '../contract/block_weights';
import {isQuantizedEncoding, type QuantizedWeights, quantizedWeightsOf} from '../contract/quantized_weights';
import {
  findBlock,
  float32Target,
  type LoadMoeCheckpointOptions,
  loadMoeCheckpointOptionNames,
  type MoeCheckpointSource,
  readWeights,
} from './block';
import type {MoeModelConfig} from './config_reader';
import {checkExpertFormat, expertEncoding, type ExpertFormatOptions, expertFormatOptionNames} from './expert_encoding';
import type {MoeCheckpointRouting} from './layouts';
import {withoutAbsent} from './moe_layer_config';

export type MoeCheckpointOptions = LoadMoeCheckpointOptions &
  ExpertFormatOptions & {
    /**
     * Return w1 and w2 as lists of at most this many experts, for weights that are larger than a device binds in one
     * tensor. Default: one each.
     */
    expertsPerTensor?: number | null;
  };

const optionNames = [...loadMoeCheckpointOptionNames, ...expertFormatOptionNames, 'expertsPerTensor'] as const;

/** Float32 or quantized, in one piece or, with expertsPerTensor, in a list. */
export type MoeCheckpointExperts = Tensor3D | QuantizedWeights | Tensor3D[] | QuantizedWeights[];

export type MoeCheckpoint<Experts = MoeCheckpointExperts> = {
  /** float32 [H, E]: routerLogits = x . routerKernel. */
  routerKernel: Tensor2D;
  /** float32 [E], added to the logits; absent if the family has no router bias. */
  routerBias?: Tensor1D;
  /** [E, 2I, H]. For each expert its gates, then its ups. */
  w1: Experts;
  /** [E, H, I]. */
  w2: Experts;
  /** K, experts per token. */
  topk: number;
  /** The options of fusedMoe that differ from its defaults, including the tensors of the family. */
  options: MoeCheckpointRouting & {
    w1Bias?: Tensor2D;
    w2Bias?: Tensor2D;
    scoreCorrectionBias?: Tensor1D;
    sharedExperts?: {w1: Tensor2D; w2: Tensor2D; gate?: Tensor2D};
  };
};

/**
 * The mixture-of-experts block of one layer of a Hugging Face checkpoint, as the arguments of fusedMoe.
 *
 * ```js
 * import {moeCheckpoint} from 'tfjs-moe/checkpoints';
 * // In your code, `await remoteCheckpointFile('…/model.safetensors')` and the parsed config.json.
 * // Here E = 2 experts of H = I = 1.
 * const config = {
 *   model_type: 'mixtral', hidden_size: 1, intermediate_size: 1, num_local_experts: 2, num_experts_per_tok: 1,
 *   hidden_act: 'relu',
 * };
 * const block = {gate: [5, -5], 'experts.0.w1': [2], 'experts.0.w3': [3], 'experts.0.w2': [1],
 *   'experts.1.w1': [-1], 'experts.1.w3': [-1], 'experts.1.w2': [10]};
 * const values = Object.values(block).flat();
 * let end = 0;
 * const header = Object.fromEntries(Object.entries(block).map(([name, rows]) => [
 *   `model.layers.7.block_sparse_moe.${name}.weight`,
 *   {dtype: 'F32', shape: [rows.length, 1], data_offsets: [end, (end += 4 * rows.length)]},
 * ]));
 * const json = new TextEncoder().encode(JSON.stringify(header));
 * const length = new Uint8Array(new Float64Array(1).buffer);
 * new DataView(length.buffer).setUint32(0, json.length, true);
 * const file = Uint8Array.of(...length, ...json, ...new Uint8Array(Float32Array.from(values).buffer));
 *
 * const {routerKernel, w1, w2, topk, options} = await moeCheckpoint(file, config, {layerIndex: 7, format: 'float32'});
 * await w1.array(); // => [[[2], [3]], [[-1], [-1]]]
 * const x = tf.tensor2d([[1], [-2]]);
 * await tf.fusedMoe(x, w1, w2, tf.matMul(x, routerKernel), topk, options).array(); // => [[6], [40]]
 * ```
 *
 * With a router's bias, the logits are `tf.add(tf.matMul(x, routerKernel), routerBias)`.
 *
 * `config.model_type` is one of those in docs/checkpoints.md, which lists the names of their tensors: Mixtral, Qwen,
 * OLMoE, DeepSeek, GLM, Granite, gpt-oss, Llama 4, Nemotron-H and others. The config of a multimodal model may be
 * passed whole: its text_config is read. Experts may be single tensors, or stacked as transformers 5 saves them.
 *
 * Quantized experts are taken as they are stored, without a change of value. config.quantization_config says how:
 * mxfp4 as gpt-oss has it, fp8 in blocks with `…_scale_inv`, compressed-tensors (integers of 4 and 8 bits, float8,
 * mxfp4 and nvfp4), gptq of 4 and 8 bits without act-order, or awq of version gemm. GGUF files come through readGguf,
 * with the config.json of their model: their experts may be in Q4_0, Q4_1, Q8_0, Q4_K, Q6_K, MXFP4, F16, BF16 or F32.
 *
 * @param files  A safetensors file, or a list of the shards: a tensor may be in any of them. A file is a Blob, a file
 *     of remoteCheckpointFile, whatever else has a size and `slice(start, end).arrayBuffer()`, or bytes in memory. The
 *     Map of readSafetensors or readGguf also works; with it, headers are read once for many layers.
 * @param config  The checkpoint's config.json, parsed: it has the sizes, and how the router chooses.
 * @param options  {@link MoeCheckpointOptions}: layerIndex, prefix, onProgress and signal; format, groupSize, symmetric
 *     and scaleFormat of w1 and w2, as in moeQuantizeWeights; and expertsPerTensor.
 * @returns A promise of tensors, which belong to the caller: `tf.dispose(result)`. `routerKernel` [H, E], and
 *     `routerBias` [E] if the family has one. `w1` is [E, 2I, H], for each expert its gates, then its ups. `w2` is
 *     [E, H, I]. `topk`, and `options` of fusedMoe: scoring, renormalize, activation, groups, scale, and if the family
 *     has them the tensors w1Bias, w2Bias, scoreCorrectionBias and sharedExperts. All are float32, but w1 and w2 may be
 *     quantized.
 *
 * Memory: files are read in slices of at most 2 MiB, three at a time, and rows are converted as they pass. Of a file
 * that is not in memory the host holds the result, on webgpu only its scales, and less than 128 MiB beside it, or
 * one matrix more if the files have matrices transposed (or in GPTQ or AWQ) and these are large.
 *
 * @throws if a file is no safetensors file. Also if config.json lacks a value that the family needs, or asks for
 *     something that these ops cannot do, such as more than 2^20 experts. Also if tensors, in files or in a Map, are
 *     missing, or have another shape, dtype or number of bytes than the family and the format ask for. One error names
 *     the first ten such tensors, and the reason if config.json has it, such as a dense layer. It comes before any
 *     tensor is made.
 *
 * Source: for each model_type, src/transformers/models/<model_type>/ of huggingface/transformers; for stacked and
 * single experts, its conversion_mapping.py; for Granite's newer names, the loader of sglang.
 */
export async function moeCheckpoint(
  files: MoeCheckpointSource,
  config: MoeModelConfig,
  options: MoeCheckpointOptions & {format: 'float32'; expertsPerTensor: number},
): Promise<MoeCheckpoint<Tensor3D[]>>;
export async function moeCheckpoint(
  files: MoeCheckpointSource,
  config: MoeModelConfig,
  options: MoeCheckpointOptions & {format: 'float32'; expertsPerTensor?: null},
): Promise<MoeCheckpoint<Tensor3D>>;
export async function moeCheckpoint(
  files: MoeCheckpointSource,
  config: MoeModelConfig,
  options: MoeCheckpointOptions,
): Promise<MoeCheckpoint>;
export async function moeCheckpoint(
  files: MoeCheckpointSource,
  config: MoeModelConfig,
  options: MoeCheckpointOptions,
): Promise<MoeCheckpoint> {
  const opName = 'moeCheckpoint';
  const {expertsPerTensor, ...given} = checkOptions(options, optionNames, opName);
  if (expertsPerTensor != null) {
    assertPositiveInteger(expertsPerTensor, 'expertsPerTensor', opName);
  }
  const choice = checkExpertFormat(given, opName);
  const {layout, weights} = await findBlock(files, config, given, opName);
  const targets = new Map(
    (['w1', 'w2'] as const).map((name) => {
      const encoding = expertEncoding(weights.get(name)!, choice, name, opName);
      return [name as WeightName, {encoding, expertsPerTensor: expertsPerTensor ?? Infinity}];
    }),
  );
  const read = await readWeights(weights, (name) => targets.get(name) ?? float32Target, {...given, opName});

  const tensorOf = <T extends Tensor>(name: WeightName): T | undefined => read.get(name)?.[0].weights as T | undefined;
  const expertsOf = (name: 'w1' | 'w2'): MoeCheckpointExperts => {
    const {encoding} = targets.get(name)!;
    const [, ...matrix] = weights.get(name)!.shape;
    const parts = read
      .get(name)!
      .map(({weights: codes, scales, offsets}) =>
        isQuantizedEncoding(encoding)
          ? quantizedWeightsOf([codes.shape[0], ...matrix], encoding, {codes, scales, offsets})
          : (codes as Tensor3D),
      );
    return (expertsPerTensor == null ? parts[0] : parts) as MoeCheckpointExperts;
  };
  const sharedW1 = tensorOf<Tensor2D>('shared_w1');
  const sharedExperts =
    sharedW1 &&
    withoutAbsent({
      w1: sharedW1,
      w2: tensorOf<Tensor2D>('shared_w2')!,
      gate: tensorOf<Tensor2D>('shared_gate'),
    });
  return withoutAbsent({
    routerKernel: tensorOf<Tensor2D>('router_kernel')!,
    routerBias: tensorOf<Tensor1D>('router_bias'),
    w1: expertsOf('w1'),
    w2: expertsOf('w2'),
    topk: layout.topk,
    options: withoutAbsent({
      ...layout.routing,
      w1Bias: tensorOf<Tensor2D>('w1_bias'),
      w2Bias: tensorOf<Tensor2D>('w2_bias'),
      scoreCorrectionBias: tensorOf<Tensor1D>('score_correction_bias'),
      sharedExperts,
    }),
  });
}
