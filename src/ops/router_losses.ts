/** What the losses of a router have in common: rows that count, and the mean over them. */
import {
  cast,
  concat,
  div,
  expandDims,
  maximum,
  mul,
  reshape,
  sum,
  type Tensor,
  tensor1d,
  type Tensor1D,
  type Tensor2D,
  where,
  zeros,
  zerosLike,
} from '@tensorflow/tfjs-core';

export type CountedRows = {
  /** [T, E], 0 in rows that do not count, so that nothing of what is there gets into a loss or its gradient. */
  logits: Tensor2D;
  /** The mean over the rows that count of float32 [T] or [T, E]; 0 where none does. */
  meanOf: (rows: Tensor) => Tensor;
};

export function countedRows(logits: Tensor2D, mask: Tensor1D | undefined): CountedRows {
  const [numTokens, numExperts] = logits.shape;
  if (numTokens === 0) {
    // Sums of nothing are not 0 on every backend: one row, which does not count.
    return countedRows(concat([logits, zeros([1, numExperts])]) as Tensor2D, tensor1d([false], 'bool'));
  }
  if (mask == null) {
    return {logits, meanOf: (rows) => div(sum(rows, 0), numTokens)};
  }
  const counts = cast(mask, 'float32');
  return {
    logits: where(expandDims(mask, 1), logits, zerosLike(logits)),
    meanOf: (rows) => {
      const countedSum = sum(mul(rows, reshape(counts, rows.rank === 1 ? [-1] : [-1, 1])), 0);
      return div(countedSum, maximum(sum(counts), 1));
    },
  };
}
