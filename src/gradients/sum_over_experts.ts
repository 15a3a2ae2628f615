import {reshape, sum, type Tensor} from '@tensorflow/tfjs-core';
import {MoeSum} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';

/** With more experts tfjs's own sum adds values in float32 chains that lose bits. */
const MANY_EXPERTS = 4096;

/** The sum of each token's values over experts: [T, E] to [T, 1]. */
export function sumOverExperts(x: Tensor): Tensor {
  const [numTokens, numExperts] = x.shape as [number, number];
  return numExperts > MANY_EXPERTS
    ? runMoeKernel(MoeSum, {x: reshape(x, [numTokens, numExperts, 1])}, {}).out
    : sum(x, 1, true);
}
