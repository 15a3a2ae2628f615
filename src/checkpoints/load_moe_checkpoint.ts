/** Puts the weights of a checkpoint's block into a layer. */
import {tensor, type Tensor, tidy, util} from '@tensorflow/tfjs-core';
import {assert, checkOptions, describeValue} from '../arguments/checks';
import {checkActivation} from '../arguments/experts';
import {checkRouting} from '../arguments/routing';
import type {WeightName} from '../contract/block_weights';
import {assertNone, type LoadMoeCheckpointOptions, type MoeCheckpointFiles, readBlock, toTensor} from './block';
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
 * loadMoeCheckpoint(layer, shards, config, {layerIndex: 5});
 * const output = model.predict(tf.ones([1, 1]));
 * output instanceof tf.Tensor && await output.array(); // => [[24]]
 * ```
 *
 * @param layer  A layer whose weights have the names and shapes of the weights of MixtureOfExperts, in any order.
 * @param files  As in moeCheckpoint.
 * @param config  As in moeCheckpoint.
 * @param options.layerIndex  The number of the layer in the checkpoint, from 0.
 * @param options.prefix  The beginning of the tensors' names, up to `layers.`. Default `'model.'`.
 *
 * The layer must also choose and compute as config.json says. To use another topk, for example, pass a config that says
 * so. If the layer has a score_correction_bias and the checkpoint has none, the bias becomes 0, which corrects nothing.
 *
 * @throws as moeCheckpoint. Also if the layer is not built; if the layer has a weight that the checkpoint lacks, or
 *     lacks a weight that the checkpoint has; or if shapes or arguments differ. One error lists all such problems, and
 *     the layer stays as it was.
 */
export function loadMoeCheckpoint(
  layer: MoeWeightsLayer,
  files: MoeCheckpointFiles,
  config: MoeModelConfig,
  options: LoadMoeCheckpointOptions,
): void {
  const opName = 'loadMoeCheckpoint';
  const given = checkOptions(options, ['layerIndex', 'prefix'], opName);
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
  const {layout, stored} = readBlock(files, config, given, opName);
  const layerWeights = layer.weights.map(({originalName, shape}) => ({
    // tf.layers puts the layer's own name before a weight's name.
    name: originalName.slice(originalName.lastIndexOf('/') + 1),
    shape: shape as number[],
  }));
  const problems = layerWeights.flatMap(({name, shape}) => {
    const weight = stored.get(name as WeightName);
    if (weight == null) {
      return name === 'score_correction_bias' ? [] : [`${name} [${shape}]: the checkpoint has none`];
    }
    const {shape: expected} = weight;
    return util.arraysEqual(shape, expected) ? [] : [`${name}: expected [${expected}], but the layer has [${shape}]`];
  });
  for (const [name, {shape}] of stored) {
    if (!layerWeights.some((weight) => weight.name === name)) {
      problems.push(`${name} [${shape}]: the layer has none`);
    }
  }
  problems.push(...differencesInArgs(layer, layout, opName));
  const what = `layer '${layer.name}' must have the checkpoint's weights and arguments, as moeLayerConfig gives them`;
  assertNone(problems, what, opName);

  tidy(() => {
    const values = layerWeights.map(({name, shape}) => {
      const weight = stored.get(name as WeightName);
      return weight == null ? tensor(new Float32Array(shape[0]), shape) : toTensor(weight);
    });
    layer.setWeights(values);
  });
}
