/** The adjoint of summing K rows into one is copying that one to each of the K, and the other way round. */
import {customGrad, expandDims, type Tensor, type Tensor3D, tile} from '@tensorflow/tfjs-core';
import {MoeSum} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {gradConfig} from './grad_config';

export const moeSumGradConfig = gradConfig(MoeSum, {inputs: ['x']}, ({out: dOut}, {x}) => ({
  x: () => copies(dOut, (x as Tensor3D).shape[1]),
}));

/** K of each row. The gradient of tfjs's tile is K slices, which it adds one by one. */
function copies(rows: Tensor, topk: number): Tensor {
  const copy = customGrad((x) => ({
    value: tile(expandDims(x as Tensor, 1), [1, topk, 1]),
    gradFunc: (dy: Tensor) => runMoeKernel(MoeSum, {x: dy}, {}).out,
  }));
  return copy(rows);
}
