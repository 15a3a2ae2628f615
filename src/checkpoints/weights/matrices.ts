/** Where the rows of a weight lie in the matrices of its tensors. */
import {util} from '@tensorflow/tfjs-core';
import type {CheckpointWeight} from '../families/layout';

/** The matrices [numOut, numIn] of the tensors of a weight, which all have the same number of them. */
export type WeightMatrices = {
  numOut: number;
  numIn: number;
  /** In each tensor. */
  numMatrices: number;
  /** Whether a float file has them as [numIn, numOut]. */
  isTransposed: boolean;
  /** Whether rows alternate between gates and ups in files, where the weight has all gates of a matrix first. */
  isInterleaved: boolean;
  /** The row of the weight that is the first of a matrix. */
  firstRowOf: (tensor: number, matrix: number) => number;
};

export function matricesOf({tensors, rowsInTurn, transposed}: CheckpointWeight): WeightMatrices {
  const {count, shape} = tensors;
  // A tensor with fewer axes than a matrix has one row, or one number.
  const numIn = transposed?.rows ?? shape[shape.length - 1] ?? 1;
  const numOut = rowsInTurn ?? transposed?.columns ?? shape[shape.length - 2] ?? 1;
  const numMatrices = util.sizeFromShape(shape) / (numIn * numOut);
  return {
    numOut,
    numIn,
    numMatrices,
    isTransposed: transposed != null,
    isInterleaved: transposed?.gatesFirst ?? false,
    // In turn: the first matrices of all tensors stand before the second ones.
    firstRowOf: (tensor, matrix) =>
      (rowsInTurn != null ? matrix * count + tensor : tensor * numMatrices + matrix) * numOut,
  };
}
