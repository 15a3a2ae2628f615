const SEED_FOR_ZERO = 2 ** 30;

/** The seed of the `index`-th draw: the first has `seed` itself, and no other is one that a seed nearby gives. */
export function seedOf(seed: number, index: number): number {
  const far = index === 0 ? seed : (seed + index * 2654435761) % 2 ** 32;
  // tfjs takes 0 for no seed at all.
  return far === 0 ? SEED_FOR_ZERO : far;
}
