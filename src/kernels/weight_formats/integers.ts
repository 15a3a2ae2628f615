/**
 * Unsigned integers of few bits. 2^23 with a code in its lowest mantissa bits is 2^23 + code, and float32 holds every
 * integer from there to 2^24: so code - zeroPoint is one subtraction.
 */
const MAGIC_BITS = '0x4B000000u';
const MAGIC = 2 ** 23;

/** WGSL: integersOf, which decodes four codes that are in the lowest bits. */
export const integersWgsl = (zeroPoint: number): string => /* wgsl */ `
  fn integersOf(codes : vec4<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(codes | vec4<u32>(${MAGIC_BITS})) - ${MAGIC + zeroPoint}.0;
  }`;

/** GLSL: integersOf, the same. */
export const integersGlsl = (zeroPoint: number): string => `
  vec4 integersOf(uvec4 codes) { return uintBitsToFloat(codes | uvec4(${MAGIC_BITS})) - ${MAGIC + zeroPoint}.0; }`;
