/** The upper half of a float32. Numbers below 2^-126 are subnormal in float32 too, and GPUs may take them for 0. */
import {bitsOf, floatOf} from './small_floats';
import type {WeightFormat} from './weight_format';

const NAN = 0x7fc0;

/** The nearest code, the even one of two. */
function encode(value: number): number {
  const bits = bitsOf(value);
  return Number.isNaN(value) ? NAN : ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** WGSL: encodeUpperHalf, of the bits of a float32. */
export const ENCODE_UPPER_HALF_WGSL = /* wgsl */ `
  fn encodeUpperHalf(bits : u32) -> u32 {
    if ((bits & 0x7fffffffu) > 0x7f800000u) { return ${NAN}u; }
    return (bits + 0x7fffu + ((bits >> 16) & 1)) >> 16;
  }`;

export const bfloat16: WeightFormat = {
  decode: (code) => floatOf(code << 16),
  encode,
  largest: 0,
  unit: 1,
  decodeWgsl: () => /* wgsl */ `
  fn decodeQuad(quad : vec2<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4(quad.x << 16, quad.x & 0xffff0000u, quad.y << 16, quad.y & 0xffff0000u));
  }`,
  encodeWgsl: () => /* wgsl */ `
  ${ENCODE_UPPER_HALF_WGSL}
  fn encode(bits : u32) -> u32 { return encodeUpperHalf(bits); }`,
  decodeGlsl: () => `
  vec4 decodeQuad(uvec2 quad) {
    return uintBitsToFloat(uvec4(quad.x << 16, quad.x & 0xffff0000u, quad.y << 16, quad.y & 0xffff0000u));
  }`,
};
