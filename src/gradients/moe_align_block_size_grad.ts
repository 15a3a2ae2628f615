/** Every output is an index; the entry lets a gradient pass by this kernel on the tape of a router. */
import type {GradConfig, Tensor} from '@tensorflow/tfjs-core';
import {MoeAlignBlockSize, type MoeAlignBlockSizeAttrs} from '../contract/kernel_names';
import {zerosFor} from './zero_gradient';

export const moeAlignBlockSizeGradConfig: GradConfig = {
  kernelName: MoeAlignBlockSize,
  inputsToSave: ['topkIds'],
  gradFunc: (_dys, saved, attrs) => {
    const [topkIds] = saved as Tensor[];
    const {numExperts} = attrs as unknown as MoeAlignBlockSizeAttrs;
    return {topkIds: zerosFor(topkIds.shape), expertMap: zerosFor([numExperts])};
  },
};
