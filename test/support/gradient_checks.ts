import * as tf from '../../src/tf';
import {expectWithin} from './expect';
import {lcg} from './routings';

/** Small integers, so that sums of products are exact in float32. */
export function smallIntegers(shape: number[], seed: number): tf.Tensor {
  const next = lcg(seed);
  const size = shape.reduce((product, dim) => product * dim, 1);
  return tf.tensor(Float32Array.from({length: size}, () => Math.floor(next() * 9) - 4), shape);
}

const dot = async (a: tf.Tensor, b: tf.Tensor): Promise<number> => {
  const [aValues, bValues] = await Promise.all([a.data(), b.data()]);
  return Array.from(aValues).reduce((sum, value, i) => sum + value * bValues[i], 0);
};

/**
 * For a linear f: dy . f(dx) = df(dy) . dx, exactly, on integers. `mask` (of 0 and 1, in the shape of the
 * result) leaves out what the gradient ignores by contract.
 */
export async function expectAdjoint(
  f: (x: tf.Tensor) => tf.Tensor,
  xShape: number[],
  mask?: tf.Tensor,
): Promise<void> {
  const dx = smallIntegers(xShape, 1);
  const y = f(dx);
  const dy = smallIntegers(y.shape, 2);
  const gradient = tf.grad(f)(smallIntegers(xShape, 3), dy);
  expect(gradient.shape).toEqual(xShape);
  expect(gradient.dtype).toBe('float32');
  const [ofGradient, ofResult] = await Promise.all([dot(gradient, dx), dot(mask == null ? dy : tf.mul(dy, mask), y)]);
  expect(ofGradient).toBe(ofResult);
}

/**
 * Compares the gradient of a scalar f at xs with central differences, which are exact up to rounding for a polynomial
 * of degree 2; `at` picks the input.
 */
export async function expectFiniteDifferences(
  f: (...xs: tf.Tensor[]) => tf.Scalar,
  xs: tf.Tensor[],
  tolerance = 2e-2,
): Promise<void> {
  const gradients = tf.grads(f)(xs);
  const step = 0.5;
  for (let input = 0; input < xs.length; input++) {
    const values = Float32Array.from(await xs[input].data());
    const difference = async (i: number) => {
      const at = async (shift: number) => {
        const shifted = values.slice();
        shifted[i] += shift;
        const moved = xs.map((x, j) => (j === input ? tf.tensor(shifted, x.shape) : x));
        return (await f(...moved).data())[0];
      };
      const [above, below] = await Promise.all([at(step), at(-step)]);
      return (above - below) / (2 * step);
    };
    const differences = await Promise.all(Array.from(values, (_, i) => difference(i)));
    await expectWithin(
      gradients[input],
      differences,
      (_, wanted) => tolerance * Math.max(1, Math.abs(wanted)),
      `gradient to input ${input}`,
    );
  }
}

/** The derivative of order n at 0, by central differences and one step of Richardson's. */
export function derivative(f: (t: number) => number, order: number): number {
  const difference = (step: number): number => {
    const at = (n: number, t: number): number => (n === 0 ? f(t) : at(n - 1, t + step / 2) - at(n - 1, t - step / 2));
    return at(order, 0) / step ** order;
  };
  return (4 * difference(0.05) - difference(0.1)) / 3;
}

/** The derivatives of f along v at x, orders 1 to `highest`, as scalars. */
export function derivativesAlong(f: (x: tf.Tensor) => tf.Tensor, x: tf.Tensor, v: tf.Tensor, highest: number): tf.Tensor[] {
  const next = (g: (x: tf.Tensor) => tf.Tensor) => (y: tf.Tensor) => tf.sum(tf.mul(tf.grad(g)(y), v));
  const derivatives: tf.Tensor[] = [];
  let g = (y: tf.Tensor) => tf.sum(f(y)) as tf.Tensor;
  for (let order = 1; order <= highest; order++) {
    g = next(g);
    derivatives.push(g(x));
  }
  return derivatives;
}
