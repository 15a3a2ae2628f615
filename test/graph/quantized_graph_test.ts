/** Quantized weights in GraphModels: constants and inputs of nodes, with the attrs that say what they mean. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {moeGraphModel, type MoeGraphModelOptions, type MoeGraphModelWeights, registerMoeGraphOps} from '../../src/graph/index';
import * as tf from '../../src/tf';
import {expectFloats} from '../support/expect';
import {type Attrs, bool, int, modelOf, string} from '../support/graph_models';
import {lcg} from '../support/routings';

const T = 3;
const E = 4;
const H = 24;
const I = 16;

function random(...shape: number[]): tf.Tensor {
  const next = lcg(shape.reduce((seed, size) => seed * 31 + size, 11));
  return tf.tensor(Array.from({length: tf.util.sizeFromShape(shape)}, () => 2 * next() - 1), shape);
}
type Options = Parameters<typeof tf.moeQuantizeWeights>[1];
const w1 = (options: Options) => tf.moeQuantizeWeights(random(E, 2 * I, H), options);
const w2 = (options: Options) => tf.moeQuantizeWeights(random(E, H, I), options);

/** The contents of a saved model's file: JSON and the bytes of the weights. */
async function throughAFile(model: tf.GraphModel<string | tf.io.IOHandler | tf.io.IOHandlerSync>): Promise<tf.io.ModelArtifacts> {
  let saved: tf.io.ModelArtifacts = {};
  await model.save(tf.io.withSaveHandler(async (artifacts) => {
    saved = artifacts;
    return {modelArtifactsInfo: {dateSaved: new Date(), modelTopologyType: 'JSON'}};
  }));
  const {weightData, ...topology} = saved;
  return {...(JSON.parse(JSON.stringify(topology)) as tf.io.ModelArtifacts), weightData: (weightData as ArrayBuffer).slice(0)};
}

const pairs: Record<string, () => [tf.QuantizedWeights, tf.QuantizedWeights]> = {
  'int4, and int8 with offsets': () => [w1({groupSize: 16}), w2({format: 'int8', groupSize: 16, symmetric: false})],
  'fp4, and float8 with bfloat16 scales': () => [w1({format: 'fp4'}), w2({format: 'float8', scaleFormat: 'bfloat16'})],
  'int4 with another zero point, and float16': () => [{...w1({groupSize: H}), zeroPoint: 7}, w2({format: 'float16'})],
};

describeWithFlags('a GraphModel of quantized experts', ALL_ENVS, () => {
  beforeAll(() => registerMoeGraphOps());

  for (const [name, makePair] of Object.entries(pairs)) {
    it(`gives the results of fusedMoe and leaves nothing, also saved and loaded again: ${name}`, async () => {
      const [first, second] = makePair();
      const routerKernel = random(H, E);
      const w2Bias = random(E, H);
      const x = random(T, H);
      const logits = tf.matMul(x as tf.Tensor2D, routerKernel as tf.Tensor2D);
      const wanted = (await tf.fusedMoe(x, first, second, logits, 2, {w2Bias}).data()) as Float32Array;
      const before = tf.memory().numTensors;
      const artifacts = await moeGraphModel({routerKernel, w1: first, w2: second, w2Bias}, {topk: 2});
      expect(tf.memory().numTensors).withContext('moeGraphModel').toBe(before);

      const model = tf.loadGraphModelSync(artifacts);
      await expectFloats(model.predict(x) as tf.Tensor, wanted, 'output');
      const saved = await throughAFile(model);
      expect(new Uint8Array(saved.weightData as ArrayBuffer)).toEqual(new Uint8Array(artifacts.weightData as ArrayBuffer));
      const again = await tf.loadGraphModel(tf.io.fromMemory(saved));
      await expectFloats(again.predict(x) as tf.Tensor, wanted, 'output, saved and loaded again');
      model.dispose();
      again.dispose();
      expect(tf.memory().numTensors).withContext('in the end, with two outputs').toBe(before + 2);
    });
  }

  it('has codes, scales and offsets of MoeGroupedMatMul as inputs', async () => {
    const {codes, scales, offsets, ...meaning} = w1({groupSize: 16, symmetric: false, scaleFormat: 'float16'});
    const expertFirstTokenOffset = tf.tensor1d([0, 2, 3, 5, 5], 'int32');
    const x = random(6, H);
    const bias = random(E, 2 * I);
    const inputs = {x, codes, expertFirstTokenOffset, bias, scales: scales!, offsets: offsets!};
    const attr = {
      has_bias: bool(true), has_weights_scales: bool(true), has_weights_offsets: bool(true),
      weights_quantized_format: string('int4'), weights_group_size: int(16), weights_scale_format: string('float16'),
    };
    const model = modelOf(inputs, [{name: 'moe', op: 'MoeGroupedMatMul', input: Object.keys(inputs), attr}]);
    const wanted = tf.moeGroupedMatMul(x, {codes, scales, offsets, ...meaning}, expertFirstTokenOffset, {bias});
    await expectFloats(model.execute(inputs, ['moe']) as tf.Tensor, (await wanted.data()) as Float32Array, 'product');
  });

  it('may have one matmul of FusedExperts quantized', async () => {
    const {codes, scales, ...meaning} = w2({format: 'int8', groupSize: 16});
    const inputs = {
      x: random(T, H), w1: random(E, 2 * I, H), w2: codes, topk_weights: random(T, 2),
      topk_ids: tf.tensor2d([[2, 0], [-1, 3], [1, 1]], [T, 2], 'int32'), w2_scales: scales!,
    };
    const attr = {has_w2_scales: bool(true), w2_quantized_format: string('int8'), w2_group_size: int(16)};
    const model = modelOf(inputs, [{name: 'moe', op: 'FusedExperts', input: Object.keys(inputs), attr}]);
    const wanted = tf.fusedExperts(inputs.x, inputs.w1, {codes, scales, ...meaning}, inputs.topk_weights, inputs.topk_ids);
    await expectFloats(model.execute(inputs, ['moe']) as tf.Tensor, (await wanted.data()) as Float32Array, 'output');
  });
});

const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};

describeWithFlags('the artifacts of moeGraphModel of quantized experts', cpu, () => {
  it('have codes and scales as constants, and attrs that say what they mean', async () => {
    const weights = {routerKernel: random(H, E), w1: w1({symmetric: false, scaleFormat: 'float16'}), w2: w2({format: 'fp4', groupSize: 16})};
    const {weightSpecs, modelTopology} = await moeGraphModel(weights, {topk: 2});
    expect(weightSpecs!.map(({name, dtype, shape}) => [name, dtype, ...shape] as unknown[])).toEqual([
      ['router_kernel', 'float32', H, E], ['w1', 'int32', E, 2 * I, 3], ['w1_scales', 'int32', 64], ['w1_offsets', 'int32', 64],
      ['w2', 'int32', E, H, 2], ['w2_scales', 'int32', 24],
    ]);
    const {node} = modelTopology as {node: Array<{name: string; input: string[]; attr: Attrs}>};
    const {input, attr} = node.find(({name}) => name === 'output')!;
    expect(input).toEqual(['hidden_states', 'w1', 'w2', 'router_logits', 'w1_scales', 'w1_offsets', 'w2_scales']);
    expect(attr).toEqual({
      topk: int(2), has_w1_scales: bool(true), has_w1_offsets: bool(true), has_w2_scales: bool(true),
      w1_quantized_format: string('int4'), w1_group_size: int(32), w1_scale_format: string('float16'),
      w2_quantized_format: string('fp4'), w2_group_size: int(16), w2_scale_format: string('e8m0'),
    });
  });

  const refused: Array<[name: string, weights: () => object, options: object, message: string]> = [
    ['parts', () => ({w1: [w1({}), w1({})]}), {},
      'w1 must be one tensor, not a list of tensors: a node of a graph has one input for it.'],
    ['codes of another shape', () => ({w1: {...w1({}), shape: [E, 2 * I, H + 8]}}), {},
      'w1.codes must be int32 [L, D, C/8] = [4,32,4] for int4 of shape [4,32,32], but is [4,32,3].'],
    ['a field that codes do not have', () => ({w2: {...w2({}), bits: 4}}), {},
      "unknown field 'w2.bits'. The fields of quantized weights are format, shape, codes, groupSize, scales, scaleFormat, zeroPoint, offsets."],
    ['the other layout', () => ({}), {weightFormat: 'inOut'}, "weightFormat must be 'outIn' where w1 is quantized, but is 'inOut'."],
  ];
  for (const [name, weights, options, message] of refused) {
    it(`are refused for ${name}, and nothing is left`, async () => {
      const given = {routerKernel: random(H, E), w1: w1({}), w2: w2({}), ...weights()} as MoeGraphModelWeights;
      const before = tf.memory().numTensors;
      await expectAsync(moeGraphModel(given, {topk: 2, ...options} as MoeGraphModelOptions))
        .toBeRejectedWithError(`Error in moeGraphModel: ${message}`);
      expect(tf.memory().numTensors).toBe(before);
    });
  }
});

describeWithFlags('nodes of quantized weights', cpu, () => {
  beforeAll(() => registerMoeGraphOps());

  const inputs = () => {
    const {codes, scales} = w1({});
    return {x: random(6, H), codes, offset: tf.tensor1d([0, 2, 3, 5, 5], 'int32'), scales: scales!};
  };
  const format = {weights_quantized_format: string('int4')};
  const wrong: Array<[name: string, attr: Attrs, message: string]> = [
    ['scales without a format', {}, 'attr weights_quantized_format must be given with weights_scales, but is not.'],
    ['a group size without a format', {weights_group_size: int(32)},
      'attr weights_quantized_format must be given with weights_group_size, but is not.'],
    ['an unknown format', {weights_quantized_format: string('int3')},
      "attr weights_quantized_format must be one of int4, int8, fp4, float8, float16, bfloat16, but is the string 'int3'."],
    ['no group size', format, 'Error in moeGroupedMatMul: weights.groupSize must be a multiple of 16, or C = 24, but is undefined.'],
    ['a zero point that is no code', {...format, weights_group_size: int(32), weights_zero_point: int(16)},
      'Error in moeGroupedMatMul: weights.zeroPoint must be an integer 0 to 15 for int4, but is 16.'],
    ['scales of another format', {...format, weights_group_size: int(32), weights_scale_format: string('float16')},
      "Argument 'weights.scales' passed to 'moeGroupedMatMul' must be int32 tensor, but got float32 tensor"],
  ];
  for (const [name, attr, message] of wrong) {
    it(`refuse ${name}, and leave nothing`, () => {
      const given = inputs();
      const model = modelOf(given, [
        {name: 'moe', op: 'MoeGroupedMatMul', input: Object.keys(given), attr: {has_weights_scales: bool(true), ...attr}},
      ]);
      const before = tf.memory().numTensors;
      expect(() => model.execute(given, ['moe'])).toThrowError(`Error in node 'moe' (MoeGroupedMatMul): ${message}`);
      expect(tf.memory().numTensors).toBe(before);
    });
  }
});
