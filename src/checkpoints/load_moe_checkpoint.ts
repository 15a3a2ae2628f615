/** Puts the weights of a checkpoint's block into a layer. */
import {dispose, type Tensor, zeros} from '@tensorflow/tfjs-core';
import {checkOptions} from '../arguments/checks';
import type {LayerWeightName, WeightName} from '../contract/block_weights';
import {
  assertNone,
  findBlock,
  float32Target,
  type LoadMoeCheckpointOptions,
  loadMoeCheckpointOptionNames,
  type MoeCheckpointSource,
  readWeights,
  type StoredWeight,
} from './block';
import type {MoeModelConfig} from './config_reader';
import type {Reading} from './files/checkpoint_file';
import {
  assertBuilt,
  encodingInLayer,
  expectedInLayer,
  type MoeWeightsLayer,
  problemsOfLayer,
  tensorNames,
  weightsOf,
} from './moe_weights_layer';

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
  assertBuilt(layer, opName);
  const {layout, weights} = await findBlock(files, config, given, opName);
  const expected = expectedInLayer(layer, weights);
  const what = `layer '${layer.name}' must have the checkpoint's weights and arguments, as moeLayerConfig gives them`;
  assertNone(problemsOfLayer(layer, expected, layout, opName), what, opName);

  await fillLayer(layer, weights, {...given, opName});
}

/** Reads weights of a block into a layer that has them. The layer stays as it was if the promise is rejected. */
export async function fillLayer(
  layer: MoeWeightsLayer,
  weights: ReadonlyMap<WeightName, StoredWeight>,
  reading: Reading & Pick<LoadMoeCheckpointOptions, 'onProgress'>,
): Promise<void> {
  const encodingOfWeight = (name: WeightName) => encodingInLayer(layer, name, weights.get(name)!.numIn);
  const targetOf = (name: WeightName) => ({...float32Target, encoding: encodingOfWeight(name)});
  const read = await readWeights(weights, targetOf, reading);
  const values = new Map<LayerWeightName, Tensor>();
  for (const [name, [{weights: codes, scales, offsets}]] of read) {
    const tensors = [codes, scales, offsets].filter((tensor) => tensor != null);
    tensorNames(name, encodingOfWeight(name)).forEach((each, t) => values.set(each, tensors[t]));
  }
  try {
    const layerWeights = weightsOf(layer);
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
