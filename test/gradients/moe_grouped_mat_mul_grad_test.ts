import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectFloats, expectWithin} from '../support/expect';
import {expectAdjoint, smallIntegers} from '../support/gradient_checks';
import {naiveGroupedMatMul, type NaiveOptions} from '../naive/grouped_mat_mul';
import {lcg} from '../support/routings';

const formats: tf.MoeWeightFormat[] = ['outIn', 'inOut'];
const weightsShape = (numExperts: number, numIn: number, numColumns: number, weightFormat: tf.MoeWeightFormat) =>
  weightFormat === 'outIn' ? [numExperts, numColumns, numIn] : [numExperts, numIn, numColumns];

/** Gradients of the sum of y * dy against central differences of the naive loop, in float64. */
async function expectNaiveGradients(numIn: number, numColumns: number, options: NaiveOptions): Promise<void> {
  const offset = [1, 3, 3, 6];
  const sizes = {numRows: 7, numIn, numColumns, offset};
  const {weightFormat = 'outIn', gated} = options;
  const next = lcg(numIn);
  const random = (size: number) => Float32Array.from({length: size}, () => 3 * next() - 1.5);
  const values = {x: random(7 * numIn), weights: random(3 * numIn * numColumns), bias: random(3 * numColumns)};
  const dy = random((7 * numColumns) / (gated ? 2 : 1));
  const loss = (changed: Partial<typeof values>) =>
    naiveGroupedMatMul(sizes, {...values, ...changed}, options).values.reduce((sum, y, i) => sum + y * dy[i], 0);

  const tensors = [
    tf.tensor2d(values.x, [7, numIn]),
    tf.tensor(values.weights, weightsShape(3, numIn, numColumns, weightFormat!)),
    tf.tensor2d(values.bias, [3, numColumns]),
  ];
  const f = (x: tf.Tensor, weights: tf.Tensor, bias: tf.Tensor) =>
    tf.moeGroupedMatMul(x, weights, offset, {...options, bias});
  const gradients = tf.grads(f)(tensors, tf.tensor2d(dy, [7, dy.length / 7]));
  for (const [i, name] of (['x', 'weights', 'bias'] as const).entries()) {
    const step = 1e-5;
    const wanted = Array.from(values[name], (value, at) => {
      const moved = (shift: number) => {
        const changed = Float64Array.from(values[name]);
        changed[at] = value + shift;
        return loss({[name]: changed});
      };
      return (moved(step) - moved(-step)) / (2 * step);
    });
    expect(gradients[i].shape).toEqual(tensors[i].shape);
    await expectWithin(gradients[i], wanted, (_, value) => 2e-5 * Math.max(1, Math.abs(value)), `d ${name}`);
  }
}

describeWithFlags('gradient of moeGroupedMatMul', ALL_ENVS, () => {
  for (const [name, numRows, numIn, numColumns, offset] of [
    ['few rows', 9, 4, 8, [0, 4, 4, 7]],
    ['odd sizes', 11, 3, 5, [2, 3, 9]],
    ['no rows', 0, 4, 4, [0, 0, 0]],
    ['tiles', 80, 36, 132, [3, 78]],
  ] as Array<[string, number, number, number, number[]]>) {
    it(`is the exact adjoint: ${name}`, async () => {
      const numExperts = offset.length - 1;
      for (const weightFormat of formats) {
        const shape = weightsShape(numExperts, numIn, numColumns, weightFormat);
        const x = smallIntegers([numRows, numIn], 7);
        const weights = smallIntegers(shape, 8);
        await expectAdjoint((rows) => tf.moeGroupedMatMul(rows, weights, offset, {weightFormat}), x.shape);
        await expectAdjoint((w) => tf.moeGroupedMatMul(x, w, offset, {weightFormat}), shape);
        const ofBias = (bias: tf.Tensor) => tf.moeGroupedMatMul(tf.zerosLike(x), weights, offset, {weightFormat, bias});
        await expectAdjoint(ofBias, [numExperts, numColumns]);
      }
    });
  }

  for (const activation of ['linear', 'relu', 'relu2', 'silu', 'gelu', 'geluTanh', 'swigluOai'] as const) {
    it(`passes ${activation}, gated or not`, async () => {
      for (const gateUp of ['concatenated', 'interleaved'] as const) {
        const options = {activation, gated: true, gateUp, swigluAlpha: 1.5, swigluLimit: 1};
        await expectNaiveGradients(3, 4, options);
        await expectNaiveGradients(4, 8, {...options, weightFormat: 'inOut'});
      }
      if (activation !== 'swigluOai') {
        await expectNaiveGradients(3, 5, {activation});
      }
    });
  }

  it('goes to each of a list of weights', async () => {
    const offset = [0, 2, 3, 5, 6];
    const x = smallIntegers([7, 4], 1);
    const weights = smallIntegers([4, 6, 4], 2);
    const bias = smallIntegers([4, 6], 3);
    const dy = smallIntegers([7, 3], 4);
    const options = {activation: 'relu', gated: true} as const;
    const whole = tf.grads((a: tf.Tensor, w: tf.Tensor, b: tf.Tensor) =>
      tf.moeGroupedMatMul(a, w, offset, {...options, bias: b}))([x, weights, bias], dy);
    const inParts = tf.grads((a: tf.Tensor, w0: tf.Tensor, w1: tf.Tensor, b: tf.Tensor) =>
      tf.moeGroupedMatMul(a, [w0, w1], offset, {...options, bias: b}))([x, ...tf.split(weights, [1, 3]), bias], dy);
    await expectFloats(inParts[0], await whole[0].data() as Float32Array, 'x');
    await expectFloats(tf.concat([inParts[1], inParts[2]]), await whole[1].data() as Float32Array, 'weights');
    await expectFloats(inParts[3], await whole[2].data() as Float32Array, 'bias');
  });

  it('ignores dy of rows of no expert, NaN too', async () => {
    const offset = [1, 2, 3];
    const dy = tf.tensor2d([[NaN, NaN], [1, 2], [3, 4], [NaN, NaN]]);
    const x = tf.tensor2d([[NaN], [2], [3], [NaN]]);
    const f = (a: tf.Tensor, w: tf.Tensor, bias: tf.Tensor) => tf.moeGroupedMatMul(a, w, offset, {bias});
    const [dx, dWeights, dBias] = tf.grads(f)([x, tf.ones([2, 2, 1]), tf.zeros([2, 2])], dy);
    await expectFloats(dx, [0, 3, 7, 0], 'x');
    await expectFloats(dWeights, [2, 4, 9, 12], 'weights');
    await expectFloats(dBias, [1, 2, 3, 4], 'bias');
  });

  it('has second derivatives with a list of weights', async () => {
    const offset = [0, 1, 3];
    const weights = smallIntegers([2, 3, 2], 5);
    const ofList = (w: tf.Tensor) => tf.split(w, 2);
    const f = (x: tf.Tensor, w: tf.Tensor) => tf.sum(tf.square(tf.moeGroupedMatMul(x, ofList(w), offset)));
    // f is |W x|^2. Its gradient 2 W^T W x has the gradient 2 W^T W v to x; to W it has the form of the gradient of f.
    const x = smallIntegers([3, 2], 6);
    const gradientNorm = (w: tf.Tensor) => tf.sum(tf.grad((a: tf.Tensor) => f(a, w))(x));
    const second = tf.grad(gradientNorm)(weights);
    const values = Float32Array.from(await weights.data());
    const differences = [];
    for (let i = 0; i < values.length; i++) {
      const at = async (shift: number) => {
        const moved = values.slice();
        moved[i] += shift;
        return (await gradientNorm(tf.tensor(moved, [2, 3, 2])).data())[0];
      };
      differences.push((await at(1) - await at(-1)) / 2);
    }
    await expectWithin(second, differences, () => 1e-3, 'second');
  });
});
