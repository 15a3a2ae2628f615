/** Odd and with many bits set, so that its multiples lie far apart among 2^32 seeds. */
const SEED_STEP = 2654435761;
const SEED_FOR_ZERO = 2 ** 30;

/** The seed of the `index`-th draw. The first draw has `seed` itself. Draws of nearby seeds have other seeds. */
export function seedOf(seed: number, index: number): number {
  const seedOfDraw = index === 0 ? seed : ((seed % 2 ** 32) + index * SEED_STEP) % 2 ** 32;
  // tfjs takes 0 as no seed at all.
  return seedOfDraw === 0 ? SEED_FOR_ZERO : seedOfDraw;
}
