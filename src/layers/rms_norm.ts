import {add, customGrad, mean, mul, reshape, rsqrt, square, sub, sum, type Tensor} from '@tensorflow/tfjs-core';
import {MoeRmsNorm} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {hasKernel} from './decoding_kernels';

/** x / sqrt(mean(x^2) + epsilon) * gamma, over the last axis; gamma has the size of that axis. */
export function rmsNorm<T extends Tensor>(x: T, gamma: Tensor, epsilon: number): T {
  if (x.size === 0) {
    return x;
  }
  const normalizeRows = customGrad((...args) => {
    const [rows, factors, save] = args as unknown as [Tensor, Tensor, (tensors: Tensor[]) => void];
    save([rows, factors]);
    return {
      value: normalized(rows, factors, epsilon),
      gradFunc: (dy: Tensor, saved: Tensor[]) => gradientsOf(dy, saved[0], saved[1], epsilon),
    };
  });
  return reshape(normalizeRows(reshape(x, [x.size / gamma.size, gamma.size]), gamma), x.shape) as T;
}

function normalized(x: Tensor, gamma: Tensor, epsilon: number): Tensor {
  return hasKernel(MoeRmsNorm)
    ? runMoeKernel(MoeRmsNorm, {x, gamma}, {epsilon}).out
    : mul(mul(x, scaleOf(x, epsilon)), gamma);
}

const scaleOf = (x: Tensor, epsilon: number): Tensor => rsqrt(add(mean(square(x), -1, true), epsilon));

/** To x and to gamma. With tfjs's own, each mean would upload as many ones as x has elements. */
function gradientsOf(dy: Tensor, x: Tensor, gamma: Tensor, epsilon: number): Tensor[] {
  const scale = scaleOf(x, epsilon);
  const unit = mul(x, scale);
  const dUnit = mul(dy, gamma);
  const along = mul(unit, mean(mul(dUnit, unit), -1, true));
  return [mul(sub(dUnit, along), scale), sum(mul(dy, unit), 0)];
}
