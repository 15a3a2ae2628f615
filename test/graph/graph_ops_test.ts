import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {deregisterOp} from '@tensorflow/tfjs-converter';
import {registerMoeGraphOps} from '../../src/graph/index';
import * as tf from '../../src/tf';
import {expectFloats, expectInts} from '../support/expect';
import {type Attrs, bool, float, int, modelOf, type Node, string} from '../support/graph_models';
import {lcg} from '../support/routings';

const T = 3;
const K = 2;
const E = 4;
const H = 8;
const I = 12;

function random(...shape: number[]): tf.Tensor {
  const next = lcg(shape.reduce((seed, size) => seed * 31 + size, 7));
  return tf.tensor(Array.from({length: tf.util.sizeFromShape(shape)}, () => 2 * next() - 1), shape);
}
const ids = () => tf.tensor2d([[2, 0], [-1, 3], [1, 1]], [T, K], 'int32');
const offset = () => tf.tensor1d([0, 2, 3, 5, 5], 'int32');
const map = () => tf.tensor1d([1, -1, 0, 1], 'int32');

type Case = {
  name: string;
  op: string;
  /** In the order of the node's inputs. */
  inputs: () => tf.NamedTensorMap;
  attr?: Attrs;
  /** The op itself, which gives the expected outputs of the node. */
  wanted: (inputs: {[name: string]: tf.Tensor}) => tf.Tensor[];
};

const permuteOutputs = (r: tf.MoePermuteResult): tf.Tensor[] => [
  r.permutedHiddenStates, r.expertFirstTokenOffset, r.invPermutedIdx, r.mIndices, r.permutedIdx, ...(r.a1qScale == null ? [] : [r.a1qScale]),
];
const topkOutputs = ({topkWeights, topkIds}: tf.MoeTopkResult) => [topkWeights, topkIds];
const moeOutputs = ({output, topkWeights, topkIds}: tf.FusedMoeResult) => [output, topkWeights, topkIds];
const alignOutputs = (r: tf.MoeAlignBlockSizeResult) => [r.sortedTokenIds, r.expertIds, r.numTokensPostPad];

const tokens = () => ({hidden_states: random(T, H), topk_ids: ids()});
const experts = () => ({hidden_states: random(T, H), w1: random(E, 2 * I, H), w2: random(E, H, I)});
const localExperts = () => ({hidden_states: random(T, H), w1: random(2, H, 2 * I), w2: random(2, I, H)});
/** Of width 3, like localExperts gated and inOut. */
const sharedExperts = () => ({shared_w1: random(H, 2 * 3), shared_w2: random(3, H), shared_gate: random(H, 1)});

const cases: Case[] = [
  {
    name: 'MoePermute',
    op: 'MoePermute',
    inputs: tokens,
    attr: {num_experts: int(E)},
    wanted: ({hidden_states, topk_ids}) => permuteOutputs(tf.moePermute(hidden_states, topk_ids, E)),
  },
  {
    name: 'MoePermute with everything',
    op: 'MoePermute',
    inputs: () => ({...tokens(), a1q_scale: random(T, 2), expert_map: map()}),
    attr: {
      num_experts: int(E), num_local_experts: int(2), align_block_size: int(4), fill_invalid_expert: int(-7),
      has_a1q_scale: bool(true), has_expert_map: bool(true),
    },
    wanted: ({hidden_states, topk_ids, a1q_scale, expert_map}) =>
      permuteOutputs(tf.moePermute(hidden_states, topk_ids, E, {
        a1qScale: a1q_scale, expertMap: expert_map, numLocalExperts: 2, alignBlockSize: 4, fillInvalidExpert: -7,
      })),
  },
  {
    name: 'MoePermute with the scale of the whole tensor',
    op: 'MoePermute',
    inputs: () => ({...tokens(), a1q_scale: tf.scalar(0.5)}),
    attr: {num_experts: int(E), has_a1q_scale: bool(true), has_expert_map: bool(false)},
    wanted: ({hidden_states, topk_ids, a1q_scale}) =>
      permuteOutputs(tf.moePermute(hidden_states, topk_ids, E, {a1qScale: a1q_scale})),
  },
  {
    name: 'MoePermute with a map and no scale',
    op: 'MoePermute',
    inputs: () => ({...tokens(), expert_map: map()}),
    attr: {num_experts: int(E), has_expert_map: bool(true)},
    wanted: ({hidden_states, topk_ids, expert_map}) =>
      permuteOutputs(tf.moePermute(hidden_states, topk_ids, E, {expertMap: expert_map})),
  },
  {
    name: 'MoeUnpermute',
    op: 'MoeUnpermute',
    inputs: () => ({rows: random(T * K, H), topk_weights: random(T, K), inverse: ids()}),
    wanted: ({rows, topk_weights, inverse}) => [tf.moeUnpermute(rows, topk_weights, inverse)],
  },
  {
    name: 'MoeUnpermute with an offset',
    op: 'MoeUnpermute',
    inputs: () => ({rows: random(T * K, H), topk_weights: random(T, K), inverse: ids(), offset: tf.tensor1d([2], 'int32')}),
    attr: {has_expert_first_token_offset: bool(true)},
    wanted: ({rows, topk_weights, inverse, offset}) => [tf.moeUnpermute(rows, topk_weights, inverse, offset)],
  },
  {
    name: 'MoeAlignBlockSize',
    op: 'MoeAlignBlockSize',
    inputs: () => ({topk_ids: ids()}),
    attr: {num_experts: int(E), block_size: int(3)},
    wanted: ({topk_ids}) => alignOutputs(tf.moeAlignBlockSize(topk_ids, 3, E)),
  },
  {
    name: 'MoeAlignBlockSize with everything',
    op: 'MoeAlignBlockSize',
    inputs: () => ({topk_ids: ids(), expert_map: map()}),
    attr: {
      num_experts: int(E), block_size: int(3), pad_sorted_ids: bool(true), ignore_invalid_experts: bool(true),
      has_expert_map: bool(true),
    },
    wanted: ({topk_ids, expert_map}) =>
      alignOutputs(tf.moeAlignBlockSize(topk_ids, 3, E, {expertMap: expert_map, padSortedIds: true, ignoreInvalidExperts: true})),
  },
  {
    name: 'MoeTopK',
    op: 'MoeTopK',
    inputs: () => ({router_logits: random(T, E)}),
    attr: {topk: int(K)},
    wanted: ({router_logits}) => topkOutputs(tf.moeTopk(router_logits, K)),
  },
  {
    name: 'MoeTopK with everything',
    op: 'MoeTopK',
    inputs: () => ({router_logits: random(T, E), score_correction_bias: random(E)}),
    attr: {
      topk: int(1), scoring: string('sigmoid'), renormalize: bool(false), num_expert_groups: int(2), topk_groups: int(1),
      routed_scaling_factor: float(2.5), has_score_correction_bias: bool(true),
    },
    wanted: ({router_logits, score_correction_bias}) =>
      topkOutputs(tf.moeTopk(router_logits, 1, {
        scoring: 'sigmoid', renormalize: false, numExpertGroups: 2, topkGroups: 1, routedScalingFactor: 2.5,
        scoreCorrectionBias: score_correction_bias,
      })),
  },
  {
    name: 'MoeGroupedMatMul',
    op: 'MoeGroupedMatMul',
    inputs: () => ({x: random(T * K, H), weights: random(E, 2 * I, H), offset: offset()}),
    wanted: ({x, weights, offset}) => [tf.moeGroupedMatMul(x, weights, offset)],
  },
  {
    name: 'MoeGroupedMatMul with everything',
    op: 'MoeGroupedMatMul',
    inputs: () => ({x: random(T * K, H), weights: random(E, H, 2 * I), offset: offset(), bias: random(E, 2 * I)}),
    attr: {
      weight_format: string('in_out'), activation: string('swiglu_oai'), gated: bool(true), gate_up: string('interleaved'),
      swiglu_alpha: float(1.5), swiglu_limit: int(1), has_bias: bool(true),
    },
    wanted: ({x, weights, offset, bias}) => [
      tf.moeGroupedMatMul(x, weights, offset, {
        weightFormat: 'inOut', activation: 'swigluOai', gated: true, gateUp: 'interleaved', swigluAlpha: 1.5, swigluLimit: 1,
        bias,
      }),
    ],
  },
  {
    name: 'FusedExperts',
    op: 'FusedExperts',
    inputs: () => ({...experts(), topk_weights: random(T, K), topk_ids: ids()}),
    wanted: ({hidden_states, w1, w2, topk_weights, topk_ids}) => [tf.fusedExperts(hidden_states, w1, w2, topk_weights, topk_ids)],
  },
  {
    name: 'FusedExperts with everything',
    op: 'FusedExperts',
    inputs: () => ({
      ...localExperts(), topk_weights: random(T, K), topk_ids: ids(), w1_bias: random(2, 2 * I), w2_bias: random(2, H),
      expert_map: map(), ...sharedExperts(),
    }),
    attr: {
      weight_format: string('in_out'), activation: string('swiglu_oai'), gated: bool(true), gate_up: string('interleaved'),
      swiglu_alpha: float(1.5), swiglu_limit: float(1), apply_router_weight_on_input: bool(true),
      has_w1_bias: bool(true), has_w2_bias: bool(true), has_expert_map: bool(true),
      has_shared_w1: bool(true), has_shared_w2: bool(true), has_shared_gate: bool(true),
    },
    wanted: ({hidden_states, w1, w2, topk_weights, topk_ids, w1_bias, w2_bias, expert_map, ...shared}) => [
      tf.fusedExperts(hidden_states, w1, w2, topk_weights, topk_ids, {
        weightFormat: 'inOut', activation: 'swigluOai', gated: true, gateUp: 'interleaved', swigluAlpha: 1.5, swigluLimit: 1,
        applyRouterWeightOnInput: true, w1Bias: w1_bias, w2Bias: w2_bias, expertMap: expert_map,
        sharedExperts: {w1: shared.shared_w1, w2: shared.shared_w2, gate: shared.shared_gate},
      }),
    ],
  },
  {
    name: 'FusedMoe',
    op: 'FusedMoe',
    inputs: () => ({...experts(), router_logits: random(T, E)}),
    attr: {topk: int(K)},
    wanted: ({hidden_states, w1, w2, router_logits}) => moeOutputs(tf.fusedMoe(hidden_states, w1, w2, router_logits, K, {returnRouting: true})),
  },
  {
    name: 'FusedMoe with some of the optional inputs',
    op: 'FusedMoe',
    inputs: () => ({...experts(), router_logits: random(T, E), w2_bias: random(E, H)}),
    attr: {topk: int(K), has_w1_bias: bool(false), has_w2_bias: bool(true)},
    wanted: ({hidden_states, w1, w2, router_logits, w2_bias}) =>
      moeOutputs(tf.fusedMoe(hidden_states, w1, w2, router_logits, K, {w2Bias: w2_bias, returnRouting: true})),
  },
  {
    name: 'FusedMoe with everything',
    op: 'FusedMoe',
    inputs: () => ({
      ...localExperts(), router_logits: random(T, E), score_correction_bias: random(E), w1_bias: random(2, 2 * I),
      w2_bias: random(2, H), expert_map: map(), ...sharedExperts(),
    }),
    attr: {
      topk: int(1), scoring: string('sigmoid'), renormalize: bool(false), num_expert_groups: int(2), topk_groups: int(1),
      routed_scaling_factor: float(2.5), has_score_correction_bias: bool(true),
      weight_format: string('in_out'), activation: string('swiglu_oai'), gated: bool(true), gate_up: string('interleaved'),
      swiglu_alpha: float(1.5), swiglu_limit: float(1), apply_router_weight_on_input: bool(true),
      has_w1_bias: bool(true), has_w2_bias: bool(true), has_expert_map: bool(true),
      has_shared_w1: bool(true), has_shared_w2: bool(true), has_shared_gate: bool(true),
    },
    wanted: ({hidden_states, w1, w2, router_logits, score_correction_bias, w1_bias, w2_bias, expert_map, ...shared}) =>
      moeOutputs(tf.fusedMoe(hidden_states, w1, w2, router_logits, 1, {
        scoring: 'sigmoid', renormalize: false, numExpertGroups: 2, topkGroups: 1, routedScalingFactor: 2.5,
        scoreCorrectionBias: score_correction_bias, weightFormat: 'inOut', activation: 'swigluOai', gated: true,
        gateUp: 'interleaved', swigluAlpha: 1.5, swigluLimit: 1, applyRouterWeightOnInput: true, w1Bias: w1_bias,
        w2Bias: w2_bias, expertMap: expert_map,
        sharedExperts: {w1: shared.shared_w1, w2: shared.shared_w2, gate: shared.shared_gate}, returnRouting: true,
      })),
  },
  {
    name: 'FusedMoe of sequences',
    op: 'FusedMoe',
    inputs: () => ({...experts(), hidden_states: random(2, T, H), router_logits: random(2, T, E)}),
    attr: {topk: int(K)},
    wanted: ({hidden_states, w1, w2, router_logits}) => moeOutputs(tf.fusedMoe(hidden_states, w1, w2, router_logits, K, {returnRouting: true})),
  },
  {
    name: 'MoeSum',
    op: 'MoeSum',
    inputs: () => ({x: random(T, K, H)}),
    wanted: ({x}) => [tf.moeSum(x)],
  },
];

async function expectSame(given: tf.Tensor[], wanted: tf.Tensor[], what: string): Promise<void> {
  expect(given.length).withContext(what).toBe(wanted.length);
  for (let i = 0; i < wanted.length; i++) {
    const context = `output ${i} of ${what}`;
    expect(given[i].shape).withContext(context).toEqual(wanted[i].shape);
    const values = await wanted[i].data();
    await (wanted[i].dtype === 'int32' ? expectInts : expectFloats)(given[i], values as Float32Array, context);
  }
}

const nodeOf = (inputs: object, {op, attr}: Pick<Case, 'op' | 'attr'>): Node => ({name: 'moe', op, input: Object.keys(inputs), attr});

/** tfjs returns a list for a list of several names, and a tensor for a list of one name. */
const toList = (outputs: tf.Tensor | tf.Tensor[]) => (Array.isArray(outputs) ? outputs : [outputs]);

/** tfjs warns each time that a graph without control flow need not be run asynchronously. */
const quietExecuteAsync = () => spyOn(console, 'warn').withArgs(jasmine.stringContaining('You can use model.execute() instead'));

describeWithFlags('ops of a GraphModel', ALL_ENVS, () => {
  beforeAll(() => registerMoeGraphOps());

  for (const graphCase of cases) {
    it(`${graphCase.name} gives the results of the op, and leaves nothing`, async () => {
      quietExecuteAsync();
      const inputs = graphCase.inputs();
      const wanted = graphCase.wanted(inputs);
      const model = modelOf(inputs, [nodeOf(inputs, graphCase)]);
      const outputNames = wanted.map((_, i) => `moe:${i}`);
      const before = tf.memory().numTensors;

      const executed = toList(model.execute(inputs, outputNames));
      expect(tf.memory().numTensors).withContext('execute').toBe(before + wanted.length);
      await expectSame(executed, wanted, 'execute');
      tf.dispose(executed);

      const executedAsync = toList(await model.executeAsync(inputs, outputNames));
      expect(tf.memory().numTensors).withContext('executeAsync').toBe(before + wanted.length);
      await expectSame(executedAsync, wanted, 'executeAsync');
      tf.dispose(executedAsync);

      const predicted = model.predict(inputs) as tf.Tensor;
      expect(tf.memory().numTensors).withContext('predict').toBe(before + 1);
      await expectSame([predicted], wanted.slice(0, 1), 'predict');
      tf.dispose(predicted);

      expect(model.execute(inputs, [`moe:${wanted.length}`])).withContext('a further output').toBeUndefined();
      expect(tf.memory().numTensors).toBe(before);
    });
  }

  it('run one after the other, connected by the numbers of their outputs', async () => {
    quietExecuteAsync();
    const inputs = {x: random(T, H), ids: ids(), topk_weights: random(T, K), weights: random(E, 2 * I, H)};
    const model = modelOf(inputs, [
      {name: 'permuted', op: 'MoePermute', input: ['x', 'ids'], attr: {num_experts: int(E)}},
      {name: 'expert_outputs', op: 'MoeGroupedMatMul', input: ['permuted', 'weights', 'permuted:1']},
      {
        name: 'merged',
        op: 'MoeUnpermute',
        input: ['expert_outputs', 'topk_weights', 'permuted:2', 'permuted:1'],
        attr: {has_expert_first_token_offset: bool(true)},
      },
    ]);
    const permuted = tf.moePermute(inputs.x, inputs.ids, E);
    const expertOutputs = tf.moeGroupedMatMul(permuted.permutedHiddenStates, inputs.weights, permuted.expertFirstTokenOffset);
    const wanted = tf.moeUnpermute(expertOutputs, inputs.topk_weights, permuted.invPermutedIdx, permuted.expertFirstTokenOffset);
    const before = tf.memory().numTensors;
    const outputs = [model.predict(inputs) as tf.Tensor, (await model.executeAsync(inputs)) as tf.Tensor];
    expect(tf.memory().numTensors).toBe(before + 2);
    await expectSame(outputs, [wanted, wanted], 'predict, executeAsync');
    const middle = model.execute(inputs, ['permuted:4', 'merged']) as tf.Tensor[];
    await expectSame(middle, [permuted.permutedIdx, wanted], 'an output in the middle');
    tf.dispose([...outputs, ...middle]);
    expect(tf.memory().numTensors).toBe(before);
  });
});

const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};

describeWithFlags('nodes of a GraphModel', cpu, () => {
  beforeAll(() => registerMoeGraphOps());

  const execute = (op: string, inputs: tf.NamedTensorMap, attr?: Attrs) => {
    const model = modelOf(inputs, [nodeOf(inputs, {op, attr})]);
    return model.execute(inputs, ['moe']) as tf.Tensor;
  };

  for (const [name, value] of [
    ['linear', 'linear'], ['relu', 'relu'], ['relu2', 'relu2'], ['silu', 'silu'], ['swish', 'swish'], ['gelu', 'gelu'],
    ['gelu_tanh', 'geluTanh'], ['gelu_new', 'geluNew'], ['swiglu_oai', 'swigluOai'],
  ] as Array<[string, tf.MoeActivation]>) {
    it(`take the activation ${name}`, async () => {
      const inputs = {x: random(T * K, H), weights: random(E, 2 * I, H), offset: offset()};
      const output = execute('MoeGroupedMatMul', inputs, {activation: string(name), gated: bool(true)});
      const wanted = tf.moeGroupedMatMul(inputs.x, inputs.weights, inputs.offset, {activation: value, gated: true});
      await expectSame([output], [wanted], name);
    });
  }

  for (const [name, value] of [
    ['softmax', 'softmax'], ['softmax_after_topk', 'softmaxAfterTopk'], ['sigmoid', 'sigmoid'], ['sqrt_softplus', 'sqrtSoftplus'], ['sparsemixer', 'sparsemixer'],
  ] as Array<[string, tf.MoeTopkScoring]>) {
    it(`take the scoring ${name}`, async () => {
      const inputs = {router_logits: random(T, E)};
      const output = execute('MoeTopK', inputs, {topk: int(K), scoring: string(name), renormalize: bool(false)});
      await expectSame([output], [tf.moeTopk(inputs.router_logits, K, {scoring: value, renormalize: false}).topkWeights], name);
    });
  }

  it('may have the attrs of TensorFlow itself', async () => {
    const inputs = tokens();
    const output = execute('MoePermute', inputs, {
      num_experts: int(E), T: {type: 'DT_FLOAT'}, _output_shapes: {list: {shape: []}},
    });
    await expectSame([output], [tf.moePermute(inputs.hidden_states, inputs.topk_ids, E).permutedHiddenStates], 'rows');
  });

  const wrong: Array<[name: string, op: string, inputs: () => tf.NamedTensorMap, attr: Attrs, message: string]> = [
    ['an unknown attr', 'MoePermute', tokens, {num_expert: int(E)},
      "unknown attr 'num_expert'. The attrs are num_experts, num_local_experts, align_block_size, fill_invalid_expert, " +
      'has_a1q_scale, has_expert_map.'],
    ['an attr of an op without any', 'MoeSum', () => ({x: random(T, K, H)}), {axis: int(1)},
      "unknown attr 'axis'. The op has no attrs."],
    ['a missing attr', 'MoePermute', tokens, {}, 'attr num_experts must be an integer, but is not given.'],
    ['a fraction for an integer', 'MoePermute', tokens, {num_experts: float(2.5)},
      'attr num_experts must be an integer, but is 2.5.'],
    ['a string for an integer', 'MoePermute', tokens, {num_experts: string('four')},
      "attr num_experts must be an integer, but is the string 'four'."],
    ['an integer for a boolean', 'MoePermute', tokens, {num_experts: int(E), has_expert_map: int(1)},
      'attr has_expert_map must be a boolean, but is 1.'],
    ['a boolean for a number', 'MoeTopK', () => ({x: random(T, E)}), {topk: int(1), routed_scaling_factor: bool(true)},
      'attr routed_scaling_factor must be a number, but is true.'],
    ['an attr that tfjs does not decode', 'MoePermute', tokens, {num_experts: {}},
      'attr num_experts must be an integer, but is of a type that tfjs does not decode.'],
    ['a string in camelCase, lower-cased by tfjs', 'MoeTopK', () => ({x: random(T, E)}),
      {topk: int(1), scoring: string('softmaxAfterTopk')},
      "attr scoring must be one of softmax, softmax_after_topk, sigmoid, sqrt_softplus, sparsemixer, but is the string 'softmaxaftertopk'."],
    ['too few inputs', 'MoePermute', () => ({x: random(T, H)}), {num_experts: int(E)},
      'the inputs must be hidden_states, topk_ids (2), but there are 1; a1q_scale needs attr has_a1q_scale; expert_map ' +
      'needs attr has_expert_map.'],
    ['an optional input without its attr', 'MoePermute', () => ({...tokens(), map: map()}), {num_experts: int(E)},
      'the inputs must be hidden_states, topk_ids (2), but there are 3; a1q_scale needs attr has_a1q_scale; expert_map ' +
      'needs attr has_expert_map.'],
    ['an attr without its optional input', 'MoePermute', tokens, {num_experts: int(E), has_expert_map: bool(true)},
      'the inputs must be hidden_states, topk_ids, expert_map (3), but there are 2; a1q_scale needs attr has_a1q_scale.'],
    ['an input that the op refuses', 'MoePermute', () => ({x: random(T, H), ids: random(T, K)}), {num_experts: int(E)},
      "Argument 'topkIds' passed to 'moePermute' must be int32 tensor, but got float32 tensor"],
    ['a number that the op refuses', 'MoePermute', tokens, {num_experts: int(E), align_block_size: int(0)},
      'Error in moePermute: alignBlockSize must be a positive integer, but is 0.'],
  ];
  for (const [name, op, inputs, attr, message] of wrong) {
    it(`refuse ${name}, and leave nothing`, () => {
      const given = inputs();
      const before = tf.memory().numTensors;
      expect(() => execute(op, given, attr)).toThrowError(`Error in node 'moe' (${op}): ${message}`);
      expect(tf.memory().numTensors).toBe(before);
    });
  }

  it('refuse an input that is no output of its node', () => {
    const inputs = tokens();
    const model = modelOf(inputs, [
      {name: 'permuted', op: 'MoePermute', input: ['hidden_states', 'topk_ids'], attr: {num_experts: int(E)}},
      {name: 'sum', op: 'MoeSum', input: ['permuted:5']},
    ]);
    expect(() => model.predict(inputs)).toThrowError(
      "Error in node 'sum' (MoeSum): input x is an output that its node does not have.");
  });

  it('keep the error of the op as the cause of their error', () => {
    const cause = jasmine.objectContaining({message: 'Error in moeSum: x must be rank 3 [T, K, H], but got rank 2 [3,8]. Reshape it to [-1, K, H] first.'});
    expect(() => execute('MoeSum', {x: random(T, H)})).toThrow(jasmine.objectContaining({cause}));
  });
});

describe('registerMoeGraphOps', () => {
  const names = ['MoePermute', 'MoeUnpermute', 'MoeAlignBlockSize', 'MoeTopK', 'MoeGroupedMatMul', 'FusedExperts', 'FusedMoe', 'MoeSum'];
  const model = () => {
    const inputs = {x: tf.tensor3d([[[1, 2], [3, 4]]])};
    return modelOf(inputs, [nodeOf(inputs, {op: 'MoeSum'})]);
  };
  const sum = async () => (model().predict(tf.tensor3d([[[1, 2], [3, 4]]])) as tf.Tensor).array();

  beforeEach(() => tf.setBackend('cpu'));
  afterEach(() => registerMoeGraphOps());

  it('registers ops for tf.loadGraphModel, and none before it is called', async () => {
    names.forEach((name) => deregisterOp(name));
    await expectAsync(sum()).toBeRejectedWithError(/Unknown op 'MoeSum'/);
    registerMoeGraphOps();
    expect(await sum()).toEqual([[4, 6]]);
    names.forEach((name) => deregisterOp(name));
    tf.registerMoeGraphOps();
    expect(await sum()).toEqual([[4, 6]]);
  });

  it('registers every op with the tf that it is given', () => {
    for (const register of [registerMoeGraphOps, tf.registerMoeGraphOps]) {
      const registerOp = jasmine.createSpy('registerOp');
      register({registerOp});
      expect(registerOp.calls.allArgs().map(([name]) => name)).toEqual(names);
    }
    names.forEach((name) => deregisterOp(name));
    registerMoeGraphOps(tf);
    expect(() => model()).not.toThrow();
  });

  it('changes nothing a second time', async () => {
    registerMoeGraphOps();
    const loaded = model();
    registerMoeGraphOps(null);
    const output = loaded.predict(tf.tensor3d([[[1, 2], [3, 4]]])) as tf.Tensor;
    expect(await output.array()).toEqual([[4, 6]]);
  });

  it('says which tf it needs', () => {
    for (const register of [registerMoeGraphOps, tf.registerMoeGraphOps]) {
      expect(() => register({} as typeof tf)).toThrowError(
        'Error in registerMoeGraphOps: tf must be @tensorflow/tfjs or @tensorflow/tfjs-converter, but has no registerOp.');
    }
  });
});
