/**
 * What this package knows of a format of weights. Decodes are exact on every backend: no step is rounded or subnormal
 * in float32, except where a format says so. No code is converted from an integer to a float, which GPUs do at a
 * fraction of their speed: the bits of a float are put together.
 *
 * A quad is four codes of a row. Four 4-bit codes are the low half of a u32, and its high half is ignored; 8-bit codes
 * fill a u32; 16-bit codes fill a vec2<u32>, in GLSL a uvec2.
 */
export type WeightFormat = {
  /** The number of a code, without zero point and scale. */
  decode: (code: number) => number;
  /**
   * The code of weight / scale; of (weight - offset) / scale if there is an offset; of the weight if there is no scale.
   */
  encode: (scaled: number, zeroPoint: number) => number;
  /**
   * The number that the largest weight of a group becomes. Negative: it keeps its sign, so that the scale has one.
   * 0 for formats without scales.
   */
  largest: number;
  /** What a number of decodeWgsl is a multiple of: scales are multiplied by it. A power of two. */
  unit: number;
  /** WGSL: decodeQuad(quad) -> vec4<f32>, the numbers less the zero point, divided by `unit`. */
  decodeWgsl: (zeroPoint: number) => string;
  /**
   * WGSL: encode(bits) -> u32, where `bits` are those of the float32 that the host's encode takes. The page has
   * ENCODE_SMALL_FLOAT_WGSL.
   */
  encodeWgsl: (zeroPoint: number) => string;
  /**
   * GLSL ES 3.00: vec4 decodeQuad(quad) for 16-bit codes. For others vec4 decodeCodes(uvec4 codes), which ignores all
   * bits of an element but the lowest, those of a code.
   */
  decodeGlsl: (zeroPoint: number) => string;
};
