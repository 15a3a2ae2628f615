/** Integers 0 to 255. Codes are those of ggml's Q8_0: rounded half away from the zero point. */
import {integersGlsl, integersWgsl} from './integers';
import type {WeightFormat} from './weight_format';

export const int8: WeightFormat = {
  decode: (code) => code,
  encode: (scaled, zeroPoint) => {
    const truncated = Math.trunc(scaled);
    const rounded = truncated + (Math.abs(scaled - truncated) >= 0.5 ? Math.sign(scaled) : 0);
    return Math.max(0, Math.min(255, rounded + zeroPoint));
  },
  largest: 127,
  unit: 1,
  decodeWgsl: (zeroPoint) => /* wgsl */ `
  ${integersWgsl(zeroPoint)}
  fn decodeQuad(quad : u32) -> vec4<f32> {
    return integersOf((vec4<u32>(quad) >> vec4<u32>(0, 8, 16, 24)) & vec4<u32>(255));
  }`,
  encodeWgsl: (zeroPoint) => /* wgsl */ `
  fn encode(bits : u32) -> u32 {
    let scaled = bitcast<f32>(bits);
    let truncated = trunc(scaled);
    let rounded = truncated + select(0.0, sign(scaled), abs(scaled - truncated) >= 0.5);
    return u32(clamp(rounded + ${zeroPoint}.0, 0.0, 255.0));
  }`,
  decodeGlsl: (zeroPoint) => `
  ${integersGlsl(zeroPoint)}
  vec4 decodeCodes(uvec4 codes) { return integersOf(codes & 255u); }`,
};
