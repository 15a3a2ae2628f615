/** How the scales of groups are stored, for hosts and shaders: packed into words, low bits first. */
import {type ScaleFormat, scaleBits} from '../../contract/quantized_weights';
import {bfloat16, ENCODE_UPPER_HALF_WGSL} from './bfloat16';
import {DECODE_HALF_GLSL, DECODE_HALF_WGSL, ENCODE_HALF_WGSL, float16} from './float16';
import {bitsOf, floatOf} from './small_floats';

type ScaleCodec = {
  decode: (code: number) => number;
  /** The nearest code, the even one of two. `'e8m0'` takes powers of two and NaN alone. */
  encode: (scale: number) => number;
  /** WGSL: decodeScale(code : u32) -> f32. */
  decodeWgsl: string;
  /** WGSL: encodeScale(bits : u32) -> u32, of the bits of a float32. The page has ENCODE_SMALL_FLOAT_WGSL. */
  encodeWgsl: string;
  /** GLSL: float decodeScale(uint code). */
  decodeGlsl: string;
};

/** 2^(code - 127); 255 is NaN. */
const e8m0: ScaleCodec = {
  decode: (code) => (code === 255 ? NaN : 2 ** (code - 127)),
  encode: (scale) => (Number.isNaN(scale) ? 255 : bitsOf(scale) >>> 23),
  // 2^-127, which is code 0, is subnormal in float32. GPUs may take it for 0.
  decodeWgsl: /* wgsl */ `
  fn decodeScale(code : u32) -> f32 {
    let special = select(select(0u, 0x00400000u, code == 0), 0x7fc00000u, code == 255);
    return bitcast<f32>((code << 23) | special);
  }`,
  encodeWgsl: /* wgsl */ `
  fn encodeScale(bits : u32) -> u32 { return (bits & 0x7fffffffu) >> 23; }`,
  decodeGlsl: `
  float decodeScale(uint code) {
    uint special = code == 255u ? 0x7fc00000u : code == 0u ? 0x00400000u : 0u;
    return uintBitsToFloat((code << 23) | special);
  }`,
};

export const scaleFormats: Readonly<Record<ScaleFormat, ScaleCodec>> = {
  float32: {
    decode: floatOf,
    encode: bitsOf,
    decodeWgsl: /* wgsl */ `
  fn decodeScale(code : u32) -> f32 { return bitcast<f32>(code); }`,
    encodeWgsl: /* wgsl */ `
  fn encodeScale(bits : u32) -> u32 { return bits; }`,
    decodeGlsl: `
  float decodeScale(uint code) { return uintBitsToFloat(code); }`,
  },
  float16: {
    decode: float16.decode,
    encode: (scale) => float16.encode(scale, 0),
    decodeWgsl: /* wgsl */ `
  ${DECODE_HALF_WGSL}
  fn decodeScale(code : u32) -> f32 { return decodeHalf(code); }`,
    encodeWgsl: /* wgsl */ `
  ${ENCODE_HALF_WGSL}
  fn encodeScale(bits : u32) -> u32 { return encodeHalf(bits); }`,
    decodeGlsl: `
  ${DECODE_HALF_GLSL}
  float decodeScale(uint code) { return decodeHalf(code); }`,
  },
  bfloat16: {
    decode: bfloat16.decode,
    encode: (scale) => bfloat16.encode(scale, 0),
    decodeWgsl: /* wgsl */ `
  fn decodeScale(code : u32) -> f32 { return bitcast<f32>(code << 16); }`,
    encodeWgsl: /* wgsl */ `
  ${ENCODE_UPPER_HALF_WGSL}
  fn encodeScale(bits : u32) -> u32 { return encodeUpperHalf(bits); }`,
    decodeGlsl: `
  float decodeScale(uint code) { return uintBitsToFloat(code << 16); }`,
  },
  e8m0,
};

/** WGSL: `name`(i), the code of scale i of the buffer `buffer` of u32, in the order [L, D, G]. */
export function scaleCodeAtWgsl(format: ScaleFormat, name: string, buffer: string): string {
  const bits = scaleBits[format];
  const perWord = 32 / bits;
  return bits === 32
    ? /* wgsl */ `
  fn ${name}(i : u32) -> u32 { return ${buffer}[i]; }`
    : /* wgsl */ `
  fn ${name}(i : u32) -> u32 { return (${buffer}[i / ${perWord}] >> (${bits} * (i % ${perWord}))) & ${2 ** bits - 1}u; }`;
}
