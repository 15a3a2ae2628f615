/** The model, and which experts it sends characters to. */
import * as tf from '../../src/tf';

export const NUM_EXPERTS = 8;
export const TOPK = 2;
const HEAD_SIZE = 32;

/** The sizes of a model. It sees `windowLength` characters at once. */
export type ModelSize = {numLayers: number; hiddenSize: number; expertSize: number; windowLength: number};

/** config.json of the model, which is a small Mixtral. */
export const configOf = (
  alphabetSize: number,
  {numLayers, hiddenSize, expertSize, windowLength}: ModelSize,
): tf.MoeModelConfig => ({
  architectures: ['MixtralForCausalLM'],
  model_type: 'mixtral',
  vocab_size: alphabetSize,
  hidden_size: hiddenSize,
  intermediate_size: expertSize,
  num_hidden_layers: numLayers,
  num_attention_heads: hiddenSize / HEAD_SIZE,
  num_key_value_heads: hiddenSize / HEAD_SIZE / 2,
  head_dim: HEAD_SIZE,
  num_local_experts: NUM_EXPERTS,
  num_experts_per_tok: TOPK,
  router_aux_loss_coef: 0.01,
  hidden_act: 'silu',
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  // Samples are longer than the windows of the training: what lies farther back stays out of sight.
  sliding_window: windowLength,
  max_position_embeddings: 32768,
  initializer_range: 0.05,
  tie_word_embeddings: false,
});

type Experts = ReturnType<typeof tf.layers.mixtureOfExperts>;

/** The layers of experts, from the first to the last. */
export function expertLayers(model: tf.LayersModel): Experts[] {
  return model.layers.filter((layer) => layer.getClassName() === 'MixtureOfExperts') as Experts[];
}

/** How many characters of the last batch each expert of each layer took. */
export async function expertLoads(model: tf.LayersModel): Promise<number[][]> {
  const loads = expertLayers(model).map((experts) => experts.expertLoad());
  const counts = await Promise.all(loads.map((load) => load.data()));
  tf.dispose(loads);
  return counts.map((ofLayer) => Array.from(ofLayer));
}
