import {add, mean, mul, rsqrt, square, type Tensor} from '@tensorflow/tfjs-core';

/** x / sqrt(mean(x^2) + epsilon) * gamma, over the last axis; gamma has the size of that axis. */
export function rmsNorm<T extends Tensor>(x: T, gamma: Tensor, epsilon: number): T {
  const scale = rsqrt(add(mean(square(x), -1, true), epsilon));
  return mul(mul(x, scale), gamma);
}
