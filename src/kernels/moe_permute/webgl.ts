/**
 * MoePermute on WebGL: the sort of expert_sort/webgl.ts, then a draw an output, whose fragments look up what belongs
 * in their place.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {MoePermute} from '../../contract/kernel_names';
import {permuteSizes} from '../../contract/output_sizes';
import {numKeysOf} from '../expert_sort/plan';
import {assertExact, assertFits, assertFloat32, fillTensor, isPacked, runGlsl, webglKernel} from '../shared/webgl';
import {
  assertSortFits,
  assignmentsOfRows,
  disposeSorted,
  labelsOfRows,
  type SortedExperts,
  sortExperts,
} from '../expert_sort/webgl';
import {permutePlan} from './plan';

/** Whether permuted rows have 2 x 2 elements in a texel. They do if the tokens' rows do, as later ops prefer it. */
const movesPackedRows = isPacked;

export const moePermuteWebGL = webglKernel(MoePermute, (backend, inputs, attrs) => {
  const {hiddenStates, topkIds, expertMap, a1qScale} = inputs;
  const {numExperts, numLocalExperts, alignBlockSize, fillInvalidExpert} = attrs;
  const {numAssignments, numRows} = permuteSizes(topkIds.shape, attrs);
  const topk = topkIds.shape[1];
  const padsWithLastToken = attrs.padding === 'lastToken';
  const plan = permutePlan(numAssignments, expertMap != null, attrs);
  const {mapUse, labels} = plan;
  const rowsShape = [numRows, hiddenStates.shape[1]];
  const scaleShape = [numRows, ...(a1qScale?.shape.slice(1) ?? [])];

  assertFloat32(MoePermute, 'hiddenStates', hiddenStates);
  assertExact(MoePermute, {
    'the number of assignments (T*K)': numAssignments,
    'the number of permuted rows': numRows,
    numExperts,
    'the number of sort keys': numKeysOf(numExperts, mapUse),
    fillInvalidExpert,
  });
  assertFits(MoePermute, {permutedHiddenStates: rowsShape}, movesPackedRows(backend, hiddenStates));
  assertFits(MoePermute, {permutedIdx: [numRows]});
  if (a1qScale != null) {
    assertFloat32(MoePermute, 'a1qScale', a1qScale);
    assertFits(MoePermute, {a1qScale: scaleShape}, movesPackedRows(backend, a1qScale));
  }
  assertSortFits(MoePermute, numAssignments, numKeysOf(numExperts, mapUse));

  const names = mapUse === 'label' ? expertMap : undefined;
  if (numAssignments === 0) {
    const offsets = fillTensor(backend, [numLocalExperts + 1], 'int32', 0);
    return {
      permutedHiddenStates: fillTensor(backend, rowsShape, 'float32', 0),
      expertFirstTokenOffset: offsets,
      invPermutedIdx: fillTensor(backend, [0], 'int32', 0),
      mIndices: labelsOfRows(backend, offsets, names, labels, numRows, 1),
      permutedIdx: fillTensor(backend, [numRows], 'int32', 0),
      a1qScale: a1qScale && fillTensor(backend, scaleShape, 'float32', 0),
    };
  }

  const sorted = sortExperts(backend, topkIds, expertMap, plan);
  const lastAssignment = numAssignments - 1;
  const permutedIdx = assignmentsOfRows(backend, sorted, numRows, padsWithLastToken ? lastAssignment : numAssignments);
  const inverse = rowsOfAssignments(backend, sorted, {
    isAligned: Number(alignBlockSize > 0),
    // Aligned, what has no row shares one index: the last offset, or R.
    hasSharedIndexOfRows: Number(padsWithLastToken),
    numRows,
  });
  const mIndices = labelsOfRows(backend, sorted.rows, names, labels, numRows, 1);
  const gather = {permutedIdx, numAssignments, topk};
  const permutedHiddenStates = gatherRows(backend, hiddenStates, rowsShape, {...gather, maxAssignment: numAssignments});
  // Rows of no assignment carry the last token's scale.
  const scale = a1qScale && gatherRows(backend, a1qScale, scaleShape, {...gather, maxAssignment: lastAssignment});
  disposeSorted(backend, sorted, [sorted.rows]);
  return {
    permutedHiddenStates,
    expertFirstTokenOffset: sorted.rows,
    invPermutedIdx: inverse,
    mIndices,
    permutedIdx,
    a1qScale: scale,
  };
});

/** int32 [N]: the row of each assignment; of one without a row, its sorted position or the shared index. */
function rowsOfAssignments(
  backend: MathBackendWebGL,
  {keys, order, positions, rows}: SortedExperts,
  uniforms: {isAligned: number; hasSharedIndexOfRows: number; numRows: number},
): TensorInfo {
  const [numAssignments] = keys.shape;
  return runGlsl(backend, {
    name: 'MoeRowsOfAssignments',
    inputs: {keys, order, positions, rows},
    uniforms: {...uniforms, numAssignments, numLocalExperts: rows.shape[0] - 1},
    output: {shape: [numAssignments], dtype: 'int32'},
    code: `
      void main() {
        int i = getOutputCoords();
        float assignment = float(i);
        float key = getKeys(i);
        int expert = indexOf(key);
        bool isLocal = expert < numLocalExperts;
        if (!isLocal && isAligned == 1) {
          setOutput(hasSharedIndexOfRows == 1 ? float(numRows) : getRows(numLocalExperts));
          return;
        }
        // The sorted position: that of the first assignment that does not sort before this one.
        int low = indexOf(getPositions(isLocal ? expert : numLocalExperts));
        int high = isLocal ? indexOf(getPositions(expert + 1)) : numAssignments;
        while (low < high) {
          int middle = (low + high) / 2;
          float other = getOrder(middle);
          float otherKey = getKeys(indexOf(other));
          if (otherKey < key || (otherKey == key && other < assignment)) { low = middle + 1; } else { high = middle; }
        }
        float position = float(low);
        setOutput(isLocal ? getRows(expert) + (position - getPositions(expert)) : position);
      }`,
  });
}

type Gather = {
  /** int32 [R]: the assignment of each row. */
  permutedIdx: TensorInfo;
  numAssignments: number;
  topk: number;
  /** A row of a later assignment reads this assignment. If it is N, which is no assignment, the row is 0. */
  maxAssignment: number;
};

/** out[r] = x[token of permutedIdx[r]], for x of rank 2 or more. */
function gatherRows(backend: MathBackendWebGL, x: TensorInfo, shape: number[], gather: Gather): TensorInfo {
  const asMatrix = ([numRows, ...rest]: number[]) => [numRows, rest.reduce((size, dim) => size * dim, 1)];
  const matrix = {...x, shape: asMatrix(x.shape)};
  const gatherMatrix = movesPackedRows(backend, x) ? gatherPackedRows : gatherUnpackedRows;
  return {...gatherMatrix(backend, matrix, asMatrix(shape), gather), shape};
}

function gatherUnpackedRows(backend: MathBackendWebGL, x: TensorInfo, shape: number[], gather: Gather): TensorInfo {
  const {permutedIdx, numAssignments, topk, maxAssignment} = gather;
  return runGlsl(backend, {
    name: 'MoePermuteRows',
    inputs: {x, permutedIdx},
    uniforms: {numAssignments, topk, maxAssignment},
    output: {shape, dtype: 'float32'},
    code: `
      void main() {
        ivec2 coords = getOutputCoords();
        int assignment = min(indexOf(getPermutedIdx(coords.x)), maxAssignment);
        float element = 0.0;
        if (assignment < numAssignments) { element = getX(assignment / topk, coords.y); }
        setOutput(element);
      }`,
  });
}

/**
 * A texel of the result has two columns of two rows, of two tokens. Their elements are read one by one, since of a
 * texel of a token's row one half would be read in vain; tfjs unpacks the tokens, which are fewer by a factor of K.
 */
function gatherPackedRows(backend: MathBackendWebGL, x: TensorInfo, shape: number[], gather: Gather): TensorInfo {
  const {permutedIdx, numAssignments, topk, maxAssignment} = gather;
  const [numRows, rowSize] = shape;
  return runGlsl(backend, {
    name: 'MoePermuteRows_packed',
    inputs: {x, permutedIdx},
    uniforms: {numRows, rowSize, numAssignments, topk, maxAssignment},
    output: {shape, dtype: 'float32'},
    packed: 'output',
    code: `
      // tfjs's programs take what is past the last row or column for 0.
      vec2 columnsOf(int row, int column) {
        if (row >= numRows) { return vec2(0.0); }
        int assignment = min(indexOf(getPermutedIdx(row)), maxAssignment);
        if (assignment >= numAssignments) { return vec2(0.0); }
        int token = assignment / topk;
        return vec2(getX(token, column), column + 1 < rowSize ? getX(token, column + 1) : 0.0);
      }
      void main() {
        ivec2 coords = getOutputCoords();
        setOutput(vec4(columnsOf(coords.x, coords.y), columnsOf(coords.x + 1, coords.y)));
      }`,
  });
}
