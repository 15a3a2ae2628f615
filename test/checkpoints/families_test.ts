/**
 * Every family against Hugging Face transformers: blocks of tiny models in test/golden/checkpoints, whose inputs and
 * outputs transformers recorded. scripts/checkpoint_goldens.mjs made the files.
 */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {checkpointGoldens, type RecordedBlock} from 'checkpoint-goldens';
import {loadMoeCheckpoint, type MoeCheckpoint, moeCheckpoint, moeLayerConfig, type MoeModelConfig} from '../../src/checkpoints/index';
import * as tf from '../../src/tf';
import {expectWithin} from '../support/expect';

const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};

/** Parts of the messages for cases that are refused. */
const refused: {[name: string]: string} = {
  gemma4_text: 'config.model_type is gemma4_text, which these ops cannot do: its router normalizes its input by RMSNorm',
  laguna: 'config.moe_router_logit_softcapping must be 0, but is 2.',
};
const names = Object.keys(checkpointGoldens).filter((name) => !(name in refused));
/** Kinds of blocks: plain; groups, a bias and shared experts; no gates; rows of inputs and biases. */
const onGpus = ['mixtral', 'deepseek_v3', 'nemotron_h', 'gpt_oss'];

/** Numbers of transformers, which has float32 sums of its own, within 1e-5 of the largest. */
function expectClose(actual: tf.Tensor, wanted: number[][], what: string): Promise<void> {
  const largest = Math.max(...wanted.flat().map(Math.abs));
  return expectWithin(actual, wanted, () => 1e-5 * largest, what);
}

/** transformers leaves the order of a token's experts open. */
const sorted = (ids: number[][]) => ids.map((row) => [...row].sort((a, b) => a - b));

async function expectChoice(logits: tf.Tensor2D, {topk, options}: MoeCheckpoint, {ids}: RecordedBlock): Promise<void> {
  if (ids != null) {
    const {scoring, renormalize, sparsemixerJitter, numExpertGroups, topkGroups, scoreCorrectionBias} = options;
    const given = {scoring, renormalize, sparsemixerJitter, numExpertGroups, topkGroups, scoreCorrectionBias};
    const {topkIds} = tf.moeTopk(logits, topk, given);
    expect(sorted(await topkIds.array() as number[][])).withContext('ids').toEqual(sorted(ids));
  }
}

/** The block by fusedMoe; `cap` is applied to the logits. */
async function expectBlock(name: string, config: MoeModelConfig, cap = (logits: tf.Tensor2D) => logits): Promise<void> {
  const {file, recorded} = checkpointGoldens[name];
  const {layerIndex, input, output} = recorded!;
  const block = await moeCheckpoint(file!, config, {layerIndex});
  const x = tf.tensor2d(input);
  const product: tf.Tensor2D = tf.matMul(x, block.routerKernel);
  const logits = cap(block.routerBias == null ? product : tf.add<tf.Tensor2D>(product, block.routerBias));
  await expectChoice(logits, block, recorded!);
  const out = tf.fusedMoe(x, block.w1, block.w2, logits, block.topk, block.options);
  await expectClose(out, output, `${name}: moeCheckpoint`);
}

async function expectLayer(name: string): Promise<void> {
  const {config, file, recorded} = checkpointGoldens[name];
  const {layerIndex, input, output} = recorded!;
  const layer = tf.layers.mixtureOfExperts(moeLayerConfig(config));
  layer.build([null, input[0].length]);
  await loadMoeCheckpoint(layer, file!, config, {layerIndex});
  await expectClose(layer.apply(tf.tensor2d(input)) as tf.Tensor, output, `${name}: the layer`);
}

const expectEqual = async (name: string): Promise<void> => {
  await expectBlock(name, checkpointGoldens[name].config);
  await expectLayer(name);
};

describeWithFlags('families of checkpoints, on the host', cpu, () => {
  for (const name of names.filter((name) => !onGpus.includes(name))) {
    it(`gives what transformers gives for ${name}`, () => expectEqual(name));
  }

  for (const [name, message] of Object.entries(refused)) {
    it(`says what is missing for ${name}`, () => {
      const {config} = checkpointGoldens[name];
      expect(() => moeLayerConfig(config)).toThrowError(new RegExp(`^Error in moeLayerConfig: .*${message}`));
    });
  }

  it('gives what transformers gives for laguna without the cap, on logits that are capped by hand', () => {
    const config = {...checkpointGoldens.laguna.config, moe_router_logit_softcapping: 0};
    return expectBlock('laguna', config, (logits) => tf.mul(2, tf.tanh(tf.div(logits, 2))));
  });

  it('says that a layer multiplies outputs by weights where the family multiplies inputs', async () => {
    const {config, file, recorded} = checkpointGoldens.llama4_text;
    const layer = tf.layers.mixtureOfExperts({...moeLayerConfig(config), applyRouterWeightOnInput: false});
    layer.build([null, recorded!.input[0].length]);
    await expectAsync(loadMoeCheckpoint(layer, file!, config, {layerIndex: recorded!.layerIndex}))
      .toBeRejectedWithError(/applyRouterWeightOnInput: expected true, but the layer has false/);
  });

  it('takes the config of a multimodal model, and its names', async () => {
    const {config, recorded, file} = checkpointGoldens.qwen3_5_moe_text;
    const {layerIndex, output, input} = recorded!;
    const multimodal = {model_type: 'qwen3_5_moe', text_config: config};
    const {options, ...block} = await moeCheckpoint(file!, multimodal, {layerIndex});
    const x = tf.tensor2d(input);
    await expectClose(tf.fusedMoe(x, block.w1, block.w2, tf.matMul(x, block.routerKernel), block.topk, options), output, 'text_config');
    expect(() => moeLayerConfig({...multimodal, text_config: {...config, num_experts: 0}}))
      .toThrowError(/config\.text_config\.num_experts must be an integer from 1 to/);
  });
});

const withoutTensors = new Map();

/** Why config.json says that a layer has no experts. */
const withoutExperts: Array<[string, MoeModelConfig, number, string]> = [
  ['deepseek_v3', {}, 0, 'Layers before 1 have no experts (config.first_k_dense_replace).'],
  ['lfm2_moe', {}, 0, 'Layers before 1 have no experts (config.num_dense_layers).'],
  ['glm4_moe_lite', {}, 0, 'Layer 0 has no experts that these ops run: it is "dense" (config.mlp_layer_types).'],
  ['deepseek_v4', {}, 0, 'Layer 0 has no experts that these ops run: it is "hash_moe" (config.mlp_layer_types).'],
  ['nemotron_h', {}, 2, 'Layer 2 has no experts that these ops run: it is '],
  ['nemotron_h', {layers_block_type: null, hybrid_override_pattern: 'ME*E'}, 2, 'Layer 2 has no experts (config.hybrid_override_pattern).'],
  ['ernie4_5_moe', {}, 0, 'Only layers from config.moe_layer_start_index to config.moe_layer_end_index have experts, but not 0.'],
  ['ernie4_5_moe', {moe_layer_interval: 2}, 2, 'Only layers 1, 3, … have experts (config.moe_layer_interval).'],
  ['jamba', {}, 2, 'Only layers 1, 3, … have experts (config.expert_layer_offset and config.expert_layer_period).'],
  ['llama4_text', {}, 2, 'Layer 2 has no experts (config.moe_layers).'],
  ['llama4_text', {moe_layers: null}, 2, 'Only layers 1, 3, … have experts (config.interleave_moe_layer_step).'],
  ['mimo_v2_flash', {mlp_layer_types: null, moe_layer_freq: [0, 1]}, 0, 'Layer 0 has no experts that these ops run: it is 0 (config.moe_layer_freq).'],
  ['dbrx', {}, 9, 'config.n_layers is 2, and layers are counted from 0.'],
  ['longcat_flash', {}, 3, 'config.num_layers is 2, and layers are counted from 0.'],
];

/** Values that these ops cannot do. */
const unsupported: Array<[string, MoeModelConfig, string]> = [
  ['afmoe', {score_func: 'softmax'}, "config.score_func must be 'sigmoid', but is the string 'softmax'."],
  ['cohere2_moe_sigmoid', {shared_expert_combination_strategy: 'max'}, "config.shared_expert_combination_strategy must be 'average' or 'sum', but"],
  ['dbrx', {ffn_config: null}, 'config.ffn_config must be an object, but is undefined.'],
  ['dbrx', {ffn_config: {moe_num_experts: 6, ffn_hidden_size: 16, moe_top_k: 9}}, 'config.ffn_config.moe_top_k must be an integer from 1 to the number'],
  ['hunyuan_v1_moe', {moe_topk: [1, 2]}, 'config.moe_topk must be an integer from 1 to the number of experts (6), but is'],
  ['kimi_linear', {num_expert_group: 3}, 'config.num_expert_group must divide the number of experts (E = 8), but is 3.'],
  ['longcat_flash', {zero_expert_type: 'copy'}, "config.zero_expert_type must be 'identity', but is the string 'copy'."],
  ['nemotron_h', {moe_latent_size: 8}, 'config.moe_latent_size must be null, because these ops have no experts in a latent space, but is 8.'],
];

describe('families of checkpoints that do not fit', () => {
  for (const [name, change, layerIndex, reason] of withoutExperts) {
    it(`says of layer ${layerIndex} of ${name}: ${reason}`, async () => {
      const config = {...checkpointGoldens[name].config, ...change};
      await expectAsync(moeCheckpoint(withoutTensors, config, {layerIndex}).catch((error: Error) => error.message.split('\n').pop()))
        .toBeResolvedTo(jasmine.stringContaining(reason));
    });
  }

  for (const [name, change, message] of unsupported) {
    it(`says of ${name}: ${message}`, () => {
      const config = {...checkpointGoldens[name].config, ...change};
      expect(() => moeLayerConfig(config)).toThrowMatching((error: Error) => error.message.includes(message));
    });
  }

  it('takes lists with one value for all layers', () => {
    const {config} = checkpointGoldens.hunyuan_v1_moe;
    expect(moeLayerConfig({...config, moe_topk: [2, 2], num_experts: [6, 6]})).toEqual(moeLayerConfig(config));
  });
});

describeWithFlags('families of checkpoints', ALL_ENVS, () => {
  for (const name of onGpus) {
    it(`gives what transformers gives for ${name}`, () => expectEqual(name));
  }
});
