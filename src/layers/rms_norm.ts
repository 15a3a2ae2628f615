import {add, mean, mul, reshape, rsqrt, square, type Tensor} from '@tensorflow/tfjs-core';
import {MoeRmsNorm} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {runsWithoutGradient} from './decoding_kernels';

/** x / sqrt(mean(x^2) + epsilon) * gamma, over the last axis; gamma has the size of that axis. */
export function rmsNorm<T extends Tensor>(x: T, gamma: Tensor, epsilon: number): T {
  if (runsWithoutGradient(MoeRmsNorm) && x.size > 0) {
    const rows = reshape(x, [x.size / gamma.size, gamma.size]);
    return reshape(runMoeKernel(MoeRmsNorm, {x: rows, gamma}, {epsilon}).out, x.shape) as T;
  }
  const scale = rsqrt(add(mean(square(x), -1, true), epsilon));
  return mul(mul(x, scale), gamma);
}
