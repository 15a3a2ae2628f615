/** What MoePermute asks of the sort, on both GPU backends. */
import type {MoePermuteAttrs} from '../../contract/kernel_names';
import type {SortPlan} from '../expert_sort/plan';

export function permutePlan(numAssignments: number, hasMap: boolean, attrs: MoePermuteAttrs): SortPlan {
  const {numExperts, numLocalExperts, alignBlockSize, fillInvalidExpert, padding} = attrs;
  const padsWithLastToken = padding === 'lastToken';
  return {
    sizes: {numAssignments, numExperts, numLocalExperts, blockSize: alignBlockSize},
    mapUse: !hasMap ? 'none' : padsWithLastToken ? 'label' : 'local',
    labels: {
      experts: alignBlockSize > 0 ? 'own' : 'fill',
      tail: padsWithLastToken ? 'expertZero' : 'fill',
      fill: fillInvalidExpert,
    },
  };
}
