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

/**
 * WGSL, for rows [L, D] of codes, k a multiple of 4:
 * numbersAt(row, k), four numbers less the zero point, before scale and offset; weightsAt(row, k), the weights; and,
 * where the encoding has them, scaleOf(row, k) and offsetOf(row, k), of the group of k.
 *
 * The page has `uniforms.wordsPerRow`, words of a row of codes, `uniforms.numGroups`, G, and `uniforms.groupSize`; and
 * the buffers `codes`, `scales` and `offsets` of u32, where the encoding has them.
 */
export function weightReaderWgsl({format, scaleFormat, zeroPoint, hasOffsets}: QuantizedEncoding): string {
  const {bits, hasScales} = quantizedFormats[format];
  const numbers = /* wgsl */ `
  ${weightFormats[format].decodeWgsl(zeroPoint)}
  ${quadReaders[bits]}`;
  if (!hasScales) {
    return /* wgsl */ `
  ${numbers}
  fn weightsAt(row : u32, k : u32) -> vec4<f32> { return numbersAt(row, k); }`;
  }
  const scaled = /* wgsl */ `
  ${numbers}
  fn groupOf(row : u32, k : u32) -> u32 { return row * uniforms.numGroups + k / uniforms.groupSize; }
  ${scaleFormats[scaleFormat].decodeWgsl}
  ${scaleAtWgsl(scaleFormat, 'scaleAt', 'scales')}
  fn scaleOf(row : u32, k : u32) -> f32 { return scaleAt(groupOf(row, k)); }`;
  if (!hasOffsets) {
    return /* wgsl */ `
  ${scaled}
  fn weightsAt(row : u32, k : u32) -> vec4<f32> { return scaleOf(row, k) * numbersAt(row, k); }`;
  }
  return /* wgsl */ `
  ${scaled}
  ${scaleAtWgsl(scaleFormat, 'offsetAt', 'offsets')}
  fn offsetOf(row : u32, k : u32) -> f32 { return offsetAt(groupOf(row, k)); }
  fn weightsAt(row : u32, k : u32) -> vec4<f32> {
    return scaleOf(row, k) * numbersAt(row, k) + offsetOf(row, k);
  }`;
}
