/**
 * IEEE half floats. unpack2x16float would do, but devices may take its subnormals for 0.
 *
 * The exponent and mantissa as those of a float32 give f, which is right for normal numbers. Subnormal ones are
 * 2f - 2^-14, and for all others 2f - 2^-14 is not below f. Infinity and NaN have the largest exponent in both.
 */
import {decodeSmallFloat, encodeSmallFloat, type SmallFloat, smallFloatArguments} from './small_floats';
import type {WeightFormat} from './weight_format';

const half: SmallFloat = {exponentBias: 15, mantissaBits: 10, signBit: 0x8000, largestCode: 0x7c00};
const NAN = 0x7e00;

function decode(code: number): number {
  if ((code & 0x7c00) === 0x7c00) {
    return code & 0x3ff ? NaN : code & 0x8000 ? -Infinity : Infinity;
  }
  return decodeSmallFloat(code, half);
}

/** WGSL: decodeHalf, of a code in the lowest 16 bits. */
export const DECODE_HALF_WGSL = /* wgsl */ `
  fn decodeHalf(code : u32) -> f32 {
    let bits = (code & 0x7fff) << 13;
    let f = bitcast<f32>(bits + 0x38000000u);
    // The exponent 31 becomes 255, and not 143. Elsewhere the size of NaN would be what min makes of it.
    let size = select(bitcast<u32>(min(f, 2 * f - 0x1p-14)), bits + 0x70000000u, bits >= 0x0F800000u);
    return bitcast<f32>(size | ((code & 0x8000) << 16));
  }`;

/** GLSL: decodeHalves and decodeHalf, the same. */
export const DECODE_HALF_GLSL = `
  vec4 decodeHalves(uvec4 codes) {
    uvec4 magnitudes = codes & 0x7fffu;
    // 1 for infinity and NaN, whose exponent 31 becomes 255, and not 143.
    uvec4 special = uvec4(greaterThanEqual(magnitudes, uvec4(0x7c00u)));
    uvec4 bits = (magnitudes << 13) + (special + 1u) * 0x38000000u;
    vec4 f = uintBitsToFloat(bits);
    // The size of NaN is its bits, whatever min makes of NaN.
    uvec4 sizes = floatBitsToUint(min(f, 2.0 * f - ${2 ** -14}));
    sizes = (sizes & (special - 1u)) | (bits & (0u - special));
    return uintBitsToFloat(sizes | ((codes & 0x8000u) << 16));
  }
  float decodeHalf(uint code) { return decodeHalves(uvec4(code)).x; }`;

/** WGSL: encodeHalf, of the bits of a float32. */
export const ENCODE_HALF_WGSL = /* wgsl */ `
  fn encodeHalf(bits : u32) -> u32 {
    if ((bits & 0x7fffffffu) > 0x7f800000u) { return ${NAN}u; }
    return encodeSmallFloat(bits, ${smallFloatArguments(half)});
  }`;

export const float16: WeightFormat = {
  decode,
  encode: (value) => (Number.isNaN(value) ? NAN : encodeSmallFloat(value, half)),
  largest: 0,
  unit: 1,
  // Infinity and NaN are rare: one question for all four.
  decodeWgsl: () => /* wgsl */ `
  fn decodeQuad(quad : vec2<u32>) -> vec4<f32> {
    let bits = vec4(quad.x << 13, quad.x >> 3, quad.y << 13, quad.y >> 3) & vec4<u32>(0x0FFFE000u);
    let f = bitcast<vec4<f32>>(bits + vec4<u32>(0x38000000u));
    var sizes = bitcast<vec4<u32>>(min(f, 2 * f - 0x1p-14));
    let areSpecial = bits >= vec4<u32>(0x0F800000u);
    if (any(areSpecial)) { sizes = select(sizes, bits + vec4<u32>(0x70000000u), areSpecial); }
    let signs = vec4(quad.x << 16, quad.x, quad.y << 16, quad.y) & vec4<u32>(0x80000000u);
    return bitcast<vec4<f32>>(sizes | signs);
  }`,
  encodeWgsl: () => /* wgsl */ `
  ${ENCODE_HALF_WGSL}
  fn encode(bits : u32) -> u32 { return encodeHalf(bits); }`,
  decodeGlsl: () => `
  ${DECODE_HALF_GLSL}
  vec4 decodeQuad(uvec2 quad) { return decodeHalves(quad.xxyy >> uvec4(0, 16, 0, 16)); }`,
};
