/** The results of the layer, and the arguments that it refuses. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {describeValue} from '../../src/arguments/checks';
import * as tf from '../../src/tf';
import {expectFloats, expectInts, expectWithin} from '../support/expect';
import {type LayerArgs, layerOf, randomTensor, valueOf, weightsOf} from '../support/layers';

const sizes = {numExperts: 4, intermediateSize: 3};
const H = 5;
const shape = [2, 3, H];
const bound = (_: number, wanted: number) => 1e-5 * Math.abs(wanted) + 1e-5;

/** The equivalent options of fusedMoe. */
function fusedMoeOf(args: LayerArgs, x: tf.Tensor2D, weights: Record<string, tf.Tensor>): tf.Tensor {
  const logits = tf.matMul(x, weights.router_kernel as tf.Tensor2D);
  const {topk, scoring, renormalize, numExpertGroups, topkGroups, routedScalingFactor, activation, gated, swigluAlpha, swigluLimit, applyRouterWeightOnInput} = args;
  return tf.fusedMoe(x, weights.w1, weights.w2, weights.router_bias == null ? logits : tf.add(logits, weights.router_bias), topk ?? 2, {
    scoring, renormalize, numExpertGroups, topkGroups, routedScalingFactor, activation, gated, swigluAlpha, swigluLimit, applyRouterWeightOnInput,
    gateUp: 'concatenated',
    scoreCorrectionBias: weights.score_correction_bias,
    w1Bias: weights.w1_bias,
    w2Bias: weights.w2_bias,
    sharedExperts: weights.shared_w1 && {w1: weights.shared_w1, w2: weights.shared_w2, gate: weights.shared_gate},
  });
}

/** silu(x . gate) * (x . up) . w2, with weights [out, in]. */
function sharedExpert(x: tf.Tensor2D, w1: tf.Tensor, w2: tf.Tensor): tf.Tensor {
  const [gate, up] = tf.split(tf.matMul(x, w1 as tf.Tensor2D, false, true), 2, 1);
  return tf.matMul(tf.mul(tf.mul(gate, tf.sigmoid(gate)), up) as tf.Tensor2D, w2 as tf.Tensor2D, false, true);
}

const cases: Record<string, Partial<LayerArgs>> = {
  'its defaults': {},
  'biases, groups, a bias for the choice, scaled weights': {useBias: true, useRouterBias: true, scoring: 'sigmoid', numExpertGroups: 2, topkGroups: 1, useScoreCorrectionBias: true, routedScalingFactor: 2.5},
};
/** The backends that compile no kernels. */
const host = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu' || backendName === 'wasm'};
const hostCases: Record<string, Partial<LayerArgs>> = {
  'shared experts without gates, of another width': {gated: false, activation: 'relu2', numSharedExperts: 1, sharedIntermediateSize: 7},
  'ReLU without gates': {useBias: true, activation: 'relu', gated: false},
  'one expert, softmax over the chosen': {topk: 1, scoring: 'softmaxAfterTopk', activation: 'geluTanh'},
  'three experts, weights as they are': {topk: 3, renormalize: false, activation: 'swigluOai', scoring: 'sqrtSoftplus'},
  'router weights on the input': {applyRouterWeightOnInput: true, useBias: true, scoring: 'sigmoid', renormalize: false, topk: 3},
  'a clamped SiLU': {activation: 'silu', swigluLimit: 0.25, numSharedExperts: 1},
  "swigluOai of one's own": {useBias: true, activation: 'swigluOai', swigluAlpha: -0.5, swigluLimit: 0.125},
};

async function expectFusedMoe(args: Partial<LayerArgs>): Promise<void> {
  const layer = layerOf({...sizes, ...args}, H);
  const input = randomTensor(shape, 9);
  const output = layer.apply(input) as tf.Tensor;
  expect(output.shape).toEqual(shape);
  const wanted = fusedMoeOf({...sizes, ...args}, input.reshape([6, H]), weightsOf(layer));
  await expectWithin(output, (await wanted.data()) as Float32Array, bound, 'output');
}

describeWithFlags('mixtureOfExperts, every activation', host, () => {
  for (const [name, args] of Object.entries(hostCases)) {
    it(`is fusedMoe of its weights: ${name}`, () => expectFusedMoe(args));
  }
});

describeWithFlags('mixtureOfExperts', ALL_ENVS, () => {
  for (const [name, args] of Object.entries(cases)) {
    it(`is fusedMoe of its weights: ${name}`, () => expectFusedMoe(args));
  }

  const trained: Record<string, Partial<LayerArgs>> = {
    'router weights on the input': {topk: 1, scoring: 'sigmoid', applyRouterWeightOnInput: true, numSharedExperts: 1},
    'shared experts without gates': {gated: false, activation: 'relu2', numSharedExperts: 1, sharedIntermediateSize: 7},
  };
  for (const [name, args] of Object.entries(trained)) {
    it(`has the gradients of fusedMoe: ${name}`, async () => {
      const layer = layerOf({...sizes, ...args}, H);
      const x = tf.variable(randomTensor([6, H], 9)) as tf.Variable<tf.Rank.R2>;
      const weights = weightsOf(layer);
      const dy = randomTensor([6, H], 8);
      const gradientsOf = (output: () => tf.Tensor) =>
        tf.variableGrads(() => tf.sum<tf.Scalar>(tf.mul(dy, output())), [x, ...(Object.values(weights) as tf.Variable[])]).grads;
      const given = gradientsOf(() => layer.apply(x) as tf.Tensor);
      const wanted = gradientsOf(() => fusedMoeOf({...sizes, ...args}, x, weights));
      for (const [weight, gradient] of Object.entries(wanted)) {
        await expectWithin(given[weight], (await gradient.data()) as Float32Array, bound, weight);
      }
    });
  }

  for (const sharedExpertGate of [false, true]) {
    it(`adds shared experts${sharedExpertGate ? ' times their gate' : ''}`, async () => {
      const layer = layerOf({...sizes, numSharedExperts: 2, sharedExpertGate}, H);
      const {shared_w1: w1, shared_w2: w2, shared_gate: gate, ...routed} = weightsOf(layer);
      expect(w1.shape).toEqual([12, H]);
      const input = randomTensor(shape, 9);
      const x: tf.Tensor2D = input.reshape([6, H]);
      const shared = sharedExpert(x, w1, w2);
      const gated = sharedExpertGate ? tf.mul(shared, tf.sigmoid(tf.matMul(x, gate as tf.Tensor2D))) : shared;
      const wanted = tf.add(fusedMoeOf(sizes, x, routed), gated);
      await expectWithin(layer.apply(input) as tf.Tensor, (await wanted.data()) as Float32Array, bound, 'output');
    });
  }

  it('takes any rank from 2 on, and int32', async () => {
    const layer = layerOf(sizes, H);
    const x = tf.tensor2d([[1, -2, 0, 3, 1], [0, 2, 1, -1, 2]]);
    const wanted = (await (layer.apply(x) as tf.Tensor).data()) as Float32Array;
    const input = tf.cast(tf.reshape(x, [1, 2, 1, H]), 'int32');
    const output = layer.apply(input) as tf.Tensor;
    expect(output.shape).toEqual([1, 2, 1, H]);
    await expectFloats(output, wanted, 'output');
    expect(() => layer.apply(tf.ones([H]))).toThrowError(/expected min_ndim=2, found ndim=1/);
    expect(() => layer.apply(tf.ones([2, H + 1]))).toThrowError(/axis -1 of input shape to have value 5/);
  });

  it('gives masked tokens no expert and the output 0, whatever their values are', async () => {
    const layer = layerOf({...sizes, topk: 1, numSharedExperts: 1}, H);
    const input = randomTensor(shape, 9);
    const mask = tf.tensor2d([[1, 0, 1], [0, 1, 1]], [2, 3], 'bool');
    const withGarbage = tf.where(tf.expandDims(mask, 2), input, tf.fill(shape, NaN));
    const output = layer.apply(withGarbage, {mask}) as tf.Tensor;
    const wanted = tf.where(tf.expandDims(mask, 2), layer.apply(input) as tf.Tensor, tf.zeros(shape));
    await expectWithin(output, (await wanted.data()) as Float32Array, bound, 'output');
    const again = layer.apply(withGarbage, {mask}) as tf.Tensor;
    await expectFloats(tf.gatherND(again, [[0, 1, 0], [1, 0, 4]]), [0, 0], 'masked');
    expect(await valueOf(tf.sum(layer.expertLoad()))).toBe(4);
    const gradient = tf.grad((x: tf.Tensor) => tf.sum(layer.apply(x, {mask}) as tf.Tensor))(withGarbage);
    expect((await gradient.data()).every(Number.isFinite)).toBeTrue();
  });

  it('has the load of its last batch, its entropy, and the dropped share', async () => {
    const layer = layerOf({numExperts: 4, intermediateSize: 3, topk: 1}, 4);
    const [router, ...others] = layer.getWeights();
    layer.setWeights([tf.eye(4, 4).reshape(router.shape), ...others]);
    const batch = (experts: number[]) => tf.oneHot(tf.tensor1d(experts, 'int32'), 4).toFloat();
    layer.apply(batch([0, 1, 2, 3]));
    expect(await valueOf(layer.expertLoadEntropy())).toBeCloseTo(Math.log(4), 5);
    layer.apply(batch([3, 0, 3, 3, 3, 0, 3, 3]));
    await expectInts(layer.expertLoad(), [2, 0, 0, 6], 'load');
    expect(await valueOf(layer.expertLoadEntropy())).toBeCloseTo(-0.25 * Math.log(0.25) - 0.75 * Math.log(0.75), 5);
    expect(await valueOf(layer.droppedShare())).toBe(0);
  });

  it('reads nothing back', async () => {
    const layer = layerOf({...sizes, capacityFactor: 0.5, scoreCorrectionBiasUpdateRate: 0.1, routerJitter: 0.1, numSharedExperts: 1}, H);
    const input = randomTensor(shape, 9);
    const reads = [spyOn(tf.backend(), 'read').and.callThrough(), spyOn(tf.backend(), 'readSync').and.callThrough()];
    tf.variableGrads(() => tf.add(tf.sum(layer.apply(input, {training: true}) as tf.Tensor), layer.calculateLosses()[0]) as tf.Scalar);
    const results = [layer.expertLoad(), layer.expertLoadEntropy(), layer.droppedShare()];
    // The kernels of cpu and wasm read their own tensors.
    if (tf.getBackend() === 'webgl' || tf.getBackend() === 'webgpu') {
      reads.forEach((read) => expect(read).not.toHaveBeenCalled());
    }
    expect((await Promise.all(results.map((result) => result.data()))).length).toBe(3);
  });
});

describeWithFlags('the weights of mixtureOfExperts', host, () => {
  it('has weights of fixed names, in a fixed order', () => {
    const all = layerOf({...sizes, useBias: true, useRouterBias: true, sharedIntermediateSize: 7, sharedExpertGate: true, scoreCorrectionBiasUpdateRate: 0.1}, H);
    const named = all.weights.map(({originalName, shape: given}) => `${originalName.split('/').pop()} ${given}`);
    expect(named).toEqual([
      'router_kernel 5,4', 'router_bias 4', 'w1 4,6,5', 'w1_bias 4,6', 'w2 4,5,3', 'w2_bias 4,5',
      'shared_w1 14,5', 'shared_w2 5,7', 'shared_gate 5,1', 'score_correction_bias 4',
    ]);
    expect(all.trainableWeights.length).toBe(9);
    all.trainable = false;
    expect(all.trainableWeights).toEqual([]);
    expect(all.weights.map(({originalName, shape: given}) => `${originalName.split('/').pop()} ${given}`)).toEqual(named);
    const [, w1] = layerOf({...sizes, gated: false}, H).weights;
    expect(w1.shape).toEqual([4, 3, 5]);
  });

  it('draws the weights of each expert as a layer of its size', async () => {
    const layer = tf.layers.mixtureOfExperts({numExperts: 6, intermediateSize: 16, kernelInitializer: 'glorot_normal', biasInitializer: 'ones', useBias: true});
    layer.build([null, 40]);
    const {w1, w1_bias: bias} = weightsOf(layer);
    const deviation = async (values: tf.Tensor) => Math.sqrt(await valueOf(tf.moments(values).variance));
    const wanted = await deviation(tf.initializers.glorotNormal({seed: 1}).apply([40, 32]));
    const given = await deviation(w1);
    expect(Math.abs(given / wanted - 1)).withContext(`${given}, wanted ${wanted}`).toBeLessThan(0.1);
    await expectFloats(bias, new Array<number>(6 * 32).fill(1), 'bias');
  });

  it('draws by a seed, and no two experts alike', async () => {
    const build = (seed: number) => {
      const layer = tf.layers.mixtureOfExperts({...sizes, kernelInitializer: tf.initializers.randomNormal({seed})});
      layer.build([null, H]);
      return weightsOf(layer);
    };
    const [first, second, next] = [build(5), build(5), build(6)];
    await expectFloats(first.w1, (await second.w1.data()) as Float32Array, 'w1');
    const [a, b] = tf.unstack(first.w1);
    expect(await valueOf(tf.min(tf.abs(tf.sub(a, b))))).toBeGreaterThan(0);
    for (const expert of tf.unstack(next.w1)) {
      expect(await valueOf(tf.min(tf.abs(tf.sub(first.w1, expert))))).withContext('of the next seed').toBeGreaterThan(0);
    }
    const asDense = tf.transpose(tf.initializers.randomNormal({seed: 5}).apply([H, 6]));
    await expectFloats(a, (await asDense.data()) as Float32Array, 'the first expert');
  });

  it('regularizes, and constrains each unit of each expert', async () => {
    const args = {...sizes, loadBalancingLossWeight: 0, kernelRegularizer: tf.regularizers.l2({l2: 0.5}), kernelConstraint: 'unitNorm'} as const;
    const layer = layerOf(args, H);
    const {w1, w2, router_kernel: router} = weightsOf(layer);
    const norms = tf.norm(w1, 'euclidean', 2);
    await expectWithin(norms, new Array<number>(24).fill(1), () => 1e-4, 'norms');
    const penalties = await Promise.all(layer.calculateLosses().map(valueOf));
    const wanted = await Promise.all([router, w1, w2].map(async (w) => 0.5 * (await valueOf(tf.sum(tf.square(w))))));
    penalties.forEach((penalty, i) => expect(penalty).toBeCloseTo(wanted[i], 3));
    expect(penalties.length).toBe(3);
  });
});

describeWithFlags('mixtureOfExperts refuses', host, () => {
  const make = (args: object) => () => tf.layers.mixtureOfExperts({...sizes, ...args} as LayerArgs);
  const refused: Array<[args: object, message: string]> = [
    [{numExperts: 0}, 'numExperts must be a positive integer, but is 0.'],
    [{intermediateSize: undefined}, 'intermediateSize must be a positive integer, but is undefined.'],
    [{topk: 5}, 'topk must be at most the number of experts (E = 4), but is 5.'],
    [{scoring: 'relu'}, "scoring must be one of softmax, softmaxAfterTopk, sigmoid, sqrtSoftplus, sparsemixer, but is 'relu'."],
    [{numExpertGroups: 2}, 'numExpertGroups and topkGroups must come together, but topkGroups is not given.'],
    [{activation: 'tanh'}, "activation must be one of linear, relu, relu2, silu, swish, gelu, geluTanh, geluNew, swigluOai, but is 'tanh'."],
    [{activation: 'swigluOai', gated: false}, "activation 'swigluOai' needs gated experts: pass gated: true."],
    [{useBias: 1}, 'useBias must be a boolean, but is 1.'],
    [{numSharedExperts: -1}, 'numSharedExperts must be an integer of at least 0, but is -1.'],
    [{numSharedExperts: 1, sharedIntermediateSize: 0}, 'sharedIntermediateSize must be positive for numSharedExperts = 1, but is 0.'],
    [{sharedExpertGate: true}, 'sharedExpertGate needs shared experts: numSharedExperts or sharedIntermediateSize must be positive.'],
    [{routerZLossWeight: -1}, 'routerZLossWeight must be a number of at least 0 that fits float32, but is -1.'],
    [{scoring: 'softmaxAfterTopk', scoreCorrectionBiasUpdateRate: 1}, "useScoreCorrectionBias and scoreCorrectionBiasUpdateRate must not be given with scoring 'softmaxAfterTopk', which has no scores before the choice of experts."],
    [{useScoreCorrectionBias: false, scoreCorrectionBiasUpdateRate: 1}, 'scoreCorrectionBiasUpdateRate must be 0 without the bias (useScoreCorrectionBias: false), but is 1.'],
    [{routerJitter: 1}, 'routerJitter must be less than 1, but is 1.'],
    [{seed: 'a'}, "seed must be a number, but is the string 'a'."],
    [{capacityFactor: 0}, 'capacityFactor must be a positive number, but is 0.'],
    [{numSharedExperts: 1e300}, 'numSharedExperts must be at most 2147483647, but is 1e+300.'],
    [{routerZLossWeight: 1e300}, 'routerZLossWeight must be a number of at least 0 that fits float32, but is 1e+300.'],
    [{activation: 'swigluOai', swigluLimit: 0}, 'swigluLimit must be a positive number, but is 0.'],
    [{activation: 'swigluOai', swigluAlpha: NaN}, 'swigluAlpha must be a finite number, but is NaN.'],
    [{loadBalancingLossPer: 'token'}, "loadBalancingLossPer must be 'batch' or 'sequence', but is 'token'."],
    [{dropPolicy: 'random'}, "dropPolicy must be 'probability' or 'position', but is 'random'."],
  ];
  for (const [args, message] of refused) {
    it(JSON.stringify(args), () => {
      const {numTensors} = tf.memory();
      expect(make(args)).toThrowError(`Error in mixtureOfExperts: ${message}`);
      expect(tf.memory().numTensors).toBe(numTensors);
    });
  }

  it('an unknown argument, and lists the known ones', () => {
    expect(make({units: 3})).toThrowError(/^Error in mixtureOfExperts: unknown option 'units'\. The options are numExperts, .*dropPolicy, .*kernelInitializer, .*inputShape, .*customObjects\.$/);
  });

  it('an unknown initializer, regularizer or constraint', () => {
    for (const [argName, kind] of [['kernelInitializer', 'initializer'], ['routerInitializer', 'initializer'], ['biasRegularizer', 'regularizer'], ['kernelConstraint', 'constraint']]) {
      expect(make({[argName]: 'best'})).toThrowError(
        `Error in mixtureOfExperts: ${argName} must be a name, a config or an object of this copy of tf.layers, but is the string 'best'. tf.layers says: Unknown ${kind}: best.`,
      );
    }
  });

  const isInteger = (value: unknown) => Number.isInteger(value) && Number(value) > 0;
  const isNumber = (value: unknown) => typeof value === 'number' && Number.isFinite(value);
  /** Which of the strange values each kind of argument accepts. */
  const taken: Array<[argNames: string, isTaken: (value: unknown) => boolean]> = [
    ['numExperts intermediateSize topk', isInteger],
    ['numSharedExperts sharedIntermediateSize', isInteger],
    ['renormalize gated useBias useRouterBias sharedExpertGate useScoreCorrectionBias trainable', (value) => typeof value === 'boolean'],
    ['routedScalingFactor swigluAlpha', isNumber],
    ['swigluLimit loadBalancingLossWeight routerZLossWeight scoreCorrectionBiasUpdateRate capacityFactor', (value) => isNumber(value) && Number(value) > 0],
    ['routerJitter', (value) => isNumber(value) && Number(value) > 0 && Number(value) < 1],
    ['seed', isNumber],
    ['scoring activation dropPolicy loadBalancingLossPer kernelInitializer routerInitializer biasInitializer kernelRegularizer biasRegularizer kernelConstraint biasConstraint', () => false],
    ['name', (value) => typeof value === 'string'],
    ['inputShape batchInputShape', (value) => Array.isArray(value) && value.every(isInteger)],
  ];
  const thrower = {toString: () => { throw new Error('text'); }};
  const strange: unknown[] = [
    '2', '', 'constructor', '__proto__', 'x'.repeat(1e5), NaN, Infinity, -1.5, 2.5, false, [], [2], ['2'], {}, {value: 2}, Object.create(null),
    JSON.parse('{"__proto__": {"className": "Zeros", "config": {}}}'), thrower, () => 2, Symbol('2'), 2n, new Number(2), new Date(0), new Map(), new Int32Array(2),
  ];
  it('values of every other type, in a short sentence that names the argument', () => {
    const values = [...strange, tf.scalar(2)];
    const {numTensors} = tf.memory();
    for (const [argNames, isTaken] of taken) {
      for (const argName of argNames.split(' ')) {
        for (const value of values.filter((given) => !isTaken(given))) {
          let message = 'nothing';
          try {
            make({[argName]: value})();
          } catch (error) {
            message = (error as Error).message;
          }
          const start = `Error in mixtureOfExperts: ${argName} must be`;
          const isSentence = message.startsWith(start) && /, but is [^\n]*\.$/.test(message) && message.length < 600;
          expect(isSentence).withContext(`${argName} of ${describeValue(value)}: ${message.slice(0, 600)}`).toBeTrue();
        }
      }
    }
    expect(tf.memory().numTensors).toBe(numTensors);
  });

  it('an input that is no tensor', () => {
    for (const [given, described] of [[null, 'null'], [[[1, 2]], 'the array [1, 2]'], ['x', "the string 'x'"]] as const) {
      expect(() => make({})().apply(given as unknown as tf.Tensor)).toThrowError(
        `Error in mixtureOfExperts: the input must be a Tensor or a SymbolicTensor, but is ${described}.`,
      );
    }
  });

  it('an input whose last axis is unknown, and questions before a batch', () => {
    const layer = make({name: 'mixture'})();
    expect(() => layer.build([2, null])).toThrowError('Error in mixtureOfExperts: the input must have a last axis (H) of known size, but is [2,null].');
    expect(() => layer.build([2, '5' as unknown as number])).toThrowError(/but is \[2,"5"\]\.$/);
    expect(() => layer.expertLoad()).toThrowError("Error in mixtureOfExperts: expertLoad() needs a batch, but layer 'mixture' has had none yet.");
    expect(() => layer.droppedShare()).toThrowError(/droppedShare\(\) needs a batch/);
  });
});
