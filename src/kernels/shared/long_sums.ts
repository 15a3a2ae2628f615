/**
 * Sums of any number of float32 terms on GPUs, in the order of the terms. One chain of additions would be off by up to
 * 2^-24 of the result for each term, so terms are added in chains of at most CHAIN_TERMS, and the sum of each chain to
 * a total that remembers what it rounded off (Kahan): the error is at most (CHAIN_TERMS + 3) * 2^-24 * sum|terms|.
 *
 * Shader compilers may reorder float arithmetic, and would find that nothing is rounded off. So each step of the total
 * goes through an exclusive or of its bits with `zero`, a uniform that is 0, of which a compiler does not know that.
 */

export const CHAIN_TERMS = 32;
/** So many terms are one chain: the sum that anyone would write. */
export const ONE_CHAIN_TERMS = 64;

/** The terms of a chain where their number is known beforehand. */
export function chainTermsOf(numTerms: number): number {
  return numTerms <= ONE_CHAIN_TERMS ? ONE_CHAIN_TERMS : CHAIN_TERMS;
}

/** The uniforms that the code below reads. */
export const LONG_SUM_UNIFORMS = {zero: 0};

const EXPONENT = '0x7f800000u';

/** WGSL, outside of functions: LongSum, which begins as LongSum(), and addChain. */
export function longSumWgsl(type: 'f32' | 'vec4<f32>'): string {
  const bits = type === 'f32' ? 'u32' : 'vec4<u32>';
  return `
  struct LongSum { value : ${type}, rest : ${type} }
  fn opaque(x : ${type}) -> ${type} { return bitcast<${type}>(bitcast<${bits}>(x) ^ ${bits}(uniforms.zero)); }
  fn addChain(sum : LongSum, chain : ${type}) -> LongSum {
    let change = opaque(chain + sum.rest);
    let value = opaque(sum.value + change);
    let rest = change - opaque(value - sum.value);
    // Infinity less Infinity is NaN, but such a sum has no rest.
    let isFinite = (bitcast<${bits}>(value) & ${bits}(${EXPONENT})) != ${bits}(${EXPONENT});
    return LongSum(value, select(${type}(), rest, isFinite));
  }`;
}

/** GLSL, outside of functions: addChain, for a sum and its rest, both 0 at first, of float or vec4. */
export const LONG_SUM_GLSL = `
  float opaque(float x) { return uintBitsToFloat(floatBitsToUint(x) ^ uint(zero)); }
  vec4 opaque(vec4 x) { return uintBitsToFloat(floatBitsToUint(x) ^ uvec4(uint(zero))); }
  // Infinity less Infinity is NaN, but such a sum has no rest.
  float restOf(float sum, float rest) {
    return (floatBitsToUint(sum) & ${EXPONENT}) == ${EXPONENT} ? 0.0 : rest;
  }
  void addChain(inout float sum, inout float rest, float chain) {
    float change = opaque(chain + rest);
    float value = opaque(sum + change);
    rest = restOf(value, change - opaque(value - sum));
    sum = value;
  }
  void addChain(inout vec4 sum, inout vec4 rest, vec4 chain) {
    vec4 change = opaque(chain + rest);
    vec4 value = opaque(sum + change);
    vec4 roundedOff = change - opaque(value - sum);
    rest = vec4(
      restOf(value.x, roundedOff.x), restOf(value.y, roundedOff.y),
      restOf(value.z, roundedOff.z), restOf(value.w, roundedOff.w));
    sum = value;
  }
`;
