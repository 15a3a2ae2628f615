/** How patches are spread over experts. */
import {NUM_EXPERTS} from './settings';

/** How many assignments each expert has. Ids outside the experts count nowhere. */
export function loadOf(ids: ArrayLike<number>): number[] {
  const load = new Array<number>(NUM_EXPERTS).fill(0);
  for (let i = 0; i < ids.length; i++) {
    if (ids[i] >= 0 && ids[i] < NUM_EXPERTS) {
      load[ids[i]]++;
    }
  }
  return load;
}

/** The entropy of a load as a share of a uniform load's: 1 where all experts have the same. */
export function evenness(load: readonly number[]): number {
  const total = load.reduce((sum, count) => sum + count, 0);
  const terms = load.map((count) => (count === 0 ? 0 : -(count / total) * Math.log(count / total)));
  return terms.reduce((sum, term) => sum + term, 0) / Math.log(load.length);
}

/** The part of the chosen assignments that went past the capacity of their experts. */
export function droppedShare(topkIds: ArrayLike<number>, keptIds: ArrayLike<number>): number {
  const count = (ids: ArrayLike<number>) => loadOf(ids).reduce((sum, ofExpert) => sum + ofExpert, 0);
  const chosen = count(topkIds);
  return chosen === 0 ? 0 : 1 - count(keptIds) / chosen;
}
