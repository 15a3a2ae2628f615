/** fusedMoe as plain loops in float64: each token's router, then its slots. */
import {type FusedCase, naiveFusedExperts, type NaiveFusedOptions} from './fused_experts';
import {naiveIds, type NaiveTopkOptions, naiveWeights} from './topk';

export function naiveFusedMoe(
  experts: Omit<FusedCase, 'ids' | 'topkWeights'>,
  logits: number[][],
  topkOptions: NaiveTopkOptions,
  options: NaiveFusedOptions,
): {values: number[]; magnitudes: number[]} {
  const ids = logits.map((row) => naiveIds(row, topkOptions));
  const topkWeights = logits.map((row, t) => naiveWeights(row, ids[t], topkOptions));
  return naiveFusedExperts({...experts, ids, topkWeights}, options);
}
