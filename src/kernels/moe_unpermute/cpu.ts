/**
 * MoeUnpermute and its two gradients on the host. With w [T, K], inv [T, K], rows [R, H], y [T, H]:
 *
 *   MoeUnpermute                 y[t]       = sum over k of w[t,k] * rows[inv[t,k]]
 *   MoeUnpermuteBackpropRows     dRows[r]   = sum over slots with inv[t,k] = r of w[t,k] * dy[t]
 *   MoeUnpermuteBackpropWeights  dW[t,k]    = rows[inv[t,k]] . dy[t]
 *
 * Sums run in slot order. A float32 product is exact in a double, so storing w*x + acc to a Float32Array
 * rounds once, as a fused multiply-add does.
 */
import {
  MoeUnpermute,
  MoeUnpermuteBackpropRows,
  MoeUnpermuteBackpropWeights,
} from '../../kernel_names';
import {hostKernel, type HostArray} from '../shared/host_kernel';
import {numReadableRows} from './slots';

export const moeUnpermuteCpu = hostKernel(
  MoeUnpermute,
  ({permutedHiddenStates, topkWeights, invPermutedIdx, expertFirstTokenOffset}) => {
    const [numTokens, topk] = topkWeights.shape;
    const [numRows, hiddenSize] = permutedHiddenStates.shape;
    const rows = permutedHiddenStates.values;
    const limit = numReadableRows(numRows, expertFirstTokenOffset.values);
    const out = new Float32Array(numTokens * hiddenSize);
    for (let slot = 0; slot < numTokens * topk; slot++) {
      const row = invPermutedIdx.values[slot];
      if (row < 0 || row >= limit) {
        continue;
      }
      addScaledRow(out, Math.floor(slot / topk), topkWeights.values[slot], rows, row, hiddenSize);
    }
    return [{values: out, shape: [numTokens, hiddenSize]}];
  },
);

export const moeUnpermuteBackpropRowsCpu = hostKernel(
  MoeUnpermuteBackpropRows,
  ({dy, topkWeights, invPermutedIdx, expertFirstTokenOffset}, {numRows}) => {
    const [numTokens, topk] = topkWeights.shape;
    const hiddenSize = dy.shape[1];
    const limit = numReadableRows(numRows, expertFirstTokenOffset.values);
    const dRows = new Float32Array(numRows * hiddenSize);
    for (let slot = 0; slot < numTokens * topk; slot++) {
      const row = invPermutedIdx.values[slot];
      if (row < 0 || row >= limit) {
        continue;
      }
      addScaledRow(dRows, row, topkWeights.values[slot], dy.values, Math.floor(slot / topk), hiddenSize);
    }
    return [{values: dRows, shape: [numRows, hiddenSize]}];
  },
);

export const moeUnpermuteBackpropWeightsCpu = hostKernel(
  MoeUnpermuteBackpropWeights,
  ({dy, permutedHiddenStates, invPermutedIdx, expertFirstTokenOffset}) => {
    const [numTokens, topk] = invPermutedIdx.shape;
    const [numRows, hiddenSize] = permutedHiddenStates.shape;
    const rows = permutedHiddenStates.values;
    const limit = numReadableRows(numRows, expertFirstTokenOffset.values);
    const dWeights = new Float32Array(numTokens * topk);
    for (let slot = 0; slot < numTokens * topk; slot++) {
      const row = invPermutedIdx.values[slot];
      if (row < 0 || row >= limit) {
        continue;
      }
      dWeights[slot] = dotRows(rows, row, dy.values, Math.floor(slot / topk), hiddenSize);
    }
    return [{values: dWeights, shape: [numTokens, topk]}];
  },
);

function addScaledRow(
  sums: Float32Array,
  sumRow: number,
  scale: number,
  x: HostArray,
  xRow: number,
  rowSize: number,
): void {
  const to = sumRow * rowSize;
  const from = xRow * rowSize;
  for (let h = 0; h < rowSize; h++) {
    sums[to + h] += scale * x[from + h];
  }
}

function dotRows(a: HostArray, aRow: number, b: HostArray, bRow: number, rowSize: number): number {
  const fromA = aRow * rowSize;
  const fromB = bRow * rowSize;
  let dot = 0;
  for (let h = 0; h < rowSize; h++) {
    dot += a[fromA + h] * b[fromB + h];
  }
  return dot;
}
