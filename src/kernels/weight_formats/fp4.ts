/**
 * E2M1: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives, code 8 being -0.
 *
 * The exponent and mantissa as those of a float32 give f, which is right for all but the subnormal codes 0 and 1: these
 * are 2f - 1, and for all others 2f - 1 is not below f.
 */
import {decodeSmallFloat, encodeSmallFloat, type SmallFloat, smallFloatArguments} from './small_floats';
import type {WeightFormat} from './weight_format';

const e2m1: SmallFloat = {exponentBias: 1, mantissaBits: 1, signBit: 8, largestCode: 7};

export const fp4: WeightFormat = {
  decode: (code) => decodeSmallFloat(code, e2m1),
  encode: (scaled) => encodeSmallFloat(scaled, e2m1),
  largest: 6,
  unit: 0.25,
  // An exponent of four times the number leaves bits 22 to 24 free: no addition carries into them.
  decodeWgsl: () => /* wgsl */ `
  fn decodeQuad(quad : u32) -> vec4<f32> {
    let codes = vec4<u32>(quad) << vec4<u32>(22, 18, 14, 10);
    let f = bitcast<vec4<f32>>((codes & vec4<u32>(0x01C00000u)) | vec4<u32>(0x40000000u));
    let sizes = bitcast<vec4<u32>>(min(f, 2 * f - 4));
    return bitcast<vec4<f32>>(sizes | ((codes << vec4<u32>(6)) & vec4<u32>(0x80000000u)));
  }`,
  encodeWgsl: () => /* wgsl */ `
  fn encode(bits : u32) -> u32 { return encodeSmallFloat(bits, ${smallFloatArguments(e2m1)}); }`,
  decodeGlsl: () => `
  vec4 decodeCodes(uvec4 codes) {
    vec4 f = uintBitsToFloat(((codes & 7u) << 22) + 0x3F000000u);
    return uintBitsToFloat(floatBitsToUint(min(f, 2.0 * f - 1.0)) | ((codes & 8u) << 28));
  }`,
};
