/** What MoeAlignBlockSize asks of the sort, on both GPU backends. */
import type {MoeAlignBlockSizeAttrs} from '../../contract/kernel_names';
import type {SortPlan} from '../expert_sort/plan';

export function alignPlan(numAssignments: number, hasMap: boolean, attrs: MoeAlignBlockSizeAttrs): SortPlan {
  const {numExperts, blockSize, ignoreInvalidExperts} = attrs;
  return {
    sizes: {numAssignments, numExperts, numLocalExperts: numExperts, blockSize},
    mapUse: !hasMap ? 'none' : ignoreInvalidExperts ? 'merge' : 'label',
    labels: {experts: 'own', tail: ignoreInvalidExperts ? 'fill' : 'expertZero', fill: -1},
  };
}
