/** Causal attention of N heads to M heads of keys and values, as pure functions of tensors. */
import {
  add,
  cast,
  concat,
  greater,
  lessEqual,
  logicalOr,
  matMul,
  mul,
  range,
  reshape,
  slice,
  softmax,
  sub,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
  type Tensor3D,
  type Tensor4D,
  transpose,
  zeros,
} from '@tensorflow/tfjs-core';

/**
 * What is added to the score of a key that takes no part. It is finite, so that the softmax of a query without any key
 * is finite too.
 */
const HIDDEN = -1e9;

/** [B, S, N, D] as [B, N, S, D], or back. */
export function swapHeadsAndPositions(x: Tensor4D): Tensor4D {
  const [batchSize, first, second, headDim] = x.shape;
  return first === 1 || second === 1 ? reshape(x, [batchSize, second, first, headDim]) : transpose(x, [0, 2, 1, 3]);
}

/** What each query must not see. */
export type Visibility = {
  /** The position of the first query. Keys begin at position 0. */
  firstQuery: number;
  /** A query sees its own position and w - 1 before it. Null: all before it. */
  slidingWindow: number | null;
  /** Float32 [B, L]: 0 for a key that takes no part, else 1. */
  keyMask?: Tensor2D;
};

/** What to add to scores: [S, L], or [B, 1, S, L] with a mask. */
function hiddenScores(numQueries: number, numKeys: number, {firstQuery, slidingWindow, keyMask}: Visibility): Tensor {
  const queries = reshape(range(firstQuery, firstQuery + numQueries, 1, 'int32'), [numQueries, 1]);
  const keys = reshape(range(0, numKeys, 1, 'int32'), [1, numKeys]);
  const isLater = greater(keys, queries);
  const seesAll = slidingWindow == null || slidingWindow >= firstQuery + numQueries;
  const isHidden = seesAll ? isLater : logicalOr(isLater, lessEqual(keys, sub(queries, slidingWindow)));
  const hidden = mul(cast(isHidden, 'float32'), HIDDEN);
  return keyMask == null
    ? hidden
    : add(hidden, reshape(mul(sub(1, keyMask), HIDDEN), [keyMask.shape[0], 1, 1, numKeys]));
}

/**
 * The attention of scaled queries [B, N, S, D] to keys and values [B, M, L, D], as [B, S, N * D]. Head n attends to
 * head floor(n * M / N) of keys. `sinks` [N] are logits that take part in the softmax of their head, without a value.
 */
export function attention(
  queries: Tensor4D,
  keys: Tensor4D,
  values: Tensor4D,
  visibility: Visibility,
  sinks: Tensor1D | undefined,
): Tensor3D {
  const [batchSize, numHeads, numQueries, headDim] = queries.shape;
  const [, numKeyHeads, numKeys] = keys.shape;
  // The queries of all heads of a group are the rows of one matrix.
  const ofGroups = [batchSize, numKeyHeads, (numHeads / numKeyHeads) * numQueries] as const;
  const products = matMul(reshape(queries, [...ofGroups, headDim]), keys, false, true);
  const ofHeads = reshape(products, [batchSize, numHeads, numQueries, numKeys]);
  const scores = add(ofHeads, hiddenScores(numQueries, numKeys, visibility)) as Tensor4D;
  const shares = sinks == null ? softmax(scores) : softmaxWithSinks(scores, sinks);
  const sums = matMul(reshape(shares, [...ofGroups, numKeys]), values);
  const merged = swapHeadsAndPositions(reshape(sums, queries.shape));
  return reshape(merged, [batchSize, numQueries, numHeads * headDim]);
}

function softmaxWithSinks(scores: Tensor4D, sinks: Tensor1D): Tensor4D {
  const [batchSize, numHeads, numQueries] = scores.shape;
  const ofQueries = add(zeros([batchSize, 1, numQueries, 1]), reshape(sinks, [1, numHeads, 1, 1])) as Tensor4D;
  return slice(softmax(concat([scores, ofQueries], 3)), [0, 0, 0, 0], scores.shape);
}
