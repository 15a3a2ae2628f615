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

/** The constants of the WGSL below. All numbers of experts that have as many lanes have one pipeline. */
export const laneConstants = (numExperts: number): {NUM_THREADS: number; LANES: number} => ({
  NUM_THREADS: LANE_THREADS,
  LANES: lanesOf(numExperts),
});

/**
 * WGSL: what the LANES lanes of a row exchange, each time in the half of an array that no lane can still be reading, so
 * that one barrier is enough. All threads of the workgroup must call these functions.
 */
export const LANES_WGSL = /* wgsl */ `
  // Tokens of a workgroup.
  const TOKENS = NUM_THREADS / LANES;
  const NONE = 0xffffffffu;
  var<workgroup> exchange : array<vec2<u32>, 2 * NUM_THREADS>;
  var<private> halfStart = 0u;

  fn isBefore(a : vec2<u32>, b : vec2<u32>) -> bool { return a.x > b.x || (a.x == b.x && a.y < b.y); }

  // The best key and its id, ties to the lower id.
  fn bestOfLanes(thread : u32, mine : vec2<u32>) -> vec2<u32> {
    halfStart = NUM_THREADS - halfStart;
    exchange[halfStart + thread] = mine;
    workgroupBarrier();
    let first = halfStart + thread / LANES * LANES;
    var best = vec2<u32>(0u, NONE);
    for (var lane = 0u; lane < LANES; lane++) {
      let other = exchange[first + lane];
      if (isBefore(other, best)) { best = other; }
    }
    return best;
  }

  fn sumOfLanes(thread : u32, mine : vec2<f32>) -> vec2<f32> {
    halfStart = NUM_THREADS - halfStart;
    exchange[halfStart + thread] = bitcast<vec2<u32>>(mine);
    workgroupBarrier();
    let first = halfStart + thread / LANES * LANES;
    var sum = vec2<f32>();
    for (var lane = 0u; lane < LANES; lane++) { sum += bitcast<vec2<f32>>(exchange[first + lane]); }
    return sum;
  }
`;

/** How a lane sums over its experts. */
export type LaneSum = {
  /** What the name of a program has in addition. */
  suffix: string;
  uniforms: Record<string, number>;
  /**
   * sumOfLane(lane, first, largest): the sum of summand(first + e, largest) over the lane's experts e. The program adds
   * `summand`.
   */
  wgsl: string;
};

const oneChain: LaneSum = {
  suffix: '',
  uniforms: {},
  wgsl: /* wgsl */ `
  fn sumOfLane(lane : u32, first : u32, largest : f32) -> f32 {
    var sum = 0.0;
    for (var e = lane; e < uniforms.numExperts; e += LANES) { sum += summand(first + e, largest); }
    return sum;
  }
`,
};

const longSum: LaneSum = {
  suffix: '_long',
  uniforms: LONG_SUM_UNIFORMS,
  wgsl: /* wgsl */ `
  const CHAIN = ${CHAIN_TERMS} * LANES;
  ${longSumWgsl('f32')}
  fn sumOfLane(lane : u32, first : u32, largest : f32) -> f32 {
    var total = LongSum();
    for (var start = lane; start < uniforms.numExperts; start += CHAIN) {
      var chain = 0.0;
      for (var e = start; e < min(start + CHAIN, uniforms.numExperts); e += LANES) {
        chain += summand(first + e, largest);
      }
      total = addChain(total, chain);
    }
    return total.value;
  }
`,
};

export const laneSumOf = (numExperts: number): LaneSum =>
  numExperts > ONE_CHAIN_TERMS * LANE_THREADS ? longSum : oneChain;
