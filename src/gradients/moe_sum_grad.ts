/** The adjoint of summing K rows into one is copying that one to each of the K. */
import {expandDims, type GradConfig, type Tensor, type Tensor3D, tile} from '@tensorflow/tfjs-core';
import {MoeSum} from '../contract/kernel_names';

export const moeSumGradConfig: GradConfig = {
  kernelName: MoeSum,
  inputsToSave: ['x'],
  gradFunc: (dy, saved) => {
    const [, topk] = (saved as Tensor3D[])[0].shape;
    return {x: () => tile(expandDims(dy as Tensor, 1), [1, topk, 1])};
  },
};
