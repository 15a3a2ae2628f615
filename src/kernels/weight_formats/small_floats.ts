/**
 * Floats of few bits: sign, exponent, mantissa, from the highest bit on. Like those of IEEE they have subnormals, where
 * the exponent is 0.
 */
export type SmallFloat = {
  exponentBias: number;
  mantissaBits: number;
  /** The bit of the sign. */
  signBit: number;
  /** The largest magnitude code that rounding gives. */
  largestCode: number;
};

const floats = new Float32Array(1);
const bits = new Uint32Array(floats.buffer);

export function bitsOf(value: number): number {
  floats[0] = value;
  return bits[0];
}

export function floatOf(valueBits: number): number {
  bits[0] = valueBits;
  return floats[0];
}

/** The finite number of a code. */
export function decodeSmallFloat(code: number, {exponentBias, mantissaBits, signBit}: SmallFloat): number {
  const magnitude = code & (signBit - 1);
  const exponent = magnitude >> mantissaBits;
  const mantissa = (magnitude & ((1 << mantissaBits) - 1)) / (1 << mantissaBits);
  const size = exponent === 0 ? mantissa * 2 ** (1 - exponentBias) : (1 + mantissa) * 2 ** (exponent - exponentBias);
  return code & signBit ? -size : size;
}

/** The nearest code, the even one of two; the largest one past the range. NaN is for the caller. */
export function encodeSmallFloat(value: number, format: SmallFloat): number {
  const {exponentBias, mantissaBits, signBit, largestCode} = format;
  const valueBits = bitsOf(value);
  const magnitude = valueBits & 0x7fffffff;
  const exponent = magnitude >>> 23;
  const firstNormal = 128 - exponentBias;
  let code: number;
  if (exponent >= firstNormal) {
    code = roundedShift(magnitude - ((firstNormal - 1) << 23), 23 - mantissaBits);
  } else {
    const shift = 23 - mantissaBits + firstNormal - exponent;
    code = shift > 24 ? 0 : roundedShift((magnitude & 0x7fffff) | 0x800000, shift);
  }
  return Math.min(code, largestCode) | (valueBits >>> 31 ? signBit : 0);
}

/** x / 2^shift, rounded to the nearest integer, to the even one of two. */
function roundedShift(x: number, shift: number): number {
  return (x + (1 << (shift - 1)) - 1 + ((x >>> shift) & 1)) >>> shift;
}

/** WGSL: encodeSmallFloat, the same on the bits of a float32. */
export const ENCODE_SMALL_FLOAT_WGSL = /* wgsl */ `
  fn roundedShift(x : u32, shift : u32) -> u32 {
    return (x + (1u << (shift - 1)) - 1 + ((x >> shift) & 1)) >> shift;
  }
  fn encodeSmallFloat(bits : u32, exponentBias : u32, mantissaBits : u32, signBit : u32, largestCode : u32) -> u32 {
    let magnitude = bits & 0x7fffffffu;
    let exponent = magnitude >> 23;
    let firstNormal = 128 - exponentBias;
    let sign = select(0u, signBit, (bits >> 31) == 1);
    if (exponent >= firstNormal) {
      return sign | min(largestCode, roundedShift(magnitude - ((firstNormal - 1) << 23), 23 - mantissaBits));
    }
    let shift = 23 - mantissaBits + firstNormal - exponent;
    if (shift > 24) { return sign; }
    return sign | min(largestCode, roundedShift((magnitude & 0x7fffffu) | 0x800000u, shift));
  }`;

/** The WGSL arguments of encodeSmallFloat past the bits. */
export function smallFloatArguments({exponentBias, mantissaBits, signBit, largestCode}: SmallFloat): string {
  return `${exponentBias}u, ${mantissaBits}u, ${signBit}u, ${largestCode}u`;
}
