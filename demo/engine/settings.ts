/** What a visitor sets on the running net. Every setting acts on the next call; none changes a weight. */

export const NUM_EXPERTS = 8;

/** How experts of a layer differ from the trained ones. */
export type Edits = {
  /** Experts that get no token: their router bias is as good as -Infinity. */
  silenced: boolean[];
  /** A factor of each expert's output. */
  boosts: number[];
  /** The expert whose weights each expert uses: itself, unless another was cloned over it. */
  sources: number[];
};

export type Settings = Edits & {
  /** K: how many experts a patch goes to. */
  topk: number;
  /** An expert takes at most ceil(capacityFactor * T * K / E) of T patches. Null: it takes all. */
  capacityFactor: number | null;
  /** In training, router inputs are multiplied by random numbers of 1 - jitter to 1 + jitter. */
  jitter: number;
  /** The factor of the load-balancing loss in the loss of training. */
  balance: number;
  /** How far each step of training moves the bias of an expert, by which experts are chosen and not weighted. */
  biasRate: number;
};

export const eachExpert = <T>(of: (expert: number) => T): T[] => Array.from({length: NUM_EXPERTS}, (_, e) => of(e));

export const noEdits = (): Edits => ({
  silenced: eachExpert(() => false),
  boosts: eachExpert(() => 1),
  sources: eachExpert((expert) => expert),
});

export const defaultSettings = (): Settings => ({
  ...noEdits(),
  topk: 2,
  capacityFactor: null,
  jitter: 0,
  balance: 0.05,
  biasRate: 0,
});

/** Whether an expert differs from the trained one. */
export const isEdited = ({silenced, boosts, sources}: Edits, expert: number): boolean =>
  silenced[expert] || boosts[expert] !== 1 || sources[expert] !== expert;

export const isAnyEdited = (edits: Edits): boolean => edits.sources.some((_, expert) => isEdited(edits, expert));
