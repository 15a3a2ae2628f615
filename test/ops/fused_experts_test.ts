import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as fc from 'fast-check';
import * as tf from '../../src/tf';
import {convertExperts} from '../../src/arguments/experts';
import {runExperts} from '../../src/ops/run_experts';
import {countLaunches} from '../support/webgpu_launches';
import {expectFloats, expectWithin} from '../support/expect';
import {caseOf, type Sizes, tensors} from '../support/fused_cases';
import {type FusedCase, naiveFusedExperts, type NaiveFusedOptions} from '../naive/fused_experts';

async function expectRight(sizes: Sizes, options: NaiveFusedOptions & {withBias?: boolean} = {}): Promise<void> {
  const {withBias, ...given} = options;
  const fused = caseOf(sizes, given);
  const biases = withBias ? {w1Bias: fused.w1Bias, w2Bias: fused.w2Bias} : {};
  const {x, ids, topkWeights, w1, w2} = tensors(fused, sizes);
  const out = tf.fusedExperts(x, w1, w2, topkWeights, ids, {...given, ...biases});
  expect(out.shape).toEqual([sizes.T, sizes.H]);
  const {values, magnitudes} = naiveFusedExperts({...fused, ...{w1Bias: undefined, w2Bias: undefined}, ...biases}, given);
  await expectWithin(out, values, (i) => 2e-5 * magnitudes[i] + 1e-5, JSON.stringify({sizes, options}));
}

const webgpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'webgpu'};

describeWithFlags('fusedExperts', ALL_ENVS, (env) => {
  for (const sizes of [
    {T: 1, K: 1, E: 1, H: 1, I: 1},
    {T: 1, K: 2, E: 8, H: 16, I: 8},
    {T: 7, K: 3, E: 5, H: 7, I: 3},
    {T: 20, K: 4, E: 4, H: 12, I: 8},
    {T: 5, K: 6, E: 60, H: 4, I: 5},
  ]) {
    it(`is the sum over slots: ${JSON.stringify(sizes)}`, () => expectRight(sizes));
  }

  it('takes every option', async () => {
    const sizes = {T: 6, K: 2, E: 3, H: 8, I: 4};
    for (const options of [
      {withBias: true},
      {gated: false, activation: 'gelu' as const, withBias: true},
      {gateUp: 'interleaved' as const, activation: 'swigluOai' as const, withBias: true, swigluLimit: 0.5},
      {weightFormat: 'inOut' as const, activation: 'geluTanh' as const},
      {applyRouterWeightOnInput: true, withBias: true},
    ]) {
      await expectRight(sizes, options);
    }
  });

  it('is right for any sizes', () =>
    fc.assert(
      fc.asyncProperty(
        fc.record({T: fc.integer({min: 1, max: 9}), K: fc.integer({min: 1, max: 4}), E: fc.integer({min: 1, max: 9}), H: fc.integer({min: 1, max: 9}), I: fc.integer({min: 1, max: 6})}),
        fc.boolean(),
        (sizes, gated) => expectRight(sizes, {gated}),
      ),
      {numRuns: env.backendName.startsWith('web') ? 5 : 25},
    ));

  it('gives no tokens for no tokens', async () => {
    const {w1, w2} = tensors(caseOf({T: 1, K: 1, E: 2, H: 3, I: 2}), {H: 3, K: 1});
    const out = tf.fusedExperts(tf.zeros([0, 3]), w1, w2, tf.zeros([0, 2]), tf.zeros([0, 2], 'int32'));
    expect(out.shape).toEqual([0, 3]);
    await expectFloats(out, [], 'out');
  });

  it('gives 0 to a token whose experts are not local, and lets none of its NaN through', async () => {
    const sizes = {T: 3, K: 2, E: 2, H: 4, I: 2};
    const {w1, w2} = tensors(caseOf(sizes), sizes);
    const x = tf.tensor2d([[1, 1, 1, 1], [NaN, NaN, NaN, NaN], [0, 0, 0, 0]]);
    const out = await tf.fusedExperts(x, w1, w2, [[1, 1], [NaN, 1], [1, 1]], [[0, 1], [-1, 2], [0, 1]]).array();
    expect(out[0].every(Number.isFinite)).toBeTrue();
    expect(out[1]).toEqual([0, 0, 0, 0]);
    expect(out[2]).toEqual([0, 0, 0, 0]);
  });

  for (const applyRouterWeightOnInput of [false, true]) {
    it(`lets no NaN of a slot whose expert is not local into gradients, applyRouterWeightOnInput: ${applyRouterWeightOnInput}`, async () => {
      const [w1, w2] = [tf.ones([1, 4, 2]), tf.ones([1, 2, 2])];
      // Slots that are not local: ids of no expert, and expert 0 by its map.
      const topkIds = tf.tensor2d([[1, 0], [0, -1], [2, 1]], [3, 2], 'int32');
      const f = (rows: tf.Tensor, weights: tf.Tensor) =>
        tf.sum(tf.fusedExperts(rows, w1, w2, weights, topkIds, {expertMap: [-1, 0], activation: 'linear', applyRouterWeightOnInput}));
      const {value, grads} = tf.valueAndGrads((rows: tf.Tensor, weights: tf.Tensor) => f(rows, weights) as tf.Scalar)([
        tf.tensor2d([[1, 2], [NaN, Infinity], [1, 0]]),
        tf.tensor2d([[1, NaN], [NaN, Infinity], [NaN, 1]]),
      ]);
      // Gate and up are both the sum of x (times w), so 2 columns of 2 (gate * up), of tokens 0 and 2.
      await expectFloats(value, [4 * 9 + 4 * 1], 'value');
      await expectFloats(grads[0], [24, 24, 0, 0, 8, 8], 'gradient to hiddenStates');
      await expectFloats(grads[1], applyRouterWeightOnInput ? [72, 0, 0, 0, 0, 8] : [36, 0, 0, 0, 0, 4], 'gradient to topkWeights');
    });
  }

  it('of all shards adds up to the whole', async () => {
    const sizes = {T: 9, K: 3, E: 7, H: 8, I: 4};
    const fused = caseOf(sizes);
    const {x, ids, topkWeights, w1, w2} = tensors(fused, sizes);
    const shards = [[0, 1, 2], [3, 4], [6, 5]].map((experts) => {
      const expertMap = Array.from({length: 7}, (_, e) => experts.indexOf(e));
      const here = (weights: number[][][]) => tf.tensor3d(experts.map((e) => weights[e]));
      return tf.fusedExperts(x, here(fused.w1), here(fused.w2), topkWeights, ids, {expertMap});
    });
    const whole = await tf.fusedExperts(x, w1, w2, topkWeights, ids).data();
    const {magnitudes} = naiveFusedExperts({...fused, w1Bias: undefined, w2Bias: undefined});
    await expectWithin(tf.addN(shards), Float32Array.from(whole), (i) => 1e-5 * magnitudes[i] + 1e-6, 'sum of shards');
  });

  it('is the same in chunks of tokens', async () => {
    const sizes = {T: 11, K: 2, E: 4, H: 8, I: 4};
    const {x, ids, topkWeights, w1, w2} = tensors(caseOf(sizes), sizes);
    const inChunks = (maxRowsBytes: number) => tf.tidy(() =>
      runExperts(x, topkWeights, ids, convertExperts(x.shape, w1, w2, {}, 'fusedExperts'), 'fusedExperts', maxRowsBytes));
    const whole = Float32Array.from(await inChunks(2 ** 27).data());
    const bytesPerToken = 4 * sizes.K * sizes.H;
    for (const maxRowsBytes of [1, bytesPerToken, 4 * bytesPerToken + 1]) {
      await expectWithin(inChunks(maxRowsBytes), whole, () => 1e-5, `at most ${maxRowsBytes} bytes`);
    }
  });

  it('has gradients to rows, weights, biases and router weights', async () => {
    const sizes = {T: 3, K: 2, E: 2, H: 4, I: 2};
    const fused = caseOf(sizes);
    const {x, topkWeights, w1, w2} = tensors(fused, sizes);
    const ids = [[0, 1], [1, 0], [1, -1]];
    const dy = tf.tensor2d(fused.x);
    const f = (...[rows, weights, ...experts]: tf.Tensor[]) =>
      tf.sum(tf.mul(tf.fusedExperts(rows, experts[0], experts[1], weights, ids, {w1Bias: experts[2], w2Bias: experts[3]}), dy)) as tf.Scalar;
    const inputs = () => [x, topkWeights, w1, w2, tf.tensor2d(fused.w1Bias), tf.tensor2d(fused.w2Bias)];
    const gradients = tf.grads(f)(inputs());
    // Central differences of the loops in float64.
    const step = 1e-4;
    const loss = (moved: FusedCase) =>
      naiveFusedExperts({...moved, ids, expertMap: undefined}).values.reduce((sum, value, i) => sum + value * fused.x.flat()[i], 0);
    const names = ['x', 'topkWeights', 'w1', 'w2', 'w1Bias', 'w2Bias'] as const;
    for (const [i, name] of names.entries()) {
      const size = gradients[i].size;
      const wanted = Array.from({length: size}, (_, at) => {
        const shifted = (by: number) => {
          const copy = structuredClone(fused) as Required<FusedCase>;
          let left = at;
          const shift = (values: unknown[]): boolean =>
            values.some((value, j) => {
              if (typeof value === 'number') {
                if (left-- === 0) {
                  values[j] = value + by;
                  return true;
                }
                return false;
              }
              return shift(value as unknown[]);
            });
          shift(copy[name]);
          return loss(copy);
        };
        return (shifted(step) - shifted(-step)) / (2 * step);
      });
      await expectWithin(gradients[i], wanted, (_, value) => 1e-4 * Math.max(1, Math.abs(value)), `gradient to ${name}`);
    }
  });

  it('leaves no memory in use', () => {
    const sizes = {T: 4, K: 2, E: 3, H: 4, I: 2};
    const {x, ids, topkWeights, w1, w2} = tensors(caseOf(sizes), sizes);
    const before = tf.memory().numTensors;
    tf.fusedExperts(x, w1, w2, topkWeights, ids).dispose();
    tf.fusedMoe(x, w1, w2, tf.tidy(() => tf.ones([4, 3])), 2).dispose();
    expect(tf.memory().numTensors).toBe(before + 1);
  });

  it('says what does not fit, before any work', () => {
    const sizes = {T: 4, K: 2, E: 3, H: 4, I: 2};
    const {x, ids, topkWeights, w1, w2} = tensors(caseOf(sizes), sizes);
    const before = tf.memory().numTensors;
    const calls: Array<[() => unknown, string]> = [
      [() => tf.fusedExperts(x, tf.ones([3, 4, 5]), w2, topkWeights, ids),
        "Error in fusedExperts: w1 must be [L, 2I, H] with H = 4 for hiddenStates [4,4] and weightFormat 'outIn', but is " +
        "[3,4,5]. It fits weightFormat 'inOut'."],
      [() => tf.fusedExperts(x, w1, tf.ones([3, 4, 3]), topkWeights, ids),
        "Error in fusedExperts: w2 must be [L, H, I] with I = 2 for w1 [3,4,4] and weightFormat 'outIn', but is [3,4,3]."],
      [() => tf.fusedExperts(x, w1, tf.ones([3, 5, 2]), topkWeights, ids),
        'Error in fusedExperts: w2 must have as many outputs as hiddenStates has columns (H = 4), but has 5.'],
      [() => tf.fusedExperts(x, w1, tf.ones([2, 4, 2]), topkWeights, ids),
        'Error in fusedExperts: w2 must have as many experts as w1 (L = 3), but has 2.'],
      [() => tf.fusedExperts(x, w1, w2, tf.ones([4, 3]), ids),
        'Error in fusedExperts: topkWeights must have the shape of topkIds [4,2], but is [4,3].'],
      [() => tf.fusedExperts(x, w1, w2, topkWeights, ids, {w1Bias: tf.ones([3, 2])}),
        'Error in fusedExperts: w1Bias must be [L, 2I] = [3,4] for these weights, but is [3,2].'],
      [() => tf.fusedExperts(x, w1, w2, topkWeights, ids, {expertMap: [0, 1]}),
        'Error in fusedExperts: expertMap must have an entry for each expert, at least as many as are local (L = 3), but has 2.'],
      [() => tf.fusedMoe(x, w1, w2, tf.ones([4, 4]), 2),
        'Error in fusedMoe: routerLogits must have a column for each expert (E = 3, the number of experts of w1), but has 4.'],
      [() => tf.fusedMoe(x, w1, w2, tf.ones([3, 3]), 2),
        'Error in fusedMoe: routerLogits must have the shape of hiddenStates [4,4] except for the last axis, but is [3,3].'],
      [() => tf.fusedMoe(x, w1, w2, tf.ones([4, 3]), 4),
        'Error in fusedMoe: topk must be at most the number of experts (E = 3), but is 4.'],
      [() => tf.fusedMoe(x, w1, w2, tf.ones([4, 3]), 1, {topk: 2} as tf.FusedMoeOptions),
        "Error in fusedMoe: unknown option 'topk'. The options are scoring, renormalize, scoreCorrectionBias, " +
        'numExpertGroups, topkGroups, sparsemixerJitter, routedScalingFactor, activation, gated, gateUp, swigluAlpha, swigluLimit, ' +
        'weightFormat, w1Bias, w2Bias, expertMap, numZeroExperts, applyRouterWeightOnInput, sharedExperts, ' +
        'returnRouting.'],
    ];
    for (const [call, message] of calls) {
      expect(() => tf.tidy(() => void call())).toThrowError(message);
    }
    expect(tf.memory().numTensors).toBe(before);
  });
});

describeWithFlags('fusedMoe', ALL_ENVS, () => {
  it('is moeTopk and fusedExperts, chained too', async () => {
    const sizes = {T: 6, K: 2, E: 4, H: 8, I: 4};
    const {x, w1, w2} = tensors(caseOf(sizes), sizes);
    const logits = tf.tensor2d(caseOf({...sizes, H: 4}, {}, 9).x);
    for (const options of [{}, {scoring: 'sigmoid' as const, routedScalingFactor: 2.5}, {activation: 'relu' as const, gated: true}]) {
      const {scoring, routedScalingFactor, ...rest} = {scoring: undefined, routedScalingFactor: undefined, ...options};
      const {topkWeights, topkIds} = tf.moeTopk(logits, 2, {scoring, routedScalingFactor});
      const wanted = Float32Array.from(await tf.fusedExperts(x, w1, w2, topkWeights, topkIds, rest).data());
      await expectFloats(tf.fusedMoe(x, w1, w2, logits, 2, options), wanted, 'fusedMoe');
      await expectFloats(x.fusedMoe(w1, w2, logits, 2, options), wanted, 'chained');
    }
  });

  it('has a gradient to the router', async () => {
    const sizes = {T: 4, K: 2, E: 3, H: 4, I: 2};
    const {x, w1, w2} = tensors(caseOf(sizes), sizes);
    const logits = tf.tensor2d([[3, 1, -2], [0, 2, 4], [-3, 1, 5], [2, -1, 0.5]]);
    const f = (router: tf.Tensor) => tf.sum(tf.mul(tf.fusedMoe(x, w1, w2, router, 2), x)) as tf.Scalar;
    const gradient = tf.grad(f)(logits);
    const values = Float32Array.from(await logits.data());
    const step = 2 ** -5;
    const differences = await Promise.all(Array.from(values, async (_, i) => {
      const at = async (shift: number) =>
        (await f(tf.tensor2d(values.map((value, j) => (j === i ? value + shift : value)), [4, 3])).data())[0];
      const [above, below] = await Promise.all([at(step), at(-step)]);
      return (above - below) / (2 * step);
    }));
    await expectWithin(gradient, differences, (_, wanted) => 2e-3 * Math.max(1, Math.abs(wanted)), 'gradient');
  });
});

describeWithFlags('fusedMoe on WebGPU', webgpu, () => {
  it('makes few launches', () => {
    const launchesOf = (T: number) => {
      const [w1, w2] = [tf.zeros([4, 8, 4]), tf.zeros([4, 4, 4])];
      const [x, logits] = [tf.zeros([T, 4]), tf.zeros([T, 4])];
      return countLaunches(() => tf.dispose(tf.fusedMoe(x, w1, w2, logits, 2)));
    };
    expect(launchesOf(1)).toBe(3);
    expect(launchesOf(3)).toBe(5);
    expect(launchesOf(5000)).toBe(7);
  });

  it('makes few launches in a gradient to everything', () => {
    const gradientsOf = tf.grads((x: tf.Tensor, w1: tf.Tensor, w2: tf.Tensor, logits: tf.Tensor) => tf.fusedMoe(x, w1, w2, logits, 2));
    const launchesOf = (T: number) => {
      const given = [tf.zeros([T, 4]), tf.zeros([4, 8, 4]), tf.zeros([4, 4, 4]), tf.zeros([T, 4])];
      const dy = tf.zeros([T, 4]);
      return countLaunches(() => tf.dispose(gradientsOf(given, dy)));
    };
    // Forward: choice, sort, rows, w1, activation, w2, merge. Backward: rows of dy, their products with w2, the rest of
    // both gradients to rows and to weights; w2 by rows of dy and activations; x by w1 and a merge; w1 by rows of x; logits.
    expect(launchesOf(33)).toBe(6 + 3 + 3 + 2 + 2 + 1);
  });

  it('takes 160 MiB of weights in parts on a device that binds 128', async () => {
    const {device} = tf.backend() as WebGPUBackend;
    expect(device.limits.maxStorageBufferBindingSize).toBe(2 ** 27);
    // Ten experts of 16 MiB; expert e multiplies by e + 1.
    const [D, C] = [1024, 4096];
    const part = (first: number) => tf.tidy(() =>
      tf.mul(tf.reshape(tf.range(first + 1, first + 6), [5, 1, 1]), tf.fill([5, D, C], 2 ** -12)));
    const weights = [part(0), part(5)];
    const x = tf.ones<tf.Rank.R2>([2, C]);
    const offset = [0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2];
    const out = tf.moeGroupedMatMul(x, weights, offset);
    await expectFloats(out, [...new Array<number>(D).fill(3), ...new Array<number>(D).fill(8)], 'out');
    const error = `Error in moeGroupedMatMul: weights [9,${D},${C}] takes ${9 * D * C * 4} bytes, but this device binds at ` +
      `most ${2 ** 27} in one buffer (maxStorageBufferBindingSize).`;
    const inOne = tf.tensor(new Float32Array(9 * D * C), [9, D, C]);
    expect(() => tf.moeGroupedMatMul(x, inOne, [0, 0, 0, 0, 0, 0, 0, 0, 0, 2])).toThrowError(error);
    tf.dispose(weights);
  });
});

const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};

describeWithFlags('fusedExperts, in chunks', cpu, () => {
  it('keeps to its limit in a gradient, which computes gates and ups again', async () => {
    // A chunk has more slots than one kernel runs without rows.
    const sizes = {T: 80, K: 2, E: 4, H: 4, I: 4};
    const {x, ids, topkWeights, w1, w2} = tensors(caseOf(sizes), sizes);
    const maxRowsBytes = 4 * sizes.K * sizes.H * 42;
    const loss = (rows: tf.Tensor2D) => {
      const experts = convertExperts(rows.shape, w1, w2, {}, 'fusedExperts');
      return tf.sum(runExperts(rows, topkWeights, ids, experts, 'fusedExperts', maxRowsBytes)) as tf.Scalar;
    };
    const largestOf = async (run: () => tf.Tensor) => {
      const {kernels} = await tf.profile(run);
      const rows = kernels.filter(({name}) => /^MoeGroupedMatMul(BackpropActivation)?$/.test(name));
      return Math.max(...rows.flatMap(({outputShapes}) => outputShapes.map((shape) => 4 * shape[0] * shape[1])));
    };
    const numWidened = 4 * sizes.K * 2 * sizes.I;
    expect(await largestOf(() => loss(x))).toBe(maxRowsBytes);
    expect(await largestOf(() => tf.grad((rows: tf.Tensor) => loss(rows as tf.Tensor2D))(x))).toBe(
      Math.floor(maxRowsBytes / numWidened) * numWidened);
  });
});
