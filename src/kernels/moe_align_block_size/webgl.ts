/**
 * MoeAlignBlockSize on WebGL: the sort of expert_sort/webgl.ts, then a draw an output, whose fragments look up what
 * belongs in their place.
 */
import {MoeAlignBlockSize} from '../../contract/kernel_names';
import {alignSizes} from '../../contract/output_sizes';
import {numKeysOf} from '../expert_sort/plan';
import {assertExact, assertFits, disposeAll, fillTensor, runGlsl, webglKernel} from '../shared/webgl';
import {assertSortFits, assignmentsOfRows, disposeSorted, labelsOfRows, sortExperts} from '../expert_sort/webgl';
import {alignPlan} from './plan';

export const moeAlignBlockSizeWebGL = webglKernel(MoeAlignBlockSize, (backend, {topkIds, expertMap}, attrs) => {
  const {blockSize, numExperts} = attrs;
  const {numAssignments, numSortedIds, numBlocks} = alignSizes(topkIds.shape, attrs);
  const plan = alignPlan(numAssignments, expertMap != null, attrs);
  const {mapUse, labels} = plan;
  assertExact(MoeAlignBlockSize, {
    'the number of assignments (T*K)': numAssignments,
    numExperts,
    'the length of sortedTokenIds': numSortedIds,
  });
  assertFits(MoeAlignBlockSize, {sortedTokenIds: [numSortedIds]});
  assertSortFits(MoeAlignBlockSize, numAssignments, numKeysOf(numExperts, mapUse));
  const names = mapUse === 'label' ? expertMap : undefined;

  if (numAssignments === 0) {
    const rows = fillTensor(backend, [numExperts + 1], 'int32', 0);
    const outputs = {
      sortedTokenIds: fillTensor(backend, [numSortedIds], 'int32', 0),
      expertIds: labelsOfRows(backend, rows, names, labels, numBlocks, blockSize),
      numTokensPostPad: fillTensor(backend, [1], 'int32', 0),
    };
    disposeAll(backend, [rows]);
    return outputs;
  }

  const sorted = sortExperts(backend, topkIds, expertMap, plan);
  const sortedTokenIds = assignmentsOfRows(backend, sorted, numSortedIds, numAssignments);
  const expertIds = labelsOfRows(backend, sorted.rows, names, labels, numBlocks, blockSize);
  const numTokensPostPad = runGlsl(backend, {
    name: 'MoeAlignNumTokensPostPad',
    inputs: {rows: sorted.rows},
    uniforms: {numExperts},
    output: {shape: [1], dtype: 'int32'},
    code: 'void main() { setOutput(getRows(numExperts)); }',
  });
  disposeSorted(backend, sorted);
  return {sortedTokenIds, expertIds, numTokensPostPad};
});
