/** Gradients of gradients of the ops on experts, with every activation. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {coreExperts, coreSoftmax} from '../naive/core_experts';
import {expectFloats, expectWithin} from '../support/expect';
import {derivative} from '../support/gradient_checks';
import {naiveFusedExperts} from '../naive/fused_experts';
import {naiveGroupedMatMul} from '../naive/grouped_mat_mul';
import {lcg} from '../support/routings';

const ACTIVATIONS = ['linear', 'relu', 'relu2', 'silu', 'gelu', 'geluTanh', 'swigluOai'] as const;
type Activation = (typeof ACTIVATIONS)[number];
const clamps = {swigluAlpha: 1.5, swigluLimit: 1};
const isNear = (_: number, wanted: number) => 1e-4 * Math.max(1, Math.abs(wanted));

type Values = {shape: number[]; values: number[]};
/** Random values of each shape. Sizes are few multiples of 4, so that a GPU compiles few programs. */
function randomOf(shapes: number[][], seed: number): Values[] {
  const next = lcg(seed);
  return shapes.map((shape) => ({
    shape,
    values: Array.from({length: tf.util.sizeFromShape(shape)}, () => Math.fround(2 * next() - 1)),
  }));
}
const tensorOf = ({shape, values}: Values) => tf.tensor(values, shape);

type OfTensors = (...xs: tf.Tensor[]) => tf.Tensor;
/** The gradients to all of xs and to dy of the sum of v * df/dxs. The gradient to dy is the derivative of f along v. */
function secondGradients(f: OfTensors, xs: tf.Tensor[], v: tf.Tensor[], dy: tf.Tensor): tf.Tensor[] {
  const alongV = (...given: tf.Tensor[]) => {
    const first = tf.grads(f)(given.slice(0, -1), given[xs.length]);
    return tf.addN(first.map((gradient, i) => tf.sum(tf.mul(gradient, v[i]))));
  };
  return tf.grads(alongV)([...xs, dy]);
}

/** Compares secondGradients of f with mixed differences of `naive`, the same function in float64. */
async function expectNaiveSecondGradients(
  f: OfTensors,
  naive: (...xs: number[][]) => number[],
  shapes: number[][],
  outShape: number[],
  what: string,
): Promise<void> {
  const [xs, v] = [randomOf(shapes, 5), randomOf(shapes, 6)];
  const [dy] = randomOf([outShape], 7);
  const given = secondGradients(f, xs.map(tensorOf), v.map(tensorOf), tensorOf(dy));
  const step = 1e-3;
  const all = [...xs, dy].map(({values}) => values);
  const loss = (alongV: number, input: number, at: number, shift: number) => {
    const moved = all.map((values, i) =>
      values.map((value, j) => value + (i < v.length ? alongV * v[i].values[j] : 0) + (i === input && j === at ? shift : 0)));
    return naive(...moved.slice(0, -1)).reduce((sum, y, i) => sum + y * moved[xs.length][i], 0);
  };
  for (const [input, values] of all.entries()) {
    const wanted = values.map((_, at) => {
      const difference = (alongV: number) => loss(alongV, input, at, step) - loss(alongV, input, at, -step);
      return (difference(step) - difference(-step)) / (4 * step ** 2);
    });
    await expectWithin(given[input], wanted, isNear, `${what}, by input ${input}`);
  }
}

const expertShapes = [[3, 4], [2, 8, 4], [2, 4, 4], [3, 2], [2, 8], [2, 4]]; // T = 3, E = K = 2, H = I = 4
const ids = [[0, 1], [1, -1], [1, 0]];
/** The values 1, 2, 3, 4 in the shape [1, 2, 2] as [[[1, 2], [3, 4]]], for example. */
const nested = (values: number[], [count, ...rest]: number[]): number[] | number[][] | number[][][] => {
  const size = values.length / count;
  return rest.length === 0
    ? values
    : (Array.from({length: count}, (_, i) => nested(values.slice(i * size, (i + 1) * size), rest)) as number[][][]);
};

describeWithFlags('second gradients of experts', ALL_ENVS, (env) => {
  const isGpu = env.backendName.startsWith('web');

  for (const activation of ACTIVATIONS) {
    it(`of moeGroupedMatMul: ${activation}`, async () => {
      // Rows of no expert at both ends, and an expert of no rows.
      const [offset, numRows, numIn, numColumns] = [[1, 3, 3, 6], 7, 4, 8];
      const shapes = [[numRows, numIn], [3, numColumns, numIn], [3, numColumns]];
      const forms = [
        {activation, gated: true, gateUp: 'concatenated' as const, ...clamps},
        {activation, gated: true, gateUp: 'interleaved' as const, ...clamps},
        // A linear function has no second gradient to its bias.
        ...(activation === 'linear' || activation === 'swigluOai' ? [] : [{activation, gated: false}]),
      ];
      for (const options of forms) {
        await expectNaiveSecondGradients(
          (x, weights, bias) => tf.moeGroupedMatMul(x, weights, offset, {...options, bias}),
          (x, weights, bias) =>
            naiveGroupedMatMul({numRows, numIn, numColumns, offset}, {x, weights, bias}, options).values,
          shapes,
          [numRows, options.gated ? numColumns / 2 : numColumns],
          JSON.stringify(options),
        );
      }
    });
  }

  it('of fusedExperts, to everything', () =>
    expectNaiveSecondGradients(
      (x, w1, w2, weights, w1Bias, w2Bias) => tf.fusedExperts(x, w1, w2, weights, ids, {w1Bias, w2Bias}),
      (...xs) => {
        const [x, w1, w2, topkWeights, w1Bias, w2Bias] = xs.map((values, i) => nested(values, expertShapes[i]));
        return naiveFusedExperts({x, w1, w2, topkWeights, w1Bias, w2Bias, ids} as Parameters<typeof naiveFusedExperts>[0]).values;
      },
      expertShapes,
      [3, 4],
      'fusedExperts',
    ));

  for (const activation of isGpu ? (['swigluOai'] as const) : ACTIVATIONS) {
    it(`of moeGroupedMatMul have gradients of their own: ${activation}`, async () => {
      const options = {activation, gated: true, ...clamps, swigluLimit: 1.5};
      // Gates and ups inside the clamps and outside each of them.
      const pairs = [[0.75, -0.5], [-1, 1], [2.5, 0.5], [-0.5, -3]];
      const toPairs = [1, 0, 0, 0, 0, 1, 0, 0]; // One gate and one up of four each.
      const weights = [...toPairs.slice(0, 4), ...new Array<number>(12).fill(0), ...toPairs.slice(4), ...new Array<number>(12).fill(0)];
      const sizes = {numRows: 1, numIn: 4, numColumns: 8, offset: [0, 1]};
      const f = (x: tf.Tensor) => tf.moeGroupedMatMul(x, tf.tensor3d(weights, [1, 8, 4]), [0, pairs.length], options);
      const next = (g: (x: tf.Tensor) => tf.Tensor) => (x: tf.Tensor) => tf.sum(tf.grad(g)(x), 1, true);
      const third = next(next(next(f)));
      const x = tf.tensor2d(pairs.map((pair) => [...pair, 0, 0]));
      for (const [order, given] of [[3, third], [4, next(third)]] as const) {
        const wanted = pairs.map((pair) => derivative((t) => {
          const moved = [...pair, 0, 0].map((value) => value + t);
          return naiveGroupedMatMul(sizes, {x: moved, weights}, options).values.reduce((sum, y) => sum + y, 0);
        }, order));
        await expectWithin(given(x), wanted, () => 2e-3, `order ${order}`);
      }
    });
  }

  it('are 0 for large values, for which the activation is linear', async () => {
    const x = tf.tensor2d([-1e30, -20, 20, 1e30].map((value) => [value, value, value, value]));
    const weights = tf.reshape(tf.eye(4), [1, 4, 4]);
    for (const activation of ['relu', 'silu', 'gelu', 'geluTanh'] as const) {
      const f = (rows: tf.Tensor) => tf.moeGroupedMatMul(rows, weights, [0, 4], {activation});
      const second = tf.grad((rows: tf.Tensor) => tf.grad(f)(rows))(x);
      await expectWithin(second, new Array<number>(16).fill(0), () => 1e-6, activation);
    }
  });

  it('exist without rows', async () => {
    for (const gated of [false, true]) {
      const f = (x: tf.Tensor) => tf.moeGroupedMatMul(x, tf.ones([2, 8, 4]), [0, 0, 0], {activation: 'silu', gated});
      const second = tf.grad((x: tf.Tensor) => tf.grad(f)(x))(tf.zeros([0, 4]));
      expect(second.shape).toEqual([0, 4]);
      await expectFloats(second, [], 'second');
    }
  });

  it('leave no tensors', () => {
    const [xs, v] = [4, 5].map((seed) => randomOf(expertShapes.slice(0, 4), seed).map(tensorOf));
    const dy = tf.ones([3, 4]);
    const f = (...[x, w1, w2, weights]: tf.Tensor[]) => tf.fusedExperts(x, w1, w2, weights, ids);
    const before = tf.memory().numTensors;
    tf.dispose(tf.tidy(() => secondGradients(f, xs, v, dy)));
    expect(tf.memory().numTensors).toBe(before);
  });
});

const host = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu' || backendName === 'wasm'};
/** On the host, because a software GPU compiles the programs of so many core ops for tens of seconds. */
describeWithFlags('second gradients of experts are those of core ops', host, () => {
  async function expectSame(given: OfTensors, wanted: OfTensors): Promise<void> {
    const [xs, v] = [8, 9].map((seed) => randomOf(expertShapes, seed).map(tensorOf));
    const dy = tensorOf(randomOf([[3, 4]], 10)[0]);
    const seconds = secondGradients(given, xs, v, dy);
    const values = await Promise.all(secondGradients(wanted, xs, v, dy).map((second) => second.data()));
    for (const [i, second] of seconds.entries()) {
      await expectWithin(second, Float32Array.from(values[i]), isNear, `by input ${i}`);
    }
  }
  const isOf = (expert: number) => tf.tensor2d(ids.map((row) => row.map((id) => Number(id === expert))));
  const combine = (weights: tf.Tensor) => tf.stack([0, 1].map((expert) => tf.sum(tf.mul(weights, isOf(expert)), 1)), 1);

  for (const activation of ACTIVATIONS as readonly Activation[]) {
    it(`fusedExperts: ${activation}`, async () => {
      for (const gateUp of ['concatenated', 'interleaved'] as const) {
        const options = {activation, gateUp, ...clamps, swigluLimit: 0.5};
        await expectSame(
          (x, w1, w2, weights, w1Bias, w2Bias) => tf.fusedExperts(x, w1, w2, weights, ids, {...options, w1Bias, w2Bias}),
          (x, w1, w2, weights, w1Bias, w2Bias) => coreExperts(x, w1, w2, combine(weights), w1Bias, w2Bias, options),
        );
      }
    });
  }

  it('fusedMoe', () =>
    expectSame(
      (x, w1, w2, logits, w1Bias, w2Bias) => tf.fusedMoe(x, w1, w2, logits, 2, {w1Bias, w2Bias}),
      (x, w1, w2, logits, w1Bias, w2Bias) => coreExperts(x, w1, w2, coreSoftmax(logits), w1Bias, w2Bias, {}),
    ));
});
