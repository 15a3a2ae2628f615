/** Products of hidden states with the kernels of layers. */
import {add, matMul, type Rank, reshape, type Tensor1D, type Tensor2D, type Tensor3D} from '@tensorflow/tfjs-core';
import {MoeProjections} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {runsWithoutGradient} from './decoding_kernels';

/** Above it, MoeProjections has no program. */
const MAX_ROWS_OF_KERNEL = 4;

/** Whether kernels for so many rows, which are few, take the place of tfjs's product. */
export const hasProjectionsOf = (numRows: number): boolean =>
  numRows > 0 && numRows <= MAX_ROWS_OF_KERNEL && runsWithoutGradient(MoeProjections);

type Projection = {kernel: Tensor2D; bias: Tensor1D | undefined};

/** x [B, S, C] . kernel [C, D] + bias [D], of each projection. There are at most three. */
export function projections(x: Tensor3D, given: readonly Projection[]): Tensor3D[] {
  const [batchSize, numPositions, numIn] = x.shape;
  const rows = reshape<Rank.R2>(x, [batchSize * numPositions, numIn]);
  const products = productsOf(
    rows,
    given.map(({kernel}) => kernel),
  );
  return given.map(({bias}, i) => {
    const sum = bias == null ? products[i] : add(products[i], bias);
    return reshape<Rank.R3>(sum, [batchSize, numPositions, products[i].shape[1]]);
  });
}

function productsOf(x: Tensor2D, kernels: Tensor2D[]): Tensor2D[] {
  if (!hasProjectionsOf(x.shape[0])) {
    return kernels.map((kernel) => matMul(x, kernel));
  }
  const [weights0, weights1, weights2] = kernels;
  const {out0, out1, out2} = runMoeKernel(MoeProjections, {x, weights0, weights1, weights2}, {});
  return [out0, out1!, out2!].slice(0, kernels.length);
}
