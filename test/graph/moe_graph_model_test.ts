import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {moeGraphModel, type MoeGraphModelOptions, type MoeGraphModelWeights, registerMoeGraphOps} from '../../src/graph/index';
import * as tf from '../../src/tf';
import {expectFloats} from '../support/expect';
import {lcg} from '../support/routings';

const T = 3;
const E = 4;
const H = 8;
const I = 12;
const F = 5;

function random(...shape: number[]): tf.Tensor {
  const next = lcg(shape.reduce((seed, size) => seed * 31 + size, 11));
  return tf.tensor(Array.from({length: tf.util.sizeFromShape(shape)}, () => 2 * next() - 1), shape);
}

const few = () => ({routerKernel: random(H, E), w1: random(E, 2 * I, H), w2: random(E, H, I)});
const all = () => ({
  routerKernel: random(H, E + 2), routerBias: random(E + 2), w1: random(2, H, 2 * I), w2: random(2, I, H), w1Bias: random(2, 2 * I),
  w2Bias: random(2, H), scoreCorrectionBias: random(E + 2), expertMap: tf.tensor1d([1, -1, 0, 1], 'int32'),
  sharedExperts: {w1: random(H, 2 * F), w2: random(F, H), gate: random(H, 1)},
});
const everyOption: MoeGraphModelOptions = {
  topk: 1, scoring: 'sqrtSoftplus', renormalize: true, numExpertGroups: 2, topkGroups: 1, routedScalingFactor: 1.1,
  activation: 'swigluOai', gated: true, gateUp: 'interleaved', swigluAlpha: 1.3, swigluLimit: 0.7, weightFormat: 'inOut',
  numZeroExperts: 2, applyRouterWeightOnInput: true,
};

type Shared = {w1: tf.Tensor; w2: tf.Tensor; gate?: tf.Tensor};
type Weights = {[Name in keyof MoeGraphModelWeights]: Name extends 'sharedExperts' ? Shared : tf.Tensor};

/** The block, computed by the ops themselves. */
function blockOf({routerKernel, routerBias, w1, w2, ...biases}: Weights, {topk, ...options}: MoeGraphModelOptions) {
  return (x: tf.Tensor): tf.Tensor => {
    const product = tf.matMul(x as tf.Tensor2D, routerKernel as tf.Tensor2D);
    const routerLogits = routerBias == null ? product : tf.add(product, routerBias);
    return tf.fusedMoe(x, w1, w2, routerLogits, topk, {...options, ...biases});
  };
}

/** The contents of a saved model's file: JSON and the bytes of the weights. */
async function throughAFile(model: tf.GraphModel): Promise<tf.io.ModelArtifacts> {
  let saved: tf.io.ModelArtifacts = {};
  await model.save(tf.io.withSaveHandler(async (artifacts) => {
    saved = artifacts;
    return {modelArtifactsInfo: {dateSaved: new Date(), modelTopologyType: 'JSON'}};
  }));
  const {weightData, ...topology} = saved;
  return {...(JSON.parse(JSON.stringify(topology)) as tf.io.ModelArtifacts), weightData: (weightData as ArrayBuffer).slice(0)};
}

async function expectBlock(weights: Weights, options: MoeGraphModelOptions): Promise<void> {
  const x = random(T, H);
  const wanted = (await blockOf(weights, options)(x).data()) as Float32Array;
  const before = tf.memory().numTensors;
  const artifacts = await moeGraphModel(weights, options);
  expect(tf.memory().numTensors).withContext('moeGraphModel').toBe(before);
  // Loading makes tensors of the weights, which belong to the model.
  tf.dispose(weights);

  const model = await tf.loadGraphModel(tf.io.fromMemory(artifacts));
  const loadedAgain = await tf.loadGraphModel(tf.io.fromMemory(await throughAFile(model)));
  const loadedSync = tf.loadGraphModelSync(artifacts);
  const {sharedExperts = {}, ...others} = weights;
  const numWeights = Object.keys(others).length + Object.keys(sharedExperts).length;
  expect(tf.memory().numTensors).withContext('three models').toBe(before + 2 * numWeights);
  for (const loaded of [model, loadedAgain, loadedSync]) {
    const outputs = [loaded.predict(x), loaded.execute({hidden_states: x}, 'output')] as tf.Tensor[];
    for (const output of outputs) {
      expect(output.shape).toEqual([T, H]);
      await expectFloats(output, wanted, 'output');
    }
    tf.dispose(outputs);
    loaded.dispose();
  }
  expect(tf.memory().numTensors).withContext('in the end').toBe(before - numWeights);
}

describeWithFlags('moeGraphModel, a GraphModel of a whole block', ALL_ENVS, () => {
  beforeAll(() => registerMoeGraphOps());

  it('gives the results of the ops, also saved and loaded again, and leaves nothing', () => expectBlock(all(), everyOption));

  it('holds the values of weights that tf.cast made float32 of integers', async () => {
    const integers = (values: tf.TensorLike, shape: number[]) => tf.cast(tf.tensor(values as number[], shape, 'int32'), 'float32');
    const weights = {
      routerKernel: integers([0, 1, 1, 0], [2, 2]), w1: integers([1, 0, 0, 1], [2, 1, 2]), w2: integers([1, 1, 10, 10], [2, 2, 1]),
    };
    const artifacts = await moeGraphModel(weights, {topk: 1, renormalize: true, activation: 'relu', gated: false});
    const model = tf.loadGraphModelSync(artifacts);
    await expectFloats(model.predict(tf.tensor2d([[1, 2], [4, 3]])) as tf.Tensor, [1, 1, 30, 30], 'output');
  });

  it('takes no tokens', async () => {
    const model = tf.loadGraphModelSync(await moeGraphModel(few(), {topk: 2}));
    const output = model.predict(tf.zeros([0, H])) as tf.Tensor;
    expect(output.shape).toEqual([0, H]);
    await expectFloats(output, [], 'output');
  });
});

const notWeights = (given: string) =>
  'Error in moeGraphModel: weights must be an object of routerKernel, routerBias, w1, w2, w1Bias, w2Bias, scoreCorrectionBias, ' +
  `expertMap, sharedExperts, but is ${given}.`;

const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};

describeWithFlags('the artifacts of moeGraphModel', cpu, () => {
  beforeAll(() => registerMoeGraphOps());

  it('name their input, output and weights', async () => {
    const model = await tf.loadGraphModel(tf.io.fromMemory(await moeGraphModel(all(), everyOption)));
    expect(model.inputs).toEqual([{name: 'hidden_states', shape: [-1, H], dtype: 'float32'}]);
    expect(model.outputNodes).toEqual(['output']);
    expect(Object.keys(model.modelSignature)).toEqual(['inputs', 'outputs']);
    const shapes = Object.fromEntries(Object.entries(model.weights).map(([name, [{shape, dtype}]]) => [name, [dtype, ...shape]]));
    expect(shapes).toEqual({
      router_kernel: ['float32', H, E + 2], router_bias: ['float32', E + 2], w1: ['float32', 2, H, 2 * I], w2: ['float32', 2, I, H],
      w1_bias: ['float32', 2, 2 * I], w2_bias: ['float32', 2, H], score_correction_bias: ['float32', E + 2], expert_map: ['int32', E],
      shared_w1: ['float32', H, 2 * F], shared_w2: ['float32', F, H], shared_gate: ['float32', H, 1],
    });
    expect(() => model.predict(tf.zeros([T, H + 1]))).toThrowError(/must be \[-1,8\], but was \[3,9\]/);
  });

  it('need no optional weight', () => expectBlock(few(), {topk: 2}));

  it('need no gate of shared experts', () =>
    expectBlock({...few(), sharedExperts: {w1: random(2 * F, H), w2: random(H, F)}}, {topk: 2}));

  it('take weights as arrays, null for those not given, and make no tensor that stays', async () => {
    const weights = {
      routerKernel: [[0, 1], [1, 0]], routerBias: null, w1: [[[1, 0]], [[0, 1]]], w2: [[[1], [1]], [[10], [10]]], expertMap: [1, 0],
    };
    const before = tf.memory().numTensors;
    const artifacts = await moeGraphModel(weights, {topk: 1, renormalize: true, activation: 'relu', gated: false, scoring: null});
    expect(tf.memory().numTensors).toBe(before);
    const model = tf.loadGraphModelSync(artifacts);
    await expectFloats(model.predict(tf.tensor2d([[1, 2], [4, 3]])) as tf.Tensor, [20, 20, 4, 4], 'output');
  });

  const refused: Array<[name: string, weights: () => object, options: object | undefined, message: string]> = [
    ['no weights', () => null as unknown as object, {topk: 2},
      'Error in moeGraphModel: weights must be an object of routerKernel, routerBias, w1, w2, w1Bias, w2Bias, ' +
      'scoreCorrectionBias, expertMap, sharedExperts, but is null.'],
    ['an unknown weight', () => ({...few(), w3: random(E)}), {topk: 2},
      "Error in moeGraphModel: unknown weight 'w3'. The weights are routerKernel, routerBias, w1, w2, w1Bias, w2Bias, " +
      'scoreCorrectionBias, expertMap, sharedExperts.'],
    ['a missing weight', () => ({...few(), w2: undefined}), {topk: 2},
      "Argument 'w2' passed to 'moeGraphModel' must be a Tensor or TensorLike, but got 'null'"],
    ['no options', few, undefined, 'Error in moeGraphModel: topk must be a positive integer, but is undefined.'],
    ['an unknown option', few, {topk: 2, w1Bias: [0]},
      "Error in moeGraphModel: unknown option 'w1Bias'. The options are topk, scoring, renormalize, numExpertGroups, topkGroups, " +
      'sparsemixerJitter, routedScalingFactor, activation, gated, gateUp, swigluAlpha, swigluLimit, weightFormat, numZeroExperts, applyRouterWeightOnInput.'],
    ['more experts per token than there are', few, {topk: 5},
      'Error in moeGraphModel: topk must be at most the number of experts (E = 4), but is 5.'],
    ['an unknown activation', few, {topk: 2, activation: 'tanh'},
      "Error in moeGraphModel: activation must be one of linear, relu, relu2, silu, swish, gelu, geluTanh, geluNew, swigluOai, but is 'tanh'."],
    ['a router of another rank', () => ({...few(), routerKernel: random(E)}), {topk: 2},
      'Error in moeGraphModel: routerKernel must be rank 2 [H, E], but got rank 1 [4].'],
    ['a router without columns', () => ({...few(), routerKernel: tf.zeros([H, 0])}), {topk: 2},
      'Error in moeGraphModel: routerKernel must have at least 1 row (H) and 1 column (E), but is [8,0].'],
    ['a router of other experts', () => ({...few(), routerKernel: random(H, E + 1)}), {topk: 2},
      'Error in moeGraphModel: routerKernel must be [H, E] with a column for each expert (E = 4, the number of experts of w1), but is [8,5].'],
    ['a router bias of other experts', () => ({...few(), routerBias: random(E + 1)}), {topk: 2},
      "Error in moeGraphModel: routerBias must be [E] = [4], an entry for each column of routerKernel, but is [5]."],
    ['experts of another size', () => ({...few(), w1: random(E, 2 * I, H + 1)}), {topk: 2},
      "Error in moeGraphModel: w1 must be [L, 2I, H] with H = 8 for hiddenStates [-1,8] and weightFormat 'outIn', but is [4,24,9]."],
    ['weights in parts', () => ({...few(), w1: [random(2, 2 * I, H), random(2, 2 * I, H)]}), {topk: 2},
      'Error in moeGraphModel: w1 must be one tensor, not a list of tensors: a node of a graph has one input for it.'],
    ['shared experts of another size', () => ({...few(), sharedExperts: {w1: random(2 * F, H + 1), w2: random(H, F)}}), {topk: 2},
      "Error in moeGraphModel: sharedExperts.w1 must be [2F, H] with H = 8 for hiddenStates [-1,8] and weightFormat 'outIn', but is [10,9]."],
    ['a gate of shared experts of another size',
      () => ({...few(), sharedExperts: {w1: random(2 * F, H), w2: random(H, F), gate: random(H)}}), {topk: 2},
      'Error in moeGraphModel: sharedExperts.gate must be [H, 1] = [8,1], but is [8].'],
    ['half of shared experts', () => ({...few(), sharedExperts: {w1: random(2 * F, H)}}), {topk: 2},
      "Argument 'sharedExperts.w2' passed to 'moeGraphModel' must be a Tensor or TensorLike, but got 'null'"],
    ['a list for weights', () => [few().w1], {topk: 2}, notWeights('the array [a Tensor]')],
    ['a tensor for weights', () => random(H, E), {topk: 2}, notWeights('a float32 tensor [8,4]')],
    ['a number for weights', () => 7 as unknown as object, {topk: 2}, notWeights('7')],
    ['a weight whose name is megabytes', () => ({...few(), ['w'.repeat(3_000_000)]: 1}), {topk: 2},
      `Error in moeGraphModel: unknown weight '${'w'.repeat(60)}…'. The weights are routerKernel, routerBias, w1, w2, w1Bias, w2Bias, ` +
      'scoreCorrectionBias, expertMap, sharedExperts.'],
    ['a topk that is no number', few, {topk: NaN}, 'Error in moeGraphModel: topk must be a positive integer, but is NaN.'],
    ['a scale past float32', few, {topk: 2, routedScalingFactor: 1e300},
      'Error in moeGraphModel: routedScalingFactor must be a number that fits float32, but is 1e+300.'],
    ['a limit of nothing', few, {topk: 2, activation: 'swigluOai', swigluLimit: 0},
      'Error in moeGraphModel: swigluLimit must be a positive number, but is 0.'],
    ['integers for weights', () => ({...few(), w2: tf.zeros([E, H, I], 'int32')}), {topk: 2},
      "Argument 'w2' passed to 'moeGraphModel' must be float32 tensor, but got int32 tensor"],
  ];
  for (const [name, weights, options, message] of refused) {
    it(`are refused for ${name}, and nothing is left`, async () => {
      const given = weights() as MoeGraphModelWeights;
      const before = tf.memory().numTensors;
      await expectAsync(moeGraphModel(given, options as MoeGraphModelOptions)).toBeRejectedWithError(message);
      expect(tf.memory().numTensors).toBe(before);
    });
  }
});
