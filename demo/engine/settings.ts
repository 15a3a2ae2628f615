/** What a visitor sets on the running net. Every setting acts on the next call; none changes a weight. */

export const NUM_EXPERTS = 8;

export type Settings = {
  /** K: how many experts a patch goes to. */
  topk: number;
  /** An expert takes at most ceil(capacityFactor * T * K / E) of T patches. Null: it takes all. */
  capacityFactor: number | null;
  /** In training, router inputs are multiplied by random numbers of 1 - jitter to 1 + jitter. */
  jitter: number;
  /** The factor of the load-balancing loss in the loss of training. */
  balance: number;
  /** Experts that get no patch: their router bias is as good as -Infinity. */
  silenced: boolean[];
  /** A factor of each expert's output. */
  boosts: number[];
  /** The expert whose weights each expert uses: itself, unless another was cloned over it. */
  sources: number[];
};

export const eachExpert = <T>(of: (expert: number) => T): T[] => Array.from({length: NUM_EXPERTS}, (_, e) => of(e));

export const defaultSettings = (): Settings => ({
  topk: 2,
  capacityFactor: null,
  jitter: 0,
  balance: 0.05,
  silenced: eachExpert(() => false),
  boosts: eachExpert(() => 1),
  sources: eachExpert((expert) => expert),
});

/** Whether an expert differs from the trained one. */
export const isEdited = ({silenced, boosts, sources}: Settings, expert: number): boolean =>
  silenced[expert] || boosts[expert] !== 1 || sources[expert] !== expert;
