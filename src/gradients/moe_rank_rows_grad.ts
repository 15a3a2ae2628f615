/** Ranks are indices; the entry lets a gradient pass by this kernel on the tape of a router. */
import type {GradConfig, Tensor} from '@tensorflow/tfjs-core';
import {MoeRankRows} from '../contract/kernel_names';
import {zerosFor} from './zero_gradient';

export const moeRankRowsGradConfig: GradConfig = {
  kernelName: MoeRankRows,
  inputsToSave: ['values', 'expertFirstTokenOffset'],
  gradFunc: (_dy, saved) => {
    const [values, expertFirstTokenOffset] = saved as Tensor[];
    return {values: zerosFor(values.shape), expertFirstTokenOffset: zerosFor(expertFirstTokenOffset.shape)};
  },
};
