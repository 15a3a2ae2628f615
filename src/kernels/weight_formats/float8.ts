/**
 * E4M3FN: up to 448, with NaN for 0x7f and 0xff and no infinities.
 *
 * The exponent and mantissa as those of a float32 give f, which is right for all but subnormal codes: these are
 * 2f - 2^-6, and for all others 2f - 2^-6 is not below f.
 */
import {decodeSmallFloat, encodeSmallFloat, type SmallFloat, smallFloatArguments} from './small_floats';
import type {WeightFormat} from './weight_format';

const e4m3: SmallFloat = {exponentBias: 7, mantissaBits: 3, signBit: 0x80, largestCode: 0x7e};

export const float8: WeightFormat = {
  decode: (code) => ((code & 0x7f) === 0x7f ? NaN : decodeSmallFloat(code, e4m3)),
  encode: (scaled) => encodeSmallFloat(scaled, e4m3),
  largest: 448,
  unit: 1,
  decodeWgsl: () => /* wgsl */ `
  fn decodeQuad(quad : u32) -> vec4<f32> {
    let codes = vec4<u32>(quad) >> vec4<u32>(0, 8, 16, 24);
    let magnitudes = codes & vec4<u32>(0x7f);
    let f = bitcast<vec4<f32>>((magnitudes << vec4<u32>(20)) + vec4<u32>(0x3C000000u));
    let sizes = bitcast<vec4<u32>>(min(f, 2 * f - 0.015625));
    let nan = select(vec4<u32>(), vec4<u32>(0x7fffffffu), magnitudes == vec4<u32>(0x7f));
    return bitcast<vec4<f32>>(sizes | nan | ((codes & vec4<u32>(0x80)) << vec4<u32>(24)));
  }`,
  encodeWgsl: () => /* wgsl */ `
  fn encode(bits : u32) -> u32 { return encodeSmallFloat(bits, ${smallFloatArguments(e4m3)}); }`,
  decodeGlsl: () => `
  vec4 decodeCodes(uvec4 codes) {
    uvec4 magnitudes = codes & 0x7fu;
    vec4 f = uintBitsToFloat((magnitudes << 20) + 0x3C000000u);
    uvec4 sizes = floatBitsToUint(min(f, 2.0 * f - 0.015625));
    // All bits where the magnitude is 0x7f: NaN.
    uvec4 nan = ((magnitudes + 1u) >> 7) * 0x7fffffffu;
    return uintBitsToFloat(sizes | nan | ((codes & 0x80u) << 24));
  }`,
};
