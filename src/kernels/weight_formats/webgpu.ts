/** How WGSL reads quantized weights. */
import {type QuantizedEncoding, quantizedFormats} from '../../contract/quantized_weights';
import {weightFormats} from './index';
import {scaleAtWgsl, scaleFormats} from './scale_formats';

/** By bits of a code: the quad of column k, which is a multiple of 4. */
const quadReaders: Readonly<Record<number, string>> = {
  4: /* wgsl */ `
  fn numbersAt(row : u32, k : u32) -> vec4<f32> {
    return decodeQuad(codes[row * uniforms.wordsPerRow + k / 8] >> (16 * (k / 4 % 2)));
  }`,
  8: /* wgsl */ `
  fn numbersAt(row : u32, k : u32) -> vec4<f32> { return decodeQuad(codes[row * uniforms.wordsPerRow + k / 4]); }`,
  // The second word is another row's where C % 4 = 2 and k is the last.
  16: /* wgsl */ `
  fn numbersAt(row : u32, k : u32) -> vec4<f32> {
    let word = row * uniforms.wordsPerRow + k / 2;
    return decodeQuad(vec2(codes[word], codes[word + 1]));
  }`,
};

/** WGSL: decodeQuad, of the words of four codes: their numbers less the zero point, without scale and offset. */
export const decodeWgsl = ({format, zeroPoint}: QuantizedEncoding): string =>
  weightFormats[format].decodeWgsl(zeroPoint);

/**
 * WGSL: scaleOf(row, k) and offsetOf(row, k), of the group of code k of a row, where the encoding has them. The page
 * has `uniforms.numGroups`, G, and `uniforms.groupSize`; and the buffers `scales` and `offsets` of u32.
 */
export function scalingWgsl({format, scaleFormat, hasOffsets}: QuantizedEncoding): string {
  if (!quantizedFormats[format].hasScales) {
    return '';
  }
  return /* wgsl */ `
  fn groupOf(row : u32, k : u32) -> u32 { return row * uniforms.numGroups + k / uniforms.groupSize; }
  ${scaleFormats[scaleFormat].decodeWgsl}
  ${scaleAtWgsl(scaleFormat, 'scaleAt', 'scales')}
  fn scaleOf(row : u32, k : u32) -> f32 { return scaleAt(groupOf(row, k)); }
  ${
    hasOffsets
      ? /* wgsl */ `
  ${scaleAtWgsl(scaleFormat, 'offsetAt', 'offsets')}
  fn offsetOf(row : u32, k : u32) -> f32 { return offsetAt(groupOf(row, k)); }`
      : ''
  }`;
}

/**
 * WGSL: weightsAt(row, k), four weights of a row of codes from code k on, a multiple of 4; and what decodeWgsl and
 * scalingWgsl have. The page has `uniforms.wordsPerRow`, words of a row of codes, and the buffer `codes` of u32.
 */
export function weightsAtWgsl(encoding: QuantizedEncoding): string {
  const {bits, hasScales} = quantizedFormats[encoding.format];
  const numbers = 'numbersAt(row, k)';
  const scaled = `scaleOf(row, k) * ${numbers}${encoding.hasOffsets ? ' + offsetOf(row, k)' : ''}`;
  return /* wgsl */ `
  ${decodeWgsl(encoding)}
  ${quadReaders[bits]}
  ${scalingWgsl(encoding)}
  fn weightsAt(row : u32, k : u32) -> vec4<f32> { return ${hasScales ? scaled : numbers}; }`;
}
