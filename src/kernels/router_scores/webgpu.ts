/** Lanes: a few threads of a workgroup that take a row together, for programs of LANE_THREADS threads on WebGPU. */
import {CHAIN_TERMS, LONG_SUM_UNIFORMS, longSumWgsl, ONE_CHAIN_TERMS} from '../shared/long_sums';

export const LANE_THREADS = 64;

/** About as many lanes as each has experts: in a step, one looks through its own, and all through all lanes. */
export function lanesOf(numExperts: number): number {
  let lanes = 4;
  while (lanes < LANE_THREADS && lanes * lanes < numExperts) {
    lanes *= 2;
  }
  return lanes;
}

/**
 * WGSL: what the LANES lanes of a row say to each other, each time in the half that none can still be reading, so that
 * one barrier is enough.
 */
export const exchangeOf = (barrier: string) => `
  const THREADS = ${LANE_THREADS}u;
  const NONE = 0xffffffffu;
  var<workgroup> exchange : array<vec2<u32>, 2 * THREADS>;
  var<private> halfStart = 0u;

  // The best key and its id, ties to the lower id.
  fn bestOfLanes(thread : u32, mine : vec2<u32>) -> vec2<u32> {
    halfStart = THREADS - halfStart;
    exchange[halfStart + thread] = mine;
    ${barrier}
    let first = halfStart + thread / LANES * LANES;
    var best = vec2<u32>(0u, NONE);
    for (var lane = 0u; lane < LANES; lane++) {
      let other = exchange[first + lane];
      if (isBefore(other, best)) { best = other; }
    }
    return best;
  }

  fn sumOfLanes(thread : u32, mine : vec2<f32>) -> vec2<f32> {
    halfStart = THREADS - halfStart;
    exchange[halfStart + thread] = bitcast<vec2<u32>>(mine);
    ${barrier}
    let first = halfStart + thread / LANES * LANES;
    var sum = vec2<f32>();
    for (var lane = 0u; lane < LANES; lane++) { sum += bitcast<vec2<f32>>(exchange[first + lane]); }
    return sum;
  }

  fn isBefore(a : vec2<u32>, b : vec2<u32>) -> bool { return a.x > b.x || (a.x == b.x && a.y < b.y); }
`;

/** How a lane adds the terms of its experts: WGSL, and the uniforms that it reads. */
export type LaneSum = {
  /** What the name of a program has in addition. */
  suffix: string;
  uniforms: Record<string, number>;
  /** Outside of functions. */
  declarations: string;
  /** In `main`: adds `term`, an expression of the expert `e`, to `sum` for each expert of the lane. */
  addTerms: (sum: string, term: string) => string;
};

const oneChain: LaneSum = {
  suffix: '',
  uniforms: {},
  declarations: '',
  addTerms: (sum, term) => `for (var e = lane; e < uniforms.numExperts; e += LANES) { ${sum} += ${term}; }`,
};

const longSum: LaneSum = {
  suffix: '_long',
  uniforms: LONG_SUM_UNIFORMS,
  declarations: longSumWgsl('f32'),
  addTerms: (sum, term) => `
    var total = LongSum();
    for (var first = lane; first < uniforms.numExperts; first += ${CHAIN_TERMS} * LANES) {
      var chain = 0.0;
      for (var e = first; e < min(first + ${CHAIN_TERMS} * LANES, uniforms.numExperts); e += LANES) { chain += ${term}; }
      total = addChain(total, chain);
    }
    ${sum} += total.value;`,
};

export const laneSumOf = (numExperts: number): LaneSum =>
  numExperts > ONE_CHAIN_TERMS * LANE_THREADS ? longSum : oneChain;
