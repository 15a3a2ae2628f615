/**
 * The scores of router logits on all backends: for the host, and for shaders, which may compile as if NaN and
 * infinities did not exist and know them by keys, unsigned integers in the order of the floats. With l = log(score),
 * score / sum of scores is the softmax of l; so none is lost where scores underflow.
 */
import type {MoeKernelScoring} from '../../contract/kernel_names';

/** The values of the uniform `scoring` in shaders. */
export const SCORING_CODES: Record<MoeKernelScoring, number> = {
  softmax: 0,
  softmaxAfterTopk: 1,
  sigmoid: 2,
  sqrtSoftplus: 3,
};

/** The bits of a float32, as an int32. */
export function bitsOf(value: number): number {
  return new Int32Array(Float32Array.of(value).buffer)[0];
}

/** exp(x) / sum of exp(x); 0 where all are -Infinity, NaN where one is NaN or Infinity. */
export function softmax(x: ArrayLike<number>): Float64Array {
  const {exps, sum} = exponentials(x);
  for (let i = 0; sum !== 0 && i < exps.length; i++) {
    exps[i] /= sum;
  }
  return exps;
}

/** log(sum of exp(x)); 0 where all are -Infinity, NaN where one is NaN or Infinity. */
export function logSumExp(x: ArrayLike<number>): number {
  const {max, sum} = exponentials(x);
  return sum === 0 ? 0 : max + Math.log(sum);
}

/** exp(x - max), and their sum. Loops, because a call of `from` or `reduce` takes longer than the sum of few values. */
function exponentials(x: ArrayLike<number>): {max: number; exps: Float64Array; sum: number} {
  const max = maxOf(x);
  const exps = new Float64Array(x.length);
  let sum = 0;
  for (let i = 0; i < x.length; i++) {
    exps[i] = x[i] === -Infinity ? 0 : Math.exp(x[i] - max);
    sum += exps[i];
  }
  return {max, exps, sum};
}

function maxOf(x: ArrayLike<number>): number {
  let max = -Infinity;
  for (let i = 0; i < x.length; i++) {
    max = Math.max(max, x[i]);
  }
  return max;
}

const softplus = (x: number): number => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

type ScoreFunctions = {
  score: (x: number) => number;
  logScore: (x: number) => number;
  /** d logScore / d x */
  slope: (x: number) => number;
};

/** From here down softplus is exp(x) to the last bit. */
const SOFTPLUS_IS_EXP = -40;

const exponential: ScoreFunctions = {score: Math.exp, logScore: (x) => x, slope: () => 1};

export const scoreFunctions: Record<MoeKernelScoring, ScoreFunctions> = {
  softmax: exponential,
  softmaxAfterTopk: exponential,
  sigmoid: {score: sigmoid, logScore: (x) => -softplus(-x), slope: (x) => sigmoid(-x)},
  sqrtSoftplus: {
    score: (x) => Math.sqrt(softplus(x)),
    logScore: (x) => (x < SOFTPLUS_IS_EXP ? x : Math.log(softplus(x))) / 2,
    slope: (x) => (x < SOFTPLUS_IS_EXP ? 1 : sigmoid(x) / softplus(x)) / 2,
  },
};

/**
 * WGSL, where `scoring` is a uniform: keys of floats, which come and go as their bits, so that NaN does as it should,
 * and scores with their logarithms.
 */
export const SCORES_WGSL = /* wgsl */ `
  const SOFTMAX = ${SCORING_CODES.softmax}u;
  const SIGMOID = ${SCORING_CODES.sigmoid}u;
  const SQRT_SOFTPLUS = ${SCORING_CODES.sqrtSoftplus}u;

  const NAN_BITS = 0x7fc00000u;
  // Keys: u32 in the order of the floats. No float has 0; NaN is below -Infinity.
  const NAN_KEY = 1u;
  const NEGATIVE_INFINITY_KEY = 0x007fffffu;
  const FIRST_FINITE_KEY = 0x00800000u;
  const LAST_FINITE_KEY = 0xff7fffffu;
  const INFINITY_KEY = 0xff800000u;

  fn orderedBits(bits : u32) -> u32 {
    let magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) { return NAN_KEY; }
    if (magnitude == 0) { return 0x80000000u; }
    return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
  }

  fn floatOfKey(key : u32) -> f32 { return bitcast<f32>(select(~key, key & 0x7fffffffu, key >= 0x80000000u)); }

  fn finiteFloatOfKey(key : u32) -> f32 { return floatOfKey(clamp(key, FIRST_FINITE_KEY, LAST_FINITE_KEY)); }

  // 2 * atanh(z / (2 + z)) for z in 0..1, where log(1 + z) would lose the digits of a small z.
  fn log1p(z : f32) -> f32 {
    let s = z / (2 + z);
    let q = s * s;
    let tail = 1.0 / 7 + q * (1.0 / 9 + q * (1.0 / 11 + q / 13));
    return 2 * s * (1 + q * (1.0 / 3 + q * (1.0 / 5 + q * tail)));
  }

  // exp(-|x|), of an infinite x too.
  fn decay(x : f32) -> f32 { return exp(-min(abs(x), 200)); }

  fn softplus(x : f32) -> f32 { return max(x, 0) + log1p(decay(x)); }

  fn sigmoid(x : f32) -> f32 {
    let z = decay(x);
    return select(z, 1.0, x >= 0) / (1 + z);
  }

  // Below this, log(softplus(x)) is x - exp(x) / 2.
  const SMALL = -10.0;

  fn logScore(x : f32) -> f32 {
    switch (uniforms.scoring) {
      case SIGMOID: { return -softplus(-x); }
      case SQRT_SOFTPLUS: {
        if (x < SMALL) { return (x - decay(x) / 2) / 2; }
        return log(softplus(x)) / 2;
      }
      default: { return x; }
    }
  }

  // The root of what underflows does not: where softplus does, it is exp of half the logarithm.
  fn score(x : f32) -> f32 {
    if (uniforms.scoring == SIGMOID) { return sigmoid(x); }
    if (x < SMALL) { return exp(max(logScore(x), -200)); }
    return sqrt(softplus(x));
  }

  // d logScore / d x
  fn slope(x : f32) -> f32 {
    switch (uniforms.scoring) {
      case SIGMOID: { return sigmoid(-x); }
      case SQRT_SOFTPLUS: {
        if (x < SMALL) { return (1 - decay(x) / 2) / 2; }
        return sigmoid(x) / softplus(x) / 2;
      }
      default: { return 1; }
    }
  }

  // d score / d x, of what is no softmax.
  fn scoreSlope(x : f32) -> f32 {
    if (uniforms.scoring == SIGMOID || x < SMALL) { return score(x) * slope(x); }
    return sigmoid(x) / sqrt(softplus(x)) / 2;
  }

  // Score / largest score, by their logarithms: largest is that of the largest score.
  fn relativeScore(key : u32, largest : f32) -> f32 {
    if (key == NEGATIVE_INFINITY_KEY) { return 0; }
    return exp(logScore(finiteFloatOfKey(key)) - largest);
  }

  // Past all keys: what makes NaN of a softmax or of a sum of scores.
  const BAD_KEY = 0xffffffffu;

  fn badOr(key : u32) -> u32 {
    let isBad = key == NAN_KEY || (key == INFINITY_KEY && uniforms.scoring != SIGMOID);
    return select(key, BAD_KEY, isBad);
  }
`;

/** GLSL: floats and their order. */
export const KEYS_GLSL = `
  const uint NAN_KEY = 1u;
  const uint NEGATIVE_INFINITY_KEY = 0x007fffffu;
  const uint FIRST_FINITE_KEY = 0x00800000u;
  const uint LAST_FINITE_KEY = 0xff7fffffu;
  const uint INFINITY_KEY = 0xff800000u;

  uint orderedBits(float value) {
    uint bits = floatBitsToUint(value);
    uint magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) { return NAN_KEY; }
    if (magnitude == 0u) { return 0x80000000u; }
    return bits >= 0x80000000u ? ~bits : bits | 0x80000000u;
  }

  float floatOfKey(uint key) { return uintBitsToFloat(key >= 0x80000000u ? key & 0x7fffffffu : ~key); }

  float finiteFloatOfKey(uint key) { return floatOfKey(clamp(key, FIRST_FINITE_KEY, LAST_FINITE_KEY)); }
`;

/** GLSL, after KEYS_GLSL, where `scoring` is a uniform: scores and their logarithms. */
export const SCORES_GLSL = `
  // 2 * atanh(z / (2 + z)) for z in 0..1, where log(1 + z) would lose the digits of a small z.
  float log1p(float z) {
    float s = z / (2.0 + z);
    float q = s * s;
    float tail = 1.0 / 7.0 + q * (1.0 / 9.0 + q * (1.0 / 11.0 + q / 13.0));
    return 2.0 * s * (1.0 + q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * tail)));
  }

  // exp(-|x|), of an infinite x too.
  float decay(float x) { return exp(-min(abs(x), 200.0)); }

  float softplus(float x) { return max(x, 0.0) + log1p(decay(x)); }

  float sigmoid(float x) {
    float z = decay(x);
    return (x >= 0.0 ? 1.0 : z) / (1.0 + z);
  }

  // Below this, log(softplus(x)) is x - exp(x) / 2.
  const float SMALL = -10.0;

  float logScore(float x) {
    if (scoring == ${SCORING_CODES.sigmoid}) { return -softplus(-x); }
    if (scoring == ${SCORING_CODES.sqrtSoftplus}) {
      return (x < SMALL ? x - decay(x) / 2.0 : log(softplus(x))) / 2.0;
    }
    return x;
  }

  // The root of what underflows does not: where softplus does, it is exp of half the logarithm.
  float score(float x) {
    if (scoring == ${SCORING_CODES.sigmoid}) { return sigmoid(x); }
    return x < SMALL ? exp(max(logScore(x), -200.0)) : sqrt(softplus(x));
  }

  // d logScore / d x
  float slope(float x) {
    if (scoring == ${SCORING_CODES.sigmoid}) { return sigmoid(-x); }
    if (scoring == ${SCORING_CODES.sqrtSoftplus}) {
      return (x < SMALL ? 1.0 - decay(x) / 2.0 : sigmoid(x) / softplus(x)) / 2.0;
    }
    return 1.0;
  }

  // d score / d x, of what is no softmax.
  float scoreSlope(float x) {
    if (scoring == ${SCORING_CODES.sigmoid} || x < SMALL) { return score(x) * slope(x); }
    return sigmoid(x) / sqrt(softplus(x)) / 2.0;
  }

  // Score / largest score, by their logarithms: largest is that of the largest score.
  float relativeScore(uint key, float largest) {
    return key == NEGATIVE_INFINITY_KEY ? 0.0 : exp(logScore(finiteFloatOfKey(key)) - largest);
  }
`;
