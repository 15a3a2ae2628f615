/** The adjoint of summing K rows into one is copying that one to each of the K. */
import {expandDims, tile} from '@tensorflow/tfjs-core';
import {MoeSum} from '../contract/kernel_names';
import {gradConfig} from './grad_config';

export const moeSumGradConfig = gradConfig(MoeSum, {inputs: ['x']}, ({out: dOut}, {x}) => ({
  x: () => tile(expandDims(dOut, 1), [1, x.shape[1] as number, 1]),
}));
