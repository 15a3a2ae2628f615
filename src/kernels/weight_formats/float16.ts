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
  fn decodeHalves(codes : vec4<u32>) -> vec4<f32> {
    let magnitudes = codes & vec4<u32>(0x7fff);
    // The exponent 31 becomes 255, and not 143.
    let rebias = select(vec4<u32>(0x38000000u), vec4<u32>(0x70000000u), magnitudes >= vec4<u32>(0x7c00));
    let bits = (magnitudes << vec4<u32>(13)) + rebias;
    let f = bitcast<vec4<f32>>(bits);
    // The size of NaN is its bits, whatever min makes of NaN.
    let sizes = select(bitcast<vec4<u32>>(min(f, 2 * f - 0x1p-14)), bits, magnitudes >= vec4<u32>(0x7c00));
    return bitcast<vec4<f32>>(sizes | ((codes & vec4<u32>(0x8000)) << vec4<u32>(16)));
  }
  fn decodeHalf(code : u32) -> f32 { return decodeHalves(vec4<u32>(code)).x; }`;

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
  decodeWgsl: () => /* wgsl */ `
  ${DECODE_HALF_WGSL}
  fn decodeQuad(quad : vec2<u32>) -> vec4<f32> {
    return decodeHalves(vec4(quad.xxyy) >> vec4<u32>(0, 16, 0, 16));
  }`,
  encodeWgsl: () => /* wgsl */ `
  ${ENCODE_HALF_WGSL}
  fn encode(bits : u32) -> u32 { return encodeHalf(bits); }`,
  decodeGlsl: () => `
  ${DECODE_HALF_GLSL}
  vec4 decodeQuad(uvec2 quad) { return decodeHalves(quad.xxyy >> uvec4(0, 16, 0, 16)); }`,
};
