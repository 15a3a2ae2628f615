/**
 * MoeUnpermute and its two gradients on the host. With w [T, K], inv [T, K], rows [R, H], y [T, H]:
 *
 *   MoeUnpermute                 y[t]       = sum over k of w[t,k] * rows[inv[t,k]]
 *   MoeUnpermuteBackpropRows     dRows[r]   = sum over slots with inv[t,k] = r of w[t,k] * dy[t]
 *   MoeUnpermuteBackpropWeights  dW[t,k]    = rows[inv[t,k]] . dy[t]
 *
 * Sums run in slot order. A float32 product is exact in a double, so storing w*x + acc to a Float32Array rounds once,
 * as a fused multiply-add does: so up to 64 slots of a token are summed. Of more than that, and for the gradients, sums
 * are double, lest the error grow with the number of terms.
 */
import {MoeUnpermute, MoeUnpermuteBackpropRows, MoeUnpermuteBackpropWeights} from '../../contract/kernel_names';
import {hostKernel, type HostArray} from '../shared/host_kernel';
import {ONE_CHAIN_TERMS} from '../shared/long_sums';

/** The number of rows that slots may read, min(R, V): an index at or past it, or below 0, is skipped. */
function numReadableRows(numRows: number, expertFirstTokenOffset: HostArray): number {
  return Math.min(numRows, expertFirstTokenOffset[expertFirstTokenOffset.length - 1]);
}

export const moeUnpermuteCpu = hostKernel(
  MoeUnpermute,
  ({permutedHiddenStates, topkWeights, invPermutedIdx, expertFirstTokenOffset}) => {
    const [numTokens, topk] = topkWeights.shape;
    const [numRows, hiddenSize] = permutedHiddenStates.shape;
    const rows = permutedHiddenStates.values;
    const limit = numReadableRows(numRows, expertFirstTokenOffset.values);
    const out = new Float32Array(numTokens * hiddenSize);
    const doubles = topk > ONE_CHAIN_TERMS ? new Float64Array(hiddenSize) : undefined;
    for (let token = 0; token < numTokens; token++) {
      const ofToken = out.subarray(token * hiddenSize, (token + 1) * hiddenSize);
      const sums = doubles?.fill(0) ?? ofToken;
      for (let slot = token * topk; slot < (token + 1) * topk; slot++) {
        const row = invPermutedIdx.values[slot];
        if (row >= 0 && row < limit) {
          addScaledRow(sums, topkWeights.values[slot], rows, row);
        }
      }
      if (doubles != null) {
        ofToken.set(doubles);
      }
    }
    return {out: {values: out, shape: [numTokens, hiddenSize]}};
  },
);

export const moeUnpermuteBackpropRowsCpu = hostKernel(
  MoeUnpermuteBackpropRows,
  ({dy, topkWeights, invPermutedIdx, expertFirstTokenOffset, permutedIdx}, {numRows}) => {
    const topk = topkWeights.shape[1];
    const hiddenSize = dy.shape[1];
    const dRows = new Float32Array(numRows * hiddenSize);
    if (permutedIdx != null) {
      for (let row = 0; row < numRows; row++) {
        const slot = permutedIdx.values[row];
        if (slot < topkWeights.values.length) {
          const ofRow = dRows.subarray(row * hiddenSize, (row + 1) * hiddenSize);
          addScaledRow(ofRow, topkWeights.values[slot], dy.values, Math.floor(slot / topk));
        }
      }
      return {dRows: {values: dRows, shape: [numRows, hiddenSize]}};
    }
    const limit = numReadableRows(numRows, expertFirstTokenOffset.values);
    const {readers, firstReaders} = readersOfRows(invPermutedIdx.values, limit);
    const sums = new Float64Array(hiddenSize);
    for (let row = 0; row < limit; row++) {
      if (firstReaders[row] === firstReaders[row + 1]) {
        continue;
      }
      sums.fill(0);
      for (let i = firstReaders[row]; i < firstReaders[row + 1]; i++) {
        const slot = readers[i];
        addScaledRow(sums, topkWeights.values[slot], dy.values, Math.floor(slot / topk));
      }
      dRows.set(sums, row * hiddenSize);
    }
    return {dRows: {values: dRows, shape: [numRows, hiddenSize]}};
  },
);

/** The slots by the row that they read, in slot order in a row; a row's begin at its entry of firstReaders. */
function readersOfRows(invPermutedIdx: HostArray, limit: number): {readers: Int32Array; firstReaders: Int32Array} {
  const numRows = Math.max(0, limit);
  const isRead = (row: number) => row >= 0 && row < numRows;
  const firstReaders = new Int32Array(numRows + 1);
  for (const row of invPermutedIdx) {
    if (isRead(row)) {
      firstReaders[row + 1]++;
    }
  }
  for (let row = 0; row < numRows; row++) {
    firstReaders[row + 1] += firstReaders[row];
  }
  const next = firstReaders.slice();
  const readers = new Int32Array(firstReaders[numRows]);
  for (let slot = 0; slot < invPermutedIdx.length; slot++) {
    const row = invPermutedIdx[slot];
    if (isRead(row)) {
      readers[next[row]++] = slot;
    }
  }
  return {readers, firstReaders};
}

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
    return {dWeights: {values: dWeights, shape: [numTokens, topk]}};
  },
);

function addScaledRow(sums: Float32Array | Float64Array, scale: number, x: HostArray, xRow: number): void {
  const rowSize = sums.length;
  const from = xRow * rowSize;
  for (let h = 0; h < rowSize; h++) {
    sums[h] += scale * x[from + h];
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
