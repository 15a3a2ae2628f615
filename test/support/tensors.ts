import * as tf from '../../src/tf';

/** int32 [T, K], also for T = 0. */
export const idsTensor = (ids: number[][], topk: number): tf.Tensor2D => tf.tensor2d(ids.flat(), [ids.length, topk], 'int32');

/** Row t holds t*H, t*H + 1, …: no two elements are equal, so that a misplaced row shows. */
export const countingRows = (numRows: number, rowSize: number): tf.Tensor2D =>
  tf.tensor2d(Float32Array.from({length: numRows * rowSize}, (_, i) => i), [numRows, rowSize]);

/** The rows of countingRows that `tokens` name; zeros for -1. */
export const countingRowsOf = (tokens: number[], rowSize: number): Float32Array => {
  const rows = new Float32Array(tokens.length * rowSize);
  tokens.forEach((token, r) => {
    for (let h = 0; token >= 0 && h < rowSize; h++) {
      rows[r * rowSize + h] = token * rowSize + h;
    }
  });
  return rows;
};

/** The error on webgl for int32 tensors that are moved, because its textures hold floats. */
export const webglTakesFloats = (opName: string, argName: string): string =>
  `Error in ${opName}: ${argName} must be float32 on the webgl backend, whose textures round integers, but is int32.`;
