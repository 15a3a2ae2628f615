/** Puts the weights of a checkpoint's block into a layer. */
import {dispose, type Tensor, util, zeros} from '@tensorflow/tfjs-core';
import {assert, checkOptions, describeValue} from '../arguments/checks';
import {checkActivation} from '../arguments/experts';
import {checkRouting} from '../arguments/routing';
import {sizeOfGroups} from '../arguments/quantized_weights';
import type {LayerWeightName, WeightName} from '../contract/block_weights';
import {
  encodingOf,
  float32Encoding,
  isQuantizedEncoding,
  type QuantizedFormat,
  quantizedShapes,
  type ScaleFormat,
  type WeightEncoding,
} from '../contract/quantized_weights';
import {
  assertNone,
  findBlock,
  float32Target,
  type LoadMoeCheckpointOptions,
  loadMoeCheckpointOptionNames,
  type MoeCheckpointSource,
  readWeights,
} from './block';
import type {MoeModelConfig} from './config_reader';
import {layerConfigOf, type MoeLayerConfig} from './moe_layer_config';
import type {CheckpointLayout} from './layouts';

/** The parts of a layer that loadMoeCheckpoint uses. MixtureOfExperts has them. */
export type MoeWeightsLayer = {
  /** The name in messages. */
  name: string;
  /** The arguments that determine what the layer computes. They are compared with config.json. */
  getConfig(): {[key: string]: unknown};
  /** Names and shapes of the weights, in the order of setWeights. The layer's own name may stand before a weight's. */
  readonly weights: ReadonlyArray<{originalName: string; shape: ReadonlyArray<number | null>}>;
  /** Called once, with all weights. */
  setWeights(weights: Tensor[]): void;
};

/** Arguments of a layer of which a checkpoint may say nothing. */
type LayerArgs = MoeLayerConfig & {numZeroExperts?: number; applyRouterWeightOnInput?: boolean};

/** The arguments that determine what a layer computes, each in one spelling. */
function computedBy(args: LayerArgs, opName: string) {
  const {numZeroExperts = 0, applyRouterWeightOnInput = false} = args;
  const {renormalize, ...routing} = checkRouting(args.numExperts + numZeroExperts, args.topk, args, opName);
  const renormalizes = renormalize && routing.scoring !== 'softmaxAfterTopk';
  const {activation, gated, swigluAlpha, swigluLimit} = checkActivation(args, opName);
  const ofActivation = {swigluAlpha: activation === 'swigluOai' ? swigluAlpha : undefined, swigluLimit};
  const ofExperts = {activation, gated, ...ofActivation, numZeroExperts, applyRouterWeightOnInput};
  return {...routing, renormalize: renormalizes, ...ofExperts};
}

/** How a MixtureOfExperts computes differently from config.json although its weights have the same shapes. */
function differencesInArgs(layer: MoeWeightsLayer, layout: CheckpointLayout, opName: string): string[] {
  const args = layer.getConfig();
  if (args.numExperts === undefined) {
    return [];
  }
  const given = computedBy(args as LayerArgs, opName);
  const expected = computedBy(layerConfigOf(layout), opName);
  const hasOtherActivation = given.activation !== expected.activation;
  return (Object.keys(expected) as Array<keyof typeof expected>).flatMap((name) =>
    given[name] === expected[name] || (hasOtherActivation && name.startsWith('swiglu'))
      ? []
      : [`${name}: expected ${expected[name]}, but the layer has ${given[name]}`],
  );
}

/** How a MixtureOfExperts stores its experts: the arguments of its config. Other layers have none of them. */
type LayerExpertFormat = {
  expertFormat?: 'float32' | QuantizedFormat;
  expertGroupSize?: number | null;
  expertScaleFormat?: ScaleFormat | null;
  expertZeroPoint?: number | null;
  useExpertOffsets?: boolean;
};

function layerEncoding(
  {expertFormat, expertGroupSize, expertScaleFormat, expertZeroPoint, useExpertOffsets}: LayerExpertFormat,
  numIn: number,
): WeightEncoding {
  return expertFormat == null || expertFormat === 'float32'
    ? float32Encoding
    : encodingOf<WeightEncoding>({
        format: expertFormat,
        groupSize: sizeOfGroups(expertGroupSize ?? 0, numIn),
        scaleFormat: expertScaleFormat ?? 'float32',
        zeroPoint: expertZeroPoint ?? 0,
        hasOffsets: useExpertOffsets ?? false,
      });
}

/** What the layer has for a weight: itself, or its codes, and then the scales and offsets of the encoding. */
function tensorNames(name: WeightName, encoding: WeightEncoding): LayerWeightName[] {
  if (!isQuantizedEncoding(encoding)) {
    return [name];
  }
  const parts = ['codes', ...(encoding.groupSize > 0 ? ['scales'] : []), ...(encoding.hasOffsets ? ['offsets'] : [])];
  return parts.map((part) => `${name}_${part}` as LayerWeightName);
}

/** The weights of a layer. tf.layers puts the layer's own name before a weight's name. */
const weightsOf = ({weights}: MoeWeightsLayer) =>
  weights.map(({originalName, shape}) => ({
    name: originalName.slice(originalName.lastIndexOf('/') + 1) as LayerWeightName,
    shape: shape as number[],
  }));

/**
 * Puts the mixture-of-experts block of one layer of a Hugging Face checkpoint into a built MixtureOfExperts layer.
 *
 * ```js
 * import {loadMoeCheckpoint, moeLayerConfig} from 'tfjs-moe/checkpoints';
 * const config = {
 *   model_type: 'olmoe', hidden_size: 1, intermediate_size: 1, num_experts: 1, num_experts_per_tok: 1,
 *   hidden_act: 'relu',
 * };
 * const layer = tf.layers.mixtureOfExperts({...moeLayerConfig(config), inputShape: [config.hidden_size]});
 * const model = tf.sequential({layers: [layer]}); // builds the layer
 * // In your code, these are the bytes of the shards that have the layer. Here they are tensors of readSafetensors.
 * const block = {gate: 1, 'experts.0.gate_proj': 2, 'experts.0.up_proj': 3, 'experts.0.down_proj': 4};
 * const shards = new Map(Object.entries(block).map(([name, value]) => [
 *   `model.layers.5.mlp.${name}.weight`,
 *   {dtype: 'F32', shape: [1, 1], bytes: new Uint8Array(Float32Array.of(value).buffer)},
 * ]));
 * await loadMoeCheckpoint(layer, shards, config, {layerIndex: 5});
 * const output = model.predict(tf.ones([1, 1]));
 * output instanceof tf.Tensor && await output.array(); // => [[24]]
 * ```
 *
 * @param layer  A layer whose weights have the names and shapes of the weights of MixtureOfExperts, in any order.
 * @param files  As in moeCheckpoint.
 * @param config  As in moeCheckpoint.
 * @param options  {@link LoadMoeCheckpointOptions}: layerIndex, prefix, onProgress and signal.
 * @returns A promise that resolves when the layer has its weights.
 *
 * The layer must also choose and compute as config.json says. To use another topk, for example, pass a config that says
 * so. If the layer has a score_correction_bias and the checkpoint has none, the bias becomes 0, which corrects nothing.
 *
 * The layer's `expertFormat` decides how its experts are stored. Experts that the files have in this format are taken
 * as they are. All others are decoded to float32, and quantized like moeQuantizeWeights does if the layer asks for
 * codes.
 *
 * @throws as moeCheckpoint. Also if the layer is not built; if the layer has a weight that the checkpoint lacks, or
 *     lacks a weight that the checkpoint has; or if shapes or arguments differ. One error lists all such problems, and
 *     the layer stays as it was, as it does if the reading is called off.
 */
export async function loadMoeCheckpoint(
  layer: MoeWeightsLayer,
  files: MoeCheckpointSource,
  config: MoeModelConfig,
  options: LoadMoeCheckpointOptions,
): Promise<void> {
  const opName = 'loadMoeCheckpoint';
  const given = checkOptions(options, loadMoeCheckpointOptionNames, opName);
  assert(
    Array.isArray(layer?.weights) && typeof layer.getConfig === 'function' && typeof layer.setWeights === 'function',
    opName,
    () => `layer must be a MixtureOfExperts layer, but is ${describeValue(layer)}.`,
  );
  assert(
    layer.weights.length > 0,
    opName,
    () => `layer '${layer.name}' must be built, but has no weights. Call it, or its model, once first.`,
  );
  const {layout, weights} = await findBlock(files, config, given, opName);
  const format = layer.getConfig() as LayerExpertFormat;
  const encodingOfWeight = (name: WeightName): WeightEncoding =>
    name === 'w1' || name === 'w2' ? layerEncoding(format, weights.get(name)!.numIn) : float32Encoding;
  const expected = new Map<LayerWeightName, number[]>();
  weights.forEach(({shape}, name) => {
    const encoding = encodingOfWeight(name);
    const shapes = isQuantizedEncoding(encoding) ? quantizedShapes(shape, encoding) : {codes: shape, scales: shape};
    tensorNames(name, encoding).forEach((each, t) => expected.set(each, t === 0 ? shapes.codes : shapes.scales));
  });
  const layerWeights = weightsOf(layer);
  const problems = layerWeights.flatMap(({name, shape}) => {
    const wanted = expected.get(name);
    if (wanted == null) {
      return name === 'score_correction_bias' ? [] : [`${name} [${shape}]: the checkpoint has none`];
    }
    return util.arraysEqual(shape, wanted) ? [] : [`${name}: expected [${wanted}], but the layer has [${shape}]`];
  });
  for (const [name, shape] of expected) {
    if (!layerWeights.some((weight) => weight.name === name)) {
      problems.push(`${name} [${shape}]: the layer has none`);
    }
  }
  problems.push(...differencesInArgs(layer, layout, opName));
  const what = `layer '${layer.name}' must have the checkpoint's weights and arguments, as moeLayerConfig gives them`;
  assertNone(problems, what, opName);

  const targetOf = (name: WeightName) => ({...float32Target, encoding: encodingOfWeight(name)});
  const read = await readWeights(weights, targetOf, {...given, opName});
  const values = new Map<LayerWeightName, Tensor>();
  for (const [name, [{weights: codes, scales, offsets}]] of read) {
    const tensors = [codes, scales, offsets].filter((tensor) => tensor != null);
    tensorNames(name, encodingOfWeight(name)).forEach((each, t) => values.set(each, tensors[t]));
  }
  try {
    for (const {name, shape} of layerWeights) {
      if (!values.has(name)) {
        values.set(name, zeros(shape));
      }
    }
    layer.setWeights(layerWeights.map(({name}) => values.get(name)!));
  } finally {
    dispose([...values.values()]);
  }
}
