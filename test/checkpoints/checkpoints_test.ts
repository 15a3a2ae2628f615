/** Every layout of checkpoints that moeCheckpoint knows, in files that these specs write, against the naive loops. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {
  loadMoeCheckpoint,
  type MoeCheckpoint,
  moeCheckpoint,
  moeLayerConfig,
  type MoeModelConfig,
} from '../../src/checkpoints/index';
import {readSafetensors, type CheckpointTensor} from '../../src/checkpoints/files/safetensors';
import {families} from '../../src/checkpoints/families/index';
import * as tf from '../../src/tf';
import {block, type CheckpointCase, checkpointCases, sharedW1, sizes, transposed, w1, w1Bias, writtenTensors} from '../support/checkpoint_blocks';
import {expectFloats, expectWithin} from '../support/expect';
import {naiveFusedExperts} from '../naive/fused_experts';
import {naiveIds, naiveWeights} from '../naive/topk';
import {fileOf, safetensorsFile} from '../support/safetensors';

const {H, E, I} = sizes;
const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};

const caseOf = (name: string): CheckpointCase => checkpointCases.find((checkpoint) => checkpoint.name === name)!;
const bytesOf = (checkpoint: CheckpointCase) => safetensorsFile(writtenTensors(checkpoint));
const load = (checkpoint: CheckpointCase) => moeCheckpoint(bytesOf(checkpoint), checkpoint.config, {layerIndex: 3, format: 'float32'});

/** The output of the model's block for block.x. */
function naiveBlock({routing, experts = {}, weights}: CheckpointCase) {
  const logits = block.x.map((token) =>
    block.router.map((row, e) => row.reduce((sum, value, h) => sum + value * token[h], weights.router_bias ? block.routerBias[e] : 0)));
  const ids = logits.map((row) => naiveIds(row, routing));
  const topkWeights = logits.map((row, t) => naiveWeights(row, ids[t], routing));
  const biases = weights.w1_bias ? {w1Bias, w2Bias: block.downBias} : {};
  const routed = naiveFusedExperts({x: block.x, ids, topkWeights, w1, w2: block.down, ...biases}, experts);
  if (weights.shared_w1 == null) {
    return routed;
  }
  const gates = block.x.map((token) => {
    const product = token.reduce((sum, value, h) => sum + value * block.sharedGate[0][h], 0);
    return [weights.shared_gate == null ? 1 : 1 / (1 + Math.exp(-product))];
  });
  const shared = naiveFusedExperts({x: block.x, ids: gates.map(() => [0]), topkWeights: gates, w1: [sharedW1], w2: [block.sharedDown]}, experts);
  const sum = (a: number[], b: number[]) => a.map((value, i) => value + b[i]);
  return {values: sum(routed.values, shared.values), magnitudes: sum(routed.magnitudes, shared.magnitudes)};
}

async function expectRight(result: MoeCheckpoint, checkpoint: CheckpointCase): Promise<void> {
  const x = tf.tensor2d(block.x);
  const product = tf.matMul(x, result.routerKernel);
  const logits = result.routerBias == null ? product : tf.add(product, result.routerBias);
  const out = tf.fusedMoe(x, result.w1, result.w2, logits, result.topk, result.options);
  const {values, magnitudes} = naiveBlock(checkpoint);
  await expectWithin(out, values, (i) => 2e-5 * magnitudes[i] + 1e-5, checkpoint.name);
}

/** The optional weights, by the names of the layer. */
const optionalWeights = (result: MoeCheckpoint<tf.Tensor3D>) => ({
  router_bias: result.routerBias,
  w1_bias: result.options.w1Bias,
  w2_bias: result.options.w2Bias,
  shared_w1: result.options.sharedExperts?.w1,
  shared_w2: result.options.sharedExperts?.w2,
  shared_gate: result.options.sharedExperts?.gate,
  score_correction_bias: result.options.scoreCorrectionBias,
});

describeWithFlags('moeCheckpoint', ALL_ENVS, () => {
  for (const checkpoint of checkpointCases) {
    it(`loads ${checkpoint.name}`, async () => {
      const result = await load(checkpoint);
      await expectFloats(result.routerKernel, transposed(block.router), 'routerKernel');
      expect(result.w1.shape).toEqual([E, 2 * I, H]);
      await expectFloats(result.w1, w1, 'w1');
      expect(result.w2.shape).toEqual([E, H, I]);
      await expectFloats(result.w2, block.down, 'w2');
      for (const [name, weight] of Object.entries(optionalWeights(result))) {
        const wanted = checkpoint.weights[name];
        expect(weight != null).withContext(name).toBe(wanted != null);
        if (weight != null) {
          const values = tf.tensor(wanted as number[]);
          expect(weight.shape).withContext(name).toEqual(values.shape);
          await expectFloats(weight, await values.data() as Float32Array, name);
        }
      }
      await expectRight(result, checkpoint);
    });
  }

  it('takes the shards of a checkpoint, at any place in their buffers, or their tensors', async () => {
    const checkpoint = caseOf('qwen2_moe');
    const tensors = writtenTensors(checkpoint);
    const shards = [0, 1, 2].map((shard) => {
      const file = safetensorsFile(tensors.filter((_, i) => i % 3 === shard));
      const odd = new Uint8Array(file.length + 7);
      odd.set(file, 3);
      return odd.subarray(3, 3 + file.length);
    });
    await expectRight(await moeCheckpoint(shards, checkpoint.config, {layerIndex: 3, format: 'float32'}), checkpoint);
    const buffers = shards.map((shard) => shard.slice().buffer);
    await expectRight(await moeCheckpoint(buffers, checkpoint.config, {layerIndex: 3, format: 'float32'}), checkpoint);
    await expectRight(await moeCheckpoint(await readSafetensors(buffers), checkpoint.config, {layerIndex: 3, format: 'float32'}), checkpoint);
  });

  it('takes another prefix', async () => {
    const checkpoint = caseOf('mixtral');
    const file = safetensorsFile(writtenTensors(checkpoint, 'language_model.'));
    const result = await moeCheckpoint(file, checkpoint.config, {layerIndex: 3, format: 'float32', prefix: 'language_model.'});
    await expectFloats(result.w1, w1, 'w1');
  });

  it('gives experts in parts', async () => {
    for (const name of ['mixtral', 'granitemoe', 'gpt_oss']) {
      const checkpoint = caseOf(name);
      const result = await moeCheckpoint(bytesOf(checkpoint), checkpoint.config, {layerIndex: 3, format: 'float32', expertsPerTensor: 3});
      expect(result.w1.map(({shape}) => shape)).toEqual([[3, 2 * I, H], [1, 2 * I, H]]);
      expect(result.w2.map(({shape}) => shape)).toEqual([[3, H, I], [1, H, I]]);
      await expectFloats(tf.concat(result.w1), w1, `w1 of ${name}`);
      await expectFloats(tf.concat(result.w2), block.down, `w2 of ${name}`);
      await expectRight(result, checkpoint);
    }
  });

  it('makes only the tensors of its result, which belong to the caller', async () => {
    const checkpoint = caseOf('gpt_oss');
    const before = tf.memory().numTensors;
    const result = await load(checkpoint);
    // routerKernel, routerBias, w1, w1Bias, w2, w2Bias
    expect(tf.memory().numTensors).toBe(before + 6);
    tf.dispose(result);
    expect(tf.memory().numTensors).toBe(before);
  });

});

describeWithFlags('moeCheckpoint, on the host', cpu, () => {
  it('takes very many experts', async () => {
    const [one, ten] = [1, 10].map((value): CheckpointTensor =>
      ({dtype: 'F32', shape: [1, 1], bytes: new Uint8Array(Float32Array.of(value).buffer)}));
    // More experts than a function call may have arguments.
    const numExperts = 70_000;
    const gate = {dtype: 'F32', shape: [numExperts, 1], bytes: new Uint8Array(4 * numExperts)};
    const tensors = new Map<string, CheckpointTensor>([['model.layers.0.block_sparse_moe.gate.weight', gate]]);
    for (let e = 0; e < numExperts; e++) {
      const path = `model.layers.0.block_sparse_moe.experts.${e}`;
      tensors.set(`${path}.w1.weight`, one).set(`${path}.w2.weight`, e === numExperts - 1 ? ten : one).set(`${path}.w3.weight`, ten);
    }
    const config = {...caseOf('mixtral').config, num_local_experts: numExperts, hidden_size: 1, intermediate_size: 1};
    const {w1: first, w2: second} = await moeCheckpoint(tensors, config, {layerIndex: 0, format: 'float32', expertsPerTensor: 50_000});
    expect(first.map(({shape}) => shape)).toEqual([[50_000, 2, 1], [20_000, 2, 1]]);
    expect([...(await first[1].data()).subarray(-4)]).toEqual([1, 10, 1, 10]);
    expect([...(await second[1].data()).subarray(-3)]).toEqual([1, 1, 10]);
  });

  const broken: Array<[name: string, tensor: (whole: CheckpointTensor) => unknown, problem: string]> = [
    ['too few bytes', (whole) => ({...whole, bytes: (whole.bytes as Uint8Array).subarray(2)}), 'expected 32 bytes as BF16 [4,4], but is 30 bytes'],
    ['no bytes', (whole) => ({...whole, bytes: new Uint8Array()}), 'expected 32 bytes as BF16 [4,4], but is 0 bytes'],
    ['too many bytes', (whole) => ({...whole, bytes: new Uint8Array(33)}), 'expected 32 bytes as BF16 [4,4], but is 33 bytes'],
    ['the bytes of another dtype', (whole) => ({...whole, dtype: 'F32'}), 'expected 64 bytes as F32 [4,4], but is 32 bytes'],
    ['a dtype of every object', (whole) => ({...whole, dtype: 'constructor'}), 'expected F32 or F16 or BF16, but is constructor'],
    ['values for bytes', (whole) => ({...whole, bytes: new Float32Array(8)}),
      "expected a dtype, a shape and bytes in a Uint8Array or a Blob, but is the object {dtype: 'BF16', shape: [4, 4], bytes: a Float32Array}"],
    ['no shape', (whole) => ({...whole, shape: undefined}),
      "expected a dtype, a shape and bytes in a Uint8Array or a Blob, but is the object {dtype: 'BF16', shape: undefined, bytes: a Uint8Array}"],
    ['no tensor', () => 7, 'expected a dtype, a shape and bytes in a Uint8Array or a Blob, but is 7'],
    ['null', () => null, 'expected [4,4], but there is none'],
  ];
  for (const [name, breakTensor, problem] of broken) {
    it(`says that a Map has ${name} for a tensor, and loads nothing`, async () => {
      const {config, ...checkpoint} = caseOf('mixtral');
      const tensors = await readSafetensors(safetensorsFile(writtenTensors(checkpoint)));
      const router = 'model.layers.3.block_sparse_moe.gate.weight';
      tensors.set(router, breakTensor(tensors.get(router)!) as CheckpointTensor);
      const layer = builtLayer(experts);
      const before = tf.memory();
      const message = 'the checkpoint must have the tensors of a mixtral block (it has model.layers.3.block_sparse_moe.gate.weight, …), ' +
        `but 1 do not fit:\n${router}: ${problem}`;
      await expectAsync(moeCheckpoint(tensors, config, {layerIndex: 3})).toBeRejectedWithError(`Error in moeCheckpoint: ${message}`);
      await expectAsync(loadMoeCheckpoint(layer, tensors, config, {layerIndex: 3})).toBeRejectedWithError(`Error in loadMoeCheckpoint: ${message}`);
      expect(tf.memory()).toEqual(before);
      await expectFloats(layer.getWeights()[1], new Array<number>(E * 2 * I * H).fill(7), 'w1');
    });
  }

  it('names every tensor that is missing, of another shape or of another dtype, and makes none', async () => {
    const checkpoint = caseOf('granitemoeshared, newer names');
    const tensors = writtenTensors(checkpoint)
      .filter(({name}) => !name.endsWith('experts.down_proj'))
      .map((written) => (written.name.endsWith('gate_up_proj') ? {...written, shape: [E, H, 2 * I]} : written));
    const stored = await readSafetensors(safetensorsFile(tensors));
    const outputLinear = 'model.layers.3.shared_mlp.output_linear.weight';
    stored.set(outputLinear, {...stored.get(outputLinear)!, dtype: 'I16'});
    const before = tf.memory().numTensors;
    await expectAsync(moeCheckpoint(stored, checkpoint.config, {layerIndex: 3, format: 'float32'})).toBeRejectedWithError(
      'Error in moeCheckpoint: the checkpoint must have the tensors of a granitemoeshared block (it has ' +
      'model.layers.3.block_sparse_moe.router.weight, …), but 3 do not fit:\n' +
      'model.layers.3.block_sparse_moe.experts.gate_up_proj: expected [4,6,4], but is [4,4,6]\n' +
      'model.layers.3.block_sparse_moe.experts.down_proj: expected [4,4,3], but there is none\n' +
      'model.layers.3.shared_mlp.output_linear.weight: expected F32 or F16 or BF16, but is I16');
    expect(tf.memory().numTensors).toBe(before);
  });
});

/** A layer with weights of these names and shapes, all 7 at first. */
class StandInLayer extends tf.layers.Layer {
  static className = 'MoeStandIn';

  constructor(private readonly weightShapes: {[name: string]: number[]}) {
    super({});
  }

  override build(inputShape: tf.Shape): void {
    for (const [name, shape] of Object.entries(this.weightShapes)) {
      this.addWeight(name, shape, 'float32', tf.initializers.constant({value: 7}), undefined, name !== 'score_correction_bias');
    }
    super.build(inputShape);
  }

  override call(inputs: tf.Tensor | tf.Tensor[]): tf.Tensor {
    return tf.clone(Array.isArray(inputs) ? inputs[0] : inputs);
  }
}

function builtLayer(weightShapes: {[name: string]: number[]}): StandInLayer {
  const layer = new StandInLayer(weightShapes);
  tf.tidy(() => void layer.apply(tf.zeros([1, H])));
  return layer;
}

const experts = {router_kernel: [H, E], w1: [E, 2 * I, H], w2: [E, H, I]};
const shapeOf = (values: unknown): number[] => (Array.isArray(values) ? [values.length, ...shapeOf(values[0])] : []);

describeWithFlags('loadMoeCheckpoint', ALL_ENVS, () => {
  for (const name of ['mixtral', 'qwen2_moe', 'deepseek_v3', 'gpt_oss']) {
    it(`puts ${name} into the weights of a layer, by their names`, async () => {
      const checkpoint = caseOf(name);
      const wanted: {[weight: string]: unknown} =
        {...checkpoint.weights, w2: block.down, w1, router_kernel: transposed(block.router)};
      const layer = builtLayer(Object.fromEntries(Object.entries(wanted).map(([weight, values]) => [weight, shapeOf(values)])));
      const before = tf.memory().numTensors;
      await loadMoeCheckpoint(layer, bytesOf(checkpoint), checkpoint.config, {layerIndex: 3});
      expect(tf.memory().numTensors).toBe(before);
      expect(layer.weights.length).toBe(Object.keys(wanted).length);
      for (const variable of layer.weights) {
        const weight = variable.originalName.split('/').pop()!;
        await expectFloats(variable.read(), wanted[weight] as number[], weight);
      }
    });
  }

  for (const name of ['mixtral', 'qwen2_moe', 'deepseek_v3', 'granitemoe', 'gpt_oss']) {
    it(`fills a mixtureOfExperts layer of moeLayerConfig with ${name}, which then computes what fusedMoe does`, async () => {
      const checkpoint = caseOf(name);
      const {config} = checkpoint;
      const layer = tf.layers.mixtureOfExperts({...moeLayerConfig(config), inputShape: [H]});
      const model = tf.sequential({layers: [layer]});
      await loadMoeCheckpoint(layer, bytesOf(checkpoint), config, {layerIndex: 3});
      const given = model.predict(tf.tensor2d(block.x)) as tf.Tensor;
      const {routerKernel, routerBias, w1: first, w2: second, topk, options} =
        await moeCheckpoint(bytesOf(checkpoint), config, {layerIndex: 3});
      const expected = tf.tidy(() => {
        const x = tf.tensor2d(block.x);
        const logits = tf.add(tf.matMul(x, routerKernel), routerBias ?? tf.scalar(0)) as tf.Tensor2D;
        return tf.fusedMoe(x, first, second, logits, topk, options);
      });
      const wanted = await expected.array() as number[][];
      await expectWithin(given, wanted, (_, value) => 1e-5 * (1 + Math.abs(value)), 'the layer');
      model.dispose();
    });
  }

  it('fills a layer that has drawn no weights, and takes memory for its weights only', async () => {
    for (const {config} of [caseOf('qwen2_moe'), caseOf('gpt_oss')]) {
      const args = moeLayerConfig(config);
      let model: tf.LayersModel | undefined;
      const built = await tf.profile(() => {
        model = tf.sequential({layers: [tf.layers.mixtureOfExperts({...args, inputShape: [H]})]});
        return [];
      });
      const bytes = model!.weights.reduce((sum, weight) => sum + 4 * tf.util.sizeFromShape(weight.shape as number[]), 0);
      expect(built.kernelNames).toEqual([]);
      expect(built.newBytes).toBe(bytes);
      model!.dispose();
    }
  });

  it('sets a score_correction_bias that the checkpoint lacks to 0', async () => {
    const layer = builtLayer({...experts, score_correction_bias: [E]});
    const checkpoint = caseOf('qwen3_moe');
    await loadMoeCheckpoint(layer, bytesOf(checkpoint), checkpoint.config, {layerIndex: 3});
    await expectFloats(layer.getWeights()[3], [0, 0, 0, 0], 'score_correction_bias');
  });

  it('says where the layer computes differently from config.json', async () => {
    const {config} = caseOf('mixtral');
    const inWords = tf.layers.mixtureOfExperts(
      {numExperts: E, intermediateSize: I, topk: 2, activation: 'swish', numExpertGroups: 1, topkGroups: 1, inputShape: [H]});
    const otherwise = tf.layers.mixtureOfExperts(
      {numExperts: E, intermediateSize: I, topk: 3, renormalize: false, activation: 'gelu', inputShape: [H]});
    tf.sequential({layers: [inWords]});
    tf.sequential({layers: [otherwise]});
    const file = bytesOf(caseOf('mixtral'));
    await loadMoeCheckpoint(inWords, file, config, {layerIndex: 3});
    await expectAsync(loadMoeCheckpoint(otherwise, file, config, {layerIndex: 3})).toBeRejectedWithError(
      `Error in loadMoeCheckpoint: layer '${otherwise.name}' must have the checkpoint's weights and arguments, as moeLayerConfig ` +
      'gives them, but 3 do not fit:\ntopk: expected 2, but the layer has 3\nrenormalize: expected true, but the layer has false\n' +
      'activation: expected silu, but the layer has gelu');
  });

  it('says that the layer has another swigluOai than config.json', async () => {
    const {config} = caseOf('gpt_oss');
    const layer = tf.layers.mixtureOfExperts({...moeLayerConfig(config), swigluAlpha: 1.702, swigluLimit: null, inputShape: [H]});
    const withSilu = tf.layers.mixtureOfExperts({...moeLayerConfig(config), activation: 'silu', inputShape: [H]});
    tf.sequential({layers: [layer]});
    tf.sequential({layers: [withSilu]});
    const problemsOf = async (given: typeof layer) => {
      try {
        await loadMoeCheckpoint(given, bytesOf(caseOf('gpt_oss')), config, {layerIndex: 3});
        return [];
      } catch (error) {
        return (error as Error).message.split('\n').slice(1);
      }
    };
    expect(await problemsOf(layer)).toEqual(
      ['swigluAlpha: expected 1.25, but the layer has 1.702', 'swigluLimit: expected 1.5, but the layer has 7']);
    expect(await problemsOf(withSilu)).toEqual(['activation: expected swigluOai, but the layer has silu']);
  });

  it('names everything that does not fit, and leaves the layer as it was', async () => {
    const checkpoint = caseOf('qwen2_moe');
    const layer = builtLayer({...experts, w1: [E, I, H], w2_bias: [E, H]});
    const before = tf.memory().numTensors;
    await expectAsync(loadMoeCheckpoint(layer, bytesOf(checkpoint), checkpoint.config, {layerIndex: 3})).toBeRejectedWithError(
      `Error in loadMoeCheckpoint: layer '${layer.name}' must have the checkpoint's weights and arguments, as moeLayerConfig gives them, ` +
      'but 5 do not fit:\nw1: expected [4,6,4], but the layer has [4,3,4]\nw2_bias [4,4]: the checkpoint has none\n' +
      'shared_w1 [12,4]: the layer has none\nshared_w2 [4,6]: the layer has none\nshared_gate [4,1]: the layer has none');
    expect(tf.memory().numTensors).toBe(before);
    await expectFloats(layer.getWeights()[0], new Array<number>(H * E).fill(7), 'router_kernel');
    for (const [given, what] of [[null, 'null'], [{}, 'the object {}'], [{weights: []}, 'the object {weights: []}'], ['moe', "the string 'moe'"], [7, '7']] as const) {
      await expectAsync(loadMoeCheckpoint(given as unknown as StandInLayer, bytesOf(checkpoint), checkpoint.config, {layerIndex: 3})).toBeRejectedWithError(
        `Error in loadMoeCheckpoint: layer must be a MixtureOfExperts layer, but is ${what}.`);
    }
    const unbuilt = new StandInLayer(experts);
    await expectAsync(loadMoeCheckpoint(unbuilt, bytesOf(checkpoint), checkpoint.config, {layerIndex: 3})).toBeRejectedWithError(
      `Error in loadMoeCheckpoint: layer '${unbuilt.name}' must be built, but has no weights. Call it, or its model, once first.`);
  });
});

describe('moeLayerConfig', () => {
  it('gives the arguments of the layer', () => {
    expect(moeLayerConfig(caseOf('deepseek_v3').config)).toEqual({
      numExperts: 4, intermediateSize: 3, topk: 2, scoring: 'sigmoid', renormalize: true, numExpertGroups: 2, topkGroups: 1,
      routedScalingFactor: 2.5, activation: 'silu', gated: true, useBias: false, useRouterBias: false,
      useScoreCorrectionBias: true, numSharedExperts: 1, sharedIntermediateSize: 6, sharedExpertGate: false,
      kernelInitializer: 'zeros', routerInitializer: 'zeros',
    });
    expect(moeLayerConfig({...caseOf('gpt_oss').config, swiglu_alpha: null})).toEqual({
      numExperts: 4, intermediateSize: 3, topk: 2, scoring: 'softmaxAfterTopk', renormalize: false, activation: 'swigluOai',
      swigluAlpha: 1.702, swigluLimit: 1.5, gated: true, useBias: true, useRouterBias: true, useScoreCorrectionBias: false, numSharedExperts: 0, sharedIntermediateSize: 0, sharedExpertGate: false,
      kernelInitializer: 'zeros', routerInitializer: 'zeros',
    });
    expect(moeLayerConfig(caseOf('qwen2_moe').config).sharedExpertGate).toBeTrue();
  });
});

const unknownModelType = (given: string) =>
  `config.model_type must be one of ${Object.keys(families).join(', ')}, but is ${given}.`;

describe('moeCheckpoint of files or configs that do not fit', () => {
  const mixtral = caseOf('mixtral');
  const file = bytesOf(mixtral);
  const configErrors: Array<[MoeModelConfig | null, string]> = [
    [null, 'config must be the parsed config.json of the checkpoint, but is null.'],
    [{...mixtral.config, model_type: 'llama'}, unknownModelType("the string 'llama'")],
    [{}, unknownModelType('undefined')],
    [{...mixtral.config, num_local_experts: undefined}, 'config.num_local_experts must be an integer from 1 to 1048576, but is undefined.'],
    [{...mixtral.config, hidden_size: 0}, 'config.hidden_size must be an integer from 1 to 2147483647, but is 0.'],
    [{...mixtral.config, num_experts_per_tok: 1.5},
      'config.num_experts_per_tok must be an integer from 1 to the number of experts (4), but is 1.5.'],
    [{...mixtral.config, num_experts_per_tok: 5},
      'config.num_experts_per_tok must be an integer from 1 to the number of experts (4), but is 5.'],
    [{...mixtral.config, hidden_act: 'quick_gelu'},
      "config.hidden_act must be one of silu, swish, relu, relu2, gelu, gelu_new, gelu_pytorch_tanh, but is the string 'quick_gelu'."],
    [{...caseOf('olmoe').config, norm_topk_prob: 'no'}, "config.norm_topk_prob must be a boolean, but is the string 'no'."],
    [{...caseOf('deepseek_v2').config, norm_topk_prob: true}, 'config.norm_topk_prob must be false, but is true.'],
    [{...caseOf('deepseek_v2').config, topk_method: 'random'}, "config.topk_method must be 'greedy' or 'group_limited_greedy', but is the string 'random'."],
    [{...caseOf('deepseek_v3').config, routed_scaling_factor: '2.5'}, "config.routed_scaling_factor must be a number that fits float32, but is the string '2.5'."],
    [{...caseOf('deepseek_v2').config, scoring_func: 'sigmoid'}, "config.scoring_func must be 'softmax', but is the string 'sigmoid'."],
    [{...caseOf('deepseek_v3').config, scoring_func: 'softmax'}, "config.scoring_func must be 'sigmoid', but is the string 'softmax'."],
  ];
  configErrors.forEach(([config, message]) => {
    it(`says that ${message}`, async () => {
      await expectAsync(moeCheckpoint(file, config as MoeModelConfig, {layerIndex: 3})).toBeRejectedWithError(`Error in moeCheckpoint: ${message}`);
    });
  });

  const [v3, oss] = ['deepseek_v3', 'gpt_oss'].map((name) => caseOf(name).config);
  const long = 'x'.repeat(3_000_000);
  const impossible: Array<[unknown, string]> = [
    [{...v3, n_group: 3}, 'config.n_group must divide the number of experts (E = 4), but is 3.'],
    [{...v3, topk_group: 3}, 'config.topk_group must be at most config.n_group (2), but is 3.'],
    [{...v3, n_group: 4}, 'config.num_experts_per_tok must be at most the number of experts in 1 groups (1), but is 2.'],
    [{...v3, n_group: 0}, 'config.n_group must be an integer from 1 to 2147483647, but is 0.'],
    [{...v3, routed_scaling_factor: 1e300}, 'config.routed_scaling_factor must be a number that fits float32, but is 1e+300.'],
    [{...v3, routed_scaling_factor: NaN}, 'config.routed_scaling_factor must be a number that fits float32, but is NaN.'],
    [{...v3, n_shared_experts: 1e9}, 'config.n_shared_experts must be an integer from 0 to 715827882, but is 1000000000.'],
    [{...v3, n_shared_experts: -1}, 'config.n_shared_experts must be an integer from 0 to 715827882, but is -1.'],
    [{...caseOf('deepseek_v2, groups').config, n_group: 3}, 'config.n_group must divide the number of experts (E = 4), but is 3.'],
    [{...oss, swiglu_limit: 0}, 'config.swiglu_limit must be a positive number, but is 0.'],
    [{...oss, swiglu_limit: -7}, 'config.swiglu_limit must be a positive number, but is -7.'],
    [{...oss, swiglu_alpha: 1e300}, 'config.swiglu_alpha must be a number that fits float32, but is 1e+300.'],
    [{...mixtral.config, num_local_experts: 1e8}, 'config.num_local_experts must be an integer from 1 to 1048576, but is 100000000.'],
    [{...mixtral.config, num_local_experts: -4}, 'config.num_local_experts must be an integer from 1 to 1048576, but is -4.'],
    [{...mixtral.config, num_local_experts: '4'}, "config.num_local_experts must be an integer from 1 to 1048576, but is the string '4'."],
    [{...mixtral.config, hidden_size: 1e15}, 'config.hidden_size must be an integer from 1 to 2147483647, but is 1000000000000000.'],
    [{...mixtral.config, intermediate_size: NaN}, 'config.intermediate_size must be an integer from 1 to 2147483647, but is NaN.'],
    [{...mixtral.config, intermediate_size: Infinity}, 'config.intermediate_size must be an integer from 1 to 2147483647, but is Infinity.'],
    [{...mixtral.config, hidden_act: 'constructor'},
      "config.hidden_act must be one of silu, swish, relu, relu2, gelu, gelu_new, gelu_pytorch_tanh, but is the string 'constructor'."],
    [{...mixtral.config, hidden_act: long},
      `config.hidden_act must be one of silu, swish, relu, relu2, gelu, gelu_new, gelu_pytorch_tanh, but is the string '${long.slice(0, 60)}…'.`],
    [{...caseOf('qwen2_moe').config, shared_expert_intermediate_size: 2 ** 31},
      'config.shared_expert_intermediate_size must be an integer from 1 to 2147483647, but is 2147483648.'],
    ['config.json', "config must be the parsed config.json of the checkpoint, but is the string 'config.json'."],
    [undefined, 'config must be the parsed config.json of the checkpoint, but is undefined.'],
    [[mixtral.config], 'config must be the parsed config.json of the checkpoint, but is the array [{hidden_size: 4, num_experts_per_tok: 2, ' +
      "hidden_act: 'silu', vocab_size: 100, model_type: 'mixtral', intermediate_size: 3, num_local_experts: 4}]."],
    [new Map([['model_type', 'mixtral']]), unknownModelType('undefined')],
    [{model_type: '__proto__'}, unknownModelType("the string '__proto__'")],
    [{model_type: [[[[[]]]]]}, unknownModelType('the array [[[…]]]')],
  ];
  impossible.forEach(([config, message]) => {
    it(`says at once that ${message.slice(0, 200)}`, async () => {
      const layer = {name: 'moe', getConfig: () => ({}), weights: [{originalName: 'w1', shape: [1]}], setWeights: fail, getWeights: () => []};
      const none = new Map<string, CheckpointTensor>();
      await expectAsync(moeCheckpoint(none, config as MoeModelConfig, {layerIndex: 3})).toBeRejectedWithError(`Error in moeCheckpoint: ${message}`);
      await expectAsync(loadMoeCheckpoint(layer, none, config as MoeModelConfig, {layerIndex: 3})).toBeRejectedWithError(
        `Error in loadMoeCheckpoint: ${message}`);
      expect(() => moeLayerConfig(config as MoeModelConfig)).toThrowError(`Error in moeLayerConfig: ${message}`);
    });
  });

  it('takes time by the number of tensors in the file, whatever number of experts the config has', async () => {
    const many = {...mixtral.config, num_local_experts: 2 ** 20};
    expect(moeLayerConfig(many).numExperts).toBe(2 ** 20);
    await expectAsync(moeCheckpoint(file, many, {layerIndex: 4})).toBeRejectedWithError(/, but more than 10 do not fit:\n(.*: expected .*, but there is none\n?){10}$/);
  });

  const optionErrors: Array<[unknown, string]> = [
    [undefined, 'layerIndex must be the number of a layer, from 0, but is undefined.'],
    [{layerIndex: -1}, 'layerIndex must be the number of a layer, from 0, but is -1.'],
    [{layerIndex: 1e300}, 'layerIndex must be the number of a layer, from 0, but is 1e+300.'],
    [{layerIndex: '3'}, "layerIndex must be the number of a layer, from 0, but is the string '3'."],
    [{layerIndex: 3, prefix: 7}, 'prefix must be a string, but is 7.'],
    [{layerIndex: 3, expertsPerTensor: 0}, 'expertsPerTensor must be a positive integer, but is 0.'],
    [{layerIndex: 3, dtype: 'F32'}, "unknown option 'dtype'. The options are layerIndex, prefix, onProgress, signal, format, groupSize, symmetric, scaleFormat, expertsPerTensor."],
  ];
  optionErrors.forEach(([options, message]) => {
    it(`says that ${message}`, async () => {
      await expectAsync(moeCheckpoint(file, mixtral.config, options as {layerIndex: number})).toBeRejectedWithError(`Error in moeCheckpoint: ${message}`);
    });
  });

  it('says why a layer may not have experts, and lists the first ten tensors', async () => {
    const [router] = writtenTensors(mixtral);
    const stored = safetensorsFile([router]);
    const reasonsOf = async (config: MoeModelConfig, layer: number) => {
      try {
        await moeCheckpoint(stored, {...mixtral.config, num_local_experts: 8, ...config}, {layerIndex: layer});
        return [];
      } catch (error) {
        const lines = (error as Error).message.split('\n');
        expect(lines[0]).toMatch(/, but more than 10 do not fit:$/);
        expect(lines.slice(1, 11)).toEqual(lines.filter((line) => line.endsWith('there is none')));
        return lines.slice(11);
      }
    };
    expect(await reasonsOf({num_hidden_layers: 8, mlp_only_layers: [], decoder_sparse_step: 1}, 7)).toEqual([]);
    expect(await reasonsOf({num_hidden_layers: 7}, 7)).toEqual(['config.num_hidden_layers is 7, and layers are counted from 0.']);
    expect(await reasonsOf({first_k_dense_replace: 3}, 2)).toEqual(['Layers before 3 have no experts (config.first_k_dense_replace).']);
    expect(await reasonsOf({mlp_only_layers: [0, 5]}, 5)).toEqual(['Layer 5 has no experts (config.mlp_only_layers).']);
    expect(await reasonsOf({decoder_sparse_step: 2}, 4)).toEqual(['Only layers 1, 3, … have experts (config.decoder_sparse_step).']);
    expect(await reasonsOf({quantization_config: {quant_method: 'mxfp4'}}, 4)).toEqual([]);
    expect(await reasonsOf({quantization_config: {quant_method: {toString: 1}}}, 4)).toEqual(
      ['config.quantization_config.quant_method is the object {toString: 1}. Files of mxfp4, fp8, compressed-tensors, gptq, awq can be read, ' +
        'and those that are not quantized.']);
  });

  it('names the experts that a layer of another kind lacks', async () => {
    const [router] = writtenTensors(mixtral);
    const small = {...mixtral.config, num_local_experts: 1, num_experts_per_tok: 1};
    await expectAsync(moeCheckpoint(safetensorsFile([{...router, shape: [1, 16]}]), {...small, hidden_size: 16}, {layerIndex: 3})).toBeRejectedWithError(
      'Error in moeCheckpoint: the checkpoint must have the tensors of a mixtral block (it has ' +
      'model.layers.3.block_sparse_moe.gate.weight, …), but 3 do not fit:\n' +
      'model.layers.3.block_sparse_moe.experts.0.w1.weight: expected [3,16], but there is none\n' +
      'model.layers.3.block_sparse_moe.experts.0.w3.weight: expected [3,16], but there is none\n' +
      'model.layers.3.block_sparse_moe.experts.0.w2.weight: expected [16,3], but there is none');
    await expectAsync(moeCheckpoint(fileOf('{}'), small, {layerIndex: 0})).toBeRejectedWithError(/block \(it has none at all, …\), but 4 do not fit:/);
  });
});
