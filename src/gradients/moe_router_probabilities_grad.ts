/**
 * With p the probabilities, dp and dLogSums what comes in:
 *
 *   dLogits = slope * p * (dp - sum of p * dp + dLogSums)
 *
 * where p is the kernel itself, so that this has derivatives of any order. It is 0 where p is, and NaN where p is.
 */
import {add, expandDims, type GradConfig, mul, sub, sum, type Tensor} from '@tensorflow/tfjs-core';
import {MoeRouterProbabilities, type MoeRouterProbabilitiesAttrs} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {zerosFor} from './zero_gradient';
import {slopeOf} from './score_slopes';

export const moeRouterProbabilitiesGradConfig: GradConfig = {
  kernelName: MoeRouterProbabilities,
  inputsToSave: ['routerLogits'],
  gradFunc: (dys, saved, attrs) => {
    const [dProbabilities, dLogSums] = dys as Tensor[];
    const [routerLogits] = saved as Tensor[];
    const {scoring} = attrs as unknown as MoeRouterProbabilitiesAttrs;
    if (routerLogits.size === 0) {
      return {routerLogits: zerosFor(routerLogits.shape)};
    }
    return {
      routerLogits: () => {
        const [probabilities] = runMoeKernel(MoeRouterProbabilities, {routerLogits}, {scoring});
        const centred = sub(dProbabilities, sum(mul(probabilities, dProbabilities), 1, true));
        const slopes = mul(probabilities, slopeOf(routerLogits, scoring));
        return mul(slopes, add(centred, expandDims(dLogSums, 1)));
      },
    };
  },
};
