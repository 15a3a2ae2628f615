/** Products of hidden states with the matrices of layers. */
import {
  add,
  concat,
  expandDims,
  matMul,
  type Rank,
  reshape,
  split,
  type Tensor1D,
  type Tensor2D,
  type Tensor3D,
} from '@tensorflow/tfjs-core';
import {convertQuantizedWeights} from '../arguments/quantized_weights';
import {MoeProjections, MoeQuantizedProjections} from '../contract/kernel_names';
import type {QuantizedWeights} from '../contract/quantized_weights';
import {runMoeKernel} from '../contract/run_kernel';
import {moeGroupedMatMul} from '../ops/moe_grouped_mat_mul';
import {runsWithoutGradient} from './decoding_kernels';

/** Above it, MoeProjections and MoeQuantizedProjections have no program. */
const MAX_ROWS_OF_KERNEL = 4;

const areFew = (numRows: number): boolean => numRows > 0 && numRows <= MAX_ROWS_OF_KERNEL;

/** Whether kernels for so many rows, which are few, take the place of tfjs's product. */
export const hasProjectionsOf = (numRows: number): boolean => areFew(numRows) && runsWithoutGradient(MoeProjections);

type Projection = {kernel: Tensor2D; bias: Tensor1D | undefined};

/** x [B, S, C] . kernel [C, D] + bias [D], of each projection. There are at most three. */
export function projections(x: Tensor3D, given: readonly Projection[]): Tensor3D[] {
  const products = productsOf(
    rowsOf(x),
    given.map(({kernel}) => kernel),
  );
  return given.map(({bias}, i) => likeRowsOf(x, bias == null ? products[i] : add(products[i], bias)));
}

function productsOf(x: Tensor2D, kernels: Tensor2D[]): Tensor2D[] {
  if (!hasProjectionsOf(x.shape[0])) {
    return kernels.map((kernel) => matMul(x, kernel));
  }
  const [weights0, weights1, weights2] = kernels;
  const {out0, out1, out2} = runMoeKernel(MoeProjections, {x, weights0, weights1, weights2}, {});
  return [out0, out1!, out2!].slice(0, kernels.length);
}

/** A matrix of `numOut` rows among those that stand below each other. All have a bias, or none has. */
type QuantizedProjection = {numOut: number; bias: Tensor1D | undefined};

/** x [B, S, C] . weights [1, D, C] + bias of each projection. There are at most three, whose numOut add up to D. */
export function quantizedProjections(
  x: Tensor3D,
  weights: QuantizedWeights,
  given: readonly QuantizedProjection[],
  opName: string,
): Tensor3D[] {
  const biases = given.flatMap(({bias}) => bias ?? []);
  const bias = biases.length === 0 ? undefined : expandDims<Tensor2D>(concat(biases));
  const sizes = given.map(({numOut}) => numOut);
  return quantizedProductsOf(rowsOf(x), weights, bias, sizes, opName).map((product) => likeRowsOf(x, product));
}

/** x [R, C] . weights [1, D, C] + bias [1, D], in pieces of `sizes` columns. */
export function quantizedProductsOf(
  x: Tensor2D,
  weights: QuantizedWeights,
  bias: Tensor2D | undefined,
  sizes: readonly number[],
  opName: string,
): Tensor2D[] {
  const [numRows] = x.shape;
  if (!areFew(numRows) || !runsWithoutGradient(MoeQuantizedProjections)) {
    const product = moeGroupedMatMul(x, weights, [0, numRows], {bias});
    return sizes.length === 1 ? [product] : split(product, [...sizes], 1);
  }
  const {encoding, parts} = convertQuantizedWeights(weights, 'weights', 'outIn', opName);
  const [numColumns0, numColumns1 = 0, numColumns2 = 0] = sizes;
  const attrs = {encoding, numColumns0, numColumns1, numColumns2};
  const {out0, out1, out2} = runMoeKernel(MoeQuantizedProjections, {x, ...parts[0], bias}, attrs);
  return [out0, out1!, out2!].slice(0, sizes.length);
}

/** [B, S, C] as [B*S, C]. */
function rowsOf(x: Tensor3D): Tensor2D {
  const [batchSize, numPositions, size] = x.shape;
  return reshape<Rank.R2>(x, [batchSize * numPositions, size]);
}

/** [B*S, D] as [B, S, D]. */
const likeRowsOf = ({shape: [batchSize, numPositions]}: Tensor3D, rows: Tensor2D): Tensor3D =>
  reshape<Rank.R3>(rows, [batchSize, numPositions, rows.shape[1]]);
