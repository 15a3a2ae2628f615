/** What the router losses share: the probabilities of tokens, the tokens that count, and means over them. */
import {
  cast,
  concat,
  div,
  equal,
  expandDims,
  maximum,
  mul,
  pad,
  type Rank,
  reshape,
  sub,
  sum,
  type Tensor,
  type TensorLike,
  util,
  zeros,
  zerosLike,
} from '@tensorflow/tfjs-core';
import {MoeRouterProbabilities, MoeSum, type MoeKernelScoring} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {fixed, select} from '../smooth_ops';
import {assert, convertToOptionalTensor} from '../arguments/checks';
import type {TokenRows} from '../arguments/routing';

/** The mask (int32, float32 or bool, an entry for each token) as float32 [T, 1]; undefined if it is not given. */
export function convertTokenMask(
  x: Tensor | TensorLike | null | undefined,
  {shape}: TokenRows,
  opName: string,
): Tensor | undefined {
  const $x = convertToOptionalTensor(x, 'mask', opName, ['int32', 'float32', 'bool']);
  const tokenShape = shape.slice(0, -1);
  assert(
    $x == null || util.arraysEqual($x.shape, tokenShape),
    opName,
    () => `mask must be [${tokenShape}], an entry for each token of routerLogits [${shape}], but is [${$x!.shape}].`,
  );
  // The cast to bool makes every number but 0 a 1.
  return $x && reshape(cast(cast($x, 'bool'), 'float32'), [-1, 1]);
}

export type RoutedTokens = {
  /** [T, E]. Each expert's score divided by the sum of the token's scores. */
  probabilities: Tensor;
  /** [T, 1]. The logarithm of the sum of the token's scores. */
  logSums: Tensor;
  /** float32 [T, 1]: 1 for a token that counts, 0 for a masked token and for a token whose logits are all -Infinity. */
  counts: Tensor;
};

/** The contents of a masked token reach neither a loss nor its gradient. */
export function routedTokens(
  {rows: tokens}: TokenRows,
  mask: Tensor | undefined,
  scoring: MoeKernelScoring,
): RoutedTokens {
  // Sums over no rows are not 0 on every backend, so no tokens become one row that does not count.
  const isEmpty = tokens.size === 0;
  const rows = isEmpty ? concat([tokens, zeros([1, tokens.shape[1]])]) : tokens;
  const given = isEmpty ? zeros([1, 1]) : mask;
  const routerLogits = given == null ? rows : select(given, rows, zerosLike(rows));
  const {probabilities, logSums} = runMoeKernel(MoeRouterProbabilities, {routerLogits}, {scoring});
  const counts = fixed(() => {
    // A token whose probabilities are all 0 does not count. A token with NaN counts.
    const has = sub(1, cast(equal(sum(probabilities, 1, true), 0), 'float32'));
    return given == null ? has : mul(has, given);
  });
  return {probabilities, logSums: expandDims(logSums, 1), counts};
}

/** The mean of each of B sequences over its tokens that count: [T, n] to [B, n]. It is 0 if no token counts. */
export function meansOver(counts: Tensor, rows: Tensor, numSequences: number): Tensor {
  return div(sumsOver(mul(rows, counts), numSequences), maximum(sumsOver(counts, numSequences), 1));
}

/** At most this many rows are one sum. More rows are summed in steps, so that no GPU thread adds all of them. */
const ROWS_OF_SUM = 256;

/**
 * The sums over each of B sequences of equal length: [T, n] to [B, n]. tfjs's own sum adds a prime number of rows in
 * one float32 chain on webgl, and in chains of a 512th of the rows on webgpu.
 */
export function sumsOver(rows: Tensor, numSequences: number): Tensor {
  const [numRows, numColumns] = rows.shape as [number, number];
  const length = numRows / numSequences;
  const sequences = reshape<Rank.R3>(rows, [numSequences, length, numColumns]);
  if (length <= ROWS_OF_SUM) {
    return sumOfRows(sequences);
  }
  const numSums = Math.ceil(length / ROWS_OF_SUM);
  const padded = pad(sequences, [
    [0, 0],
    [0, numSums * ROWS_OF_SUM - length],
    [0, 0],
  ]);
  const sums = sumOfRows(reshape(padded, [numSequences * numSums, ROWS_OF_SUM, numColumns]));
  return sumOfRows(reshape(sums, [numSequences, numSums, numColumns]));
}

const sumOfRows = (x: Tensor): Tensor => runMoeKernel(MoeSum, {x}, {}).out;
