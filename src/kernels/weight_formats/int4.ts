/** Integers 0 to 15. Codes are those of ggml's Q4_0 and Q4_1: rounded half up. */
import {integersGlsl, integersWgsl} from './integers';
import type {WeightFormat} from './weight_format';

export const int4: WeightFormat = {
  decode: (code) => code,
  encode: (scaled, zeroPoint) => Math.max(0, Math.min(15, Math.trunc(Math.fround(scaled + (zeroPoint + 0.5))))),
  largest: -8,
  unit: 1,
  decodeWgsl: (zeroPoint) => /* wgsl */ `
  ${integersWgsl(zeroPoint)}
  fn decodeQuad(quad : u32) -> vec4<f32> {
    return integersOf((vec4<u32>(quad) >> vec4<u32>(0, 4, 8, 12)) & vec4<u32>(15));
  }`,
  encodeWgsl: (zeroPoint) => /* wgsl */ `
  fn encode(bits : u32) -> u32 {
    return u32(clamp(bitcast<f32>(bits) + ${zeroPoint}.5, 0.0, 15.0));
  }`,
  decodeGlsl: (zeroPoint) => `
  ${integersGlsl(zeroPoint)}
  vec4 decodeCodes(uvec4 codes) { return integersOf(codes & 15u); }`,
};
