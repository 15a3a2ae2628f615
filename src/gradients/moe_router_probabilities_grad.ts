/**
 * With p the probabilities, dp and dLogSums the gradients that come in:
 *
 *   dLogits = slope * p * (dp - sum of p * dp + dLogSums)
 *
 * p is the kernel itself, so this gradient has derivatives of any order. It is 0 where p is 0, and NaN where p is NaN.
 */
import {add, expandDims, mul, sub} from '@tensorflow/tfjs-core';
import {MoeRouterProbabilities} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {gradConfig} from './grad_config';
import {slopeOf} from './score_slopes';
import {sumOverExperts} from './sum_over_experts';
import {zerosFor} from './zero_gradient';

export const moeRouterProbabilitiesGradConfig = gradConfig(
  MoeRouterProbabilities,
  {inputs: ['routerLogits']},
  ({probabilities: dProbabilities, logSums: dLogSums}, {routerLogits}, {scoring}) => {
    if (routerLogits.size === 0) {
      return {routerLogits: zerosFor(routerLogits.shape)};
    }
    return {
      routerLogits: () => {
        const {probabilities} = runMoeKernel(MoeRouterProbabilities, {routerLogits}, {scoring});
        const centred = sub(dProbabilities, sumOverExperts(mul(probabilities, dProbabilities)));
        const slopes = mul(probabilities, slopeOf(routerLogits, scoring));
        return mul(slopes, add(centred, expandDims(dLogSums, 1)));
      },
    };
  },
);
