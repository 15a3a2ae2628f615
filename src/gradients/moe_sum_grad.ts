/** The adjoint of summing K rows into one row is copying that row K times, and the adjoint of copying is summing. */
import {customGrad, expandDims, type Tensor, type Tensor3D, tile} from '@tensorflow/tfjs-core';
import {MoeSum} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {gradConfig} from './grad_config';

export const moeSumGradConfig = gradConfig(MoeSum, {inputs: ['x']}, ({out: dOut}, {x}) => ({
  x: () => copies(dOut, (x as Tensor3D).shape[1]),
}));

/** K copies of each row. The gradient of tfjs's tile makes K slices and adds them one by one. */
function copies(rows: Tensor, topk: number): Tensor {
  const copy = customGrad((x) => ({
    value: tile(expandDims(x as Tensor, 1), [1, topk, 1]),
    gradFunc: (dy: Tensor) => runMoeKernel(MoeSum, {x: dy}, {}).out,
  }));
  return copy(rows);
}
