/**
 * MoeUnpermute and its two gradients on WebGL, all gathers: every element of a result is summed by one fragment, in
 * slot order.
 *
 *   MoeUnpermute                 1 draw: a fragment takes a column of a token, reads it in each slot's row, and adds.
 *                                2 where texels hold 2 x 2 elements: the slots of two tokens are paired first.
 *   MoeUnpermuteBackpropRows     the slots are sorted by the row that they read, so that the readers of a row are a
 *                                range; then a draw finds the ranges, and one sums. 1 draw with permutedIdx.
 *   MoeUnpermuteBackpropWeights  1 draw for short rows, else 2: sums of segments, then their sums.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {MoeUnpermute, MoeUnpermuteBackpropRows, MoeUnpermuteBackpropWeights} from '../../contract/kernel_names';
import {CHAIN_TERMS, chainTermsOf, LONG_SUM_GLSL, LONG_SUM_UNIFORMS} from '../shared/long_sums';
import {assertExact, assertFits, disposeAll, fillTensor, isPacked, runGlsl, webglKernel} from '../shared/webgl';
import {assertSortFits, keyStarts, sortByKey} from '../expert_sort/webgl';

/** Whether rows are read 2 x 2 elements at a time: in the form that they have, so that tfjs converts nothing. */
const readsPackedRows = isPacked;

/** GLSL: the row that a slot reads, -1 where it is skipped. */
const ROW_OF_SLOT = `
  int rowOfSlot(int token, int k) {
    int row = indexOf(getInvPermutedIdx(token, k));
    int end = min(numRows, indexOf(getExpertFirstTokenOffset(lastOffset)));
    return row >= 0 && row < end ? row : -1;
  }`;

export const moeUnpermuteWebGL = webglKernel(
  MoeUnpermute,
  (backend, {permutedHiddenStates, topkWeights, invPermutedIdx, expertFirstTokenOffset}) => {
    const [numTokens] = topkWeights.shape;
    const [numRows, hiddenSize] = permutedHiddenStates.shape;
    const shape = [numTokens, hiddenSize];
    const packed = readsPackedRows(backend, permutedHiddenStates);
    assertExact(MoeUnpermute, {'the number of permuted rows': numRows});
    assertFits(MoeUnpermute, {permutedHiddenStates: permutedHiddenStates.shape, 'the result': shape}, packed);
    assertFits(MoeUnpermute, {topkWeights: topkWeights.shape});
    if (numTokens === 0 || numRows === 0) {
      return {out: fillTensor(backend, shape, 'float32', 0)};
    }
    const slots = {topkWeights, invPermutedIdx, expertFirstTokenOffset};
    return {out: (packed ? unpermutePackedRows : unpermuteRows)(backend, permutedHiddenStates, slots, shape)};
  },
);

type Slots = {topkWeights: TensorInfo; invPermutedIdx: TensorInfo; expertFirstTokenOffset: TensorInfo};

function unpermuteRows(backend: MathBackendWebGL, rows: TensorInfo, slots: Slots, shape: number[]): TensorInfo {
  return runGlsl(backend, {
    name: 'MoeUnpermute',
    inputs: {rows, ...slots},
    uniforms: {
      topk: slots.topkWeights.shape[1],
      chainTerms: chainTermsOf(slots.topkWeights.shape[1]),
      numRows: rows.shape[0],
      lastOffset: slots.expertFirstTokenOffset.shape[0] - 1,
      ...LONG_SUM_UNIFORMS,
    },
    output: {shape, dtype: 'float32'},
    code: `
      ${LONG_SUM_GLSL}
      ${ROW_OF_SLOT}
      void main() {
        ivec2 coords = getOutputCoords();
        float sum = 0.0;
        float rest = 0.0;
        for (int first = 0; first < topk; first += chainTerms) {
          float chain = 0.0;
          for (int k = first; k < min(first + chainTerms, topk); k++) {
            int row = rowOfSlot(coords.x, k);
            if (row >= 0) { chain += getTopkWeights(coords.x, k) * getRows(row, coords.y); }
          }
          addChain(sum, rest, chain);
        }
        setOutput(sum);
      }`,
  });
}

/** A texel of the result has two columns of two tokens, and so has one of `pairs` the rows and weights of a slot. */
function unpermutePackedRows(backend: MathBackendWebGL, rows: TensorInfo, slots: Slots, shape: number[]): TensorInfo {
  const [numTokens, topk] = slots.topkWeights.shape;
  const pairs = runGlsl(backend, {
    name: 'MoeUnpermuteSlots',
    inputs: slots,
    uniforms: {
      numTokens,
      numRows: rows.shape[0],
      lastOffset: slots.expertFirstTokenOffset.shape[0] - 1,
    },
    output: {shape: [2 * Math.ceil(numTokens / 2), 2 * topk], dtype: 'float32'},
    packed: 'output',
    code: `
      ${ROW_OF_SLOT}
      vec2 slotOf(int token, int k) {
        int row = token < numTokens ? rowOfSlot(token, k) : -1;
        return row >= 0 ? vec2(row, getTopkWeights(token, k)) : vec2(-1.0, 0.0);
      }
      void main() {
        ivec2 coords = getOutputCoords();
        int k = coords.y / 2;
        setOutput(vec4(slotOf(coords.x, k), slotOf(coords.x + 1, k)));
      }`,
  });
  const sums = runGlsl(backend, {
    name: 'MoeUnpermute_packed',
    inputs: {rows, pairs},
    uniforms: {topk, chainTerms: chainTermsOf(topk), hiddenSize: shape[1], ...LONG_SUM_UNIFORMS},
    output: {shape, dtype: 'float32'},
    packed: 'inputs and output',
    code: `
      ${LONG_SUM_GLSL}
      vec2 columnsOf(float row, int column) {
        int r = indexOf(row);
        vec4 texel = getRows(r, column);
        return imod(r, 2) == 0 ? texel.xy : texel.zw;
      }
      void main() {
        ivec2 coords = getOutputCoords();
        vec4 sum = vec4(0.0);
        vec4 rest = vec4(0.0);
        for (int first = 0; first < topk; first += chainTerms) {
          vec4 chain = vec4(0.0);
          for (int k = first; k < min(first + chainTerms, topk); k++) {
            vec4 pair = getPairs(coords.x, 2 * k);
            if (pair.x >= 0.0) { chain.xy += pair.y * columnsOf(pair.x, coords.y); }
            if (pair.z >= 0.0) { chain.zw += pair.w * columnsOf(pair.z, coords.y); }
          }
          addChain(sum, rest, chain);
        }
        // tfjs's programs take what is past the last column for 0.
        if (coords.y + 1 >= hiddenSize) { sum.yw = vec2(0.0); }
        setOutput(sum);
      }`,
  });
  disposeAll(backend, [pairs]);
  return sums;
}

export const moeUnpermuteBackpropRowsWebGL = webglKernel(
  MoeUnpermuteBackpropRows,
  (backend, {dy, topkWeights, invPermutedIdx, expertFirstTokenOffset, permutedIdx}, {numRows}) => {
    const [numTokens, topk] = topkWeights.shape;
    const numSlots = numTokens * topk;
    const shape = [numRows, dy.shape[1]];
    // A slot that is skipped sorts last.
    const numKeys = numRows + 1;
    assertExact(MoeUnpermuteBackpropRows, {
      'the number of slots (T*K)': numSlots,
      'the number of permuted rows': numRows,
    });
    assertFits(MoeUnpermuteBackpropRows, {dy: dy.shape, topkWeights: topkWeights.shape, 'the result': shape});
    if (numSlots === 0 || numRows === 0) {
      return {dRows: fillTensor(backend, shape, 'float32', 0)};
    }
    if (permutedIdx != null) {
      return {dRows: rowsOfSlots(backend, {dy, topkWeights, permutedIdx}, shape)};
    }
    assertSortFits(MoeUnpermuteBackpropRows, numSlots, numKeys);
    const rowOfSlots = runGlsl(backend, {
      name: 'MoeUnpermuteRowOfSlots',
      inputs: {invPermutedIdx, expertFirstTokenOffset},
      uniforms: {topk, numRows, lastOffset: expertFirstTokenOffset.shape[0] - 1},
      output: {shape: [numSlots], dtype: 'int32'},
      code: `
        ${ROW_OF_SLOT}
        void main() {
          int slot = getOutputCoords();
          int row = rowOfSlot(slot / topk, imod(slot, topk));
          setOutput(float(row >= 0 ? row : numRows));
        }`,
    });
    const readers = sortByKey(backend, rowOfSlots, numKeys);
    const firstReaders = keyStarts(backend, rowOfSlots, readers, numRows + 1);
    const dRows = runGlsl(backend, {
      name: 'MoeUnpermuteBackpropRows',
      inputs: {dy, topkWeights, readers, firstReaders},
      uniforms: {topk, ...LONG_SUM_UNIFORMS},
      output: {shape, dtype: 'float32'},
      code: `
        ${LONG_SUM_GLSL}
        void main() {
          ivec2 coords = getOutputCoords();
          int end = indexOf(getFirstReaders(coords.x + 1));
          float sum = 0.0;
          float rest = 0.0;
          for (int first = indexOf(getFirstReaders(coords.x)); first < end; first += ${CHAIN_TERMS}) {
            float chain = 0.0;
            for (int reader = first; reader < min(first + ${CHAIN_TERMS}, end); reader++) {
              int slot = indexOf(getReaders(reader));
              int token = slot / topk;
              chain += getTopkWeights(token, imod(slot, topk)) * getDy(token, coords.y);
            }
            addChain(sum, rest, chain);
          }
          setOutput(sum);
        }`,
    });
    disposeAll(backend, [rowOfSlots, readers, firstReaders]);
    return {dRows};
  },
);

type SlotsOfRows = {dy: TensorInfo; topkWeights: TensorInfo; permutedIdx: TensorInfo};

function rowsOfSlots(backend: MathBackendWebGL, inputs: SlotsOfRows, shape: number[]): TensorInfo {
  const [numTokens, topk] = inputs.topkWeights.shape;
  return runGlsl(backend, {
    name: 'MoeUnpermuteRowsOfSlots',
    inputs,
    uniforms: {topk, numSlots: numTokens * topk},
    output: {shape, dtype: 'float32'},
    code: `
      void main() {
        ivec2 coords = getOutputCoords();
        int slot = indexOf(getPermutedIdx(coords.x));
        float value = 0.0;
        if (slot < numSlots) {
          int token = slot / topk;
          value = getTopkWeights(token, imod(slot, topk)) * getDy(token, coords.y);
        }
        setOutput(value);
      }`,
  });
}

/** Columns of a segment. */
const SEGMENT_SIZE = 64;
/** Up to here a fragment takes a whole row. */
const ONE_SEGMENT_COLUMNS = 128;

export const moeUnpermuteBackpropWeightsWebGL = webglKernel(
  MoeUnpermuteBackpropWeights,
  (backend, {dy, permutedHiddenStates, invPermutedIdx, expertFirstTokenOffset}) => {
    const [numTokens, topk] = invPermutedIdx.shape;
    const [numRows, hiddenSize] = permutedHiddenStates.shape;
    const segmentSize = hiddenSize <= ONE_SEGMENT_COLUMNS ? hiddenSize : SEGMENT_SIZE;
    const numSegments = Math.ceil(hiddenSize / segmentSize);
    const numSlots = numTokens * topk;
    assertExact(MoeUnpermuteBackpropWeights, {'the number of permuted rows': numRows});
    assertFits(MoeUnpermuteBackpropWeights, {
      dy: dy.shape,
      permutedHiddenStates: permutedHiddenStates.shape,
      'the sums of segments': [numSlots, numSegments],
    });
    if (numSlots === 0 || numRows === 0) {
      return {dWeights: fillTensor(backend, [numTokens, topk], 'float32', 0)};
    }
    const sums = runGlsl(backend, {
      name: 'MoeUnpermuteBackpropWeights',
      inputs: {dy, rows: permutedHiddenStates, invPermutedIdx, expertFirstTokenOffset},
      uniforms: {
        topk,
        numRows,
        hiddenSize,
        segmentSize,
        lastOffset: expertFirstTokenOffset.shape[0] - 1,
        ...LONG_SUM_UNIFORMS,
      },
      output: {shape: [numSlots, numSegments], dtype: 'float32'},
      code: `
        ${LONG_SUM_GLSL}
        ${ROW_OF_SLOT}
        void main() {
          ivec2 slotAndSegment = getOutputCoords();
          int token = slotAndSegment.x / topk;
          int row = rowOfSlot(token, imod(slotAndSegment.x, topk));
          int start = slotAndSegment.y * segmentSize;
          int end = row >= 0 ? min(start + segmentSize, hiddenSize) : start;
          float sum = 0.0;
          float rest = 0.0;
          for (int first = start; first < end; first += ${CHAIN_TERMS}) {
            float chain = 0.0;
            for (int h = first; h < min(first + ${CHAIN_TERMS}, end); h++) { chain += getRows(row, h) * getDy(token, h); }
            addChain(sum, rest, chain);
          }
          setOutput(sum);
        }`,
    });
    if (numSegments === 1) {
      return {dWeights: {...sums, shape: [numTokens, topk]}};
    }
    const dWeights = runGlsl(backend, {
      name: 'MoeUnpermuteSumSegments',
      inputs: {sums},
      uniforms: {topk, numSegments, ...LONG_SUM_UNIFORMS},
      output: {shape: [numTokens, topk], dtype: 'float32'},
      code: `
        ${LONG_SUM_GLSL}
        void main() {
          ivec2 coords = getOutputCoords();
          float sum = 0.0;
          float rest = 0.0;
          // Each is a chain of sums already.
          for (int segment = 0; segment < numSegments; segment++) {
            addChain(sum, rest, getSums(coords.x * topk + coords.y, segment));
          }
          setOutput(sum);
        }`,
    });
    disposeAll(backend, [sums]);
    return {dWeights};
  },
);
