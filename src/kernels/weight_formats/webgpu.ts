/** How WGSL reads quantized weights. */
import {type QuantizedEncoding, quantizedFormats, type QuantizedTensors} from '../../contract/quantized_weights';
import type {StorageBinding} from '../shared/webgpu';
import {weightFormats} from './index';
import {scaleCodeAtWgsl, scaleFormats} from './scale_formats';

/** The buffers of quantized weights, in binding order. */
export const codeBuffers = ({codes, scales, offsets}: QuantizedTensors, codesType = 'u32'): StorageBinding[] => [
  {name: 'codes', type: codesType, access: 'read', tensor: codes},
  ...(scales == null ? [] : [{name: 'scales', type: 'u32', access: 'read', tensor: scales} as const]),
  ...(offsets == null ? [] : [{name: 'offsets', type: 'u32', access: 'read', tensor: offsets} as const]),
];

/** By bits of a code: the words of the quad of column k, which is a multiple of 4, from the lowest bit on. */
const quadWords: Readonly<Record<number, string>> = {
  4: /* wgsl */ `
  fn quadWordsAt(row : u32, k : u32) -> vec2<u32> {
    return vec2(codes[row * uniforms.wordsPerRow + k / 8] >> (16 * (k / 4 % 2)), 0);
  }`,
  8: /* wgsl */ `
  fn quadWordsAt(row : u32, k : u32) -> vec2<u32> { return vec2(codes[row * uniforms.wordsPerRow + k / 4], 0); }`,
  // The second word is another row's where C % 4 = 2 and k is the last.
  16: /* wgsl */ `
  fn quadWordsAt(row : u32, k : u32) -> vec2<u32> {
    let word = row * uniforms.wordsPerRow + k / 2;
    return vec2(codes[word], codes[word + 1]);
  }`,
};

/** WGSL: decodeQuad, of the words of four codes: their numbers less the zero point, in units of the format. */
export const decodeWgsl = ({format, zeroPoint}: QuantizedEncoding): string =>
  weightFormats[format].decodeWgsl(zeroPoint);

/**
 * WGSL: scaleCodeOf(row, k) and offsetCodeOf(row, k), of the group of code k of a row, and decodeUnitScale(code), what
 * decoded numbers are multiplied by, and decodeScale(code), of an offset: where the encoding has them. The page has
 * `uniforms.numGroups`, G, and the buffers `scales` and `offsets` of u32.
 */
export function scalingWgsl({format, groupSize, scaleFormat, hasOffsets}: QuantizedEncoding): string {
  if (!quantizedFormats[format].hasScales) {
    return '';
  }
  const {unit} = weightFormats[format];
  return /* wgsl */ `
  fn groupOf(row : u32, k : u32) -> u32 { return row * uniforms.numGroups + k / ${groupSize}; }
  ${scaleFormats[scaleFormat].decodeWgsl}
  fn decodeUnitScale(code : u32) -> f32 { return decodeScale(code)${unit === 1 ? '' : ` * ${unit}`}; }
  ${scaleCodeAtWgsl(scaleFormat, 'scaleCodeAt', 'scales')}
  fn scaleCodeOf(row : u32, k : u32) -> u32 { return scaleCodeAt(groupOf(row, k)); }
  ${
    hasOffsets
      ? /* wgsl */ `
  ${scaleCodeAtWgsl(scaleFormat, 'offsetCodeAt', 'offsets')}
  fn offsetCodeOf(row : u32, k : u32) -> u32 { return offsetCodeAt(groupOf(row, k)); }`
      : ''
  }`;
}

/**
 * WGSL: rawQuadAt(row, k), all that is stored of four weights of a row of codes from code k on, a multiple of 4; and
 * weightsOf(raw), the weights. The page has `uniforms.wordsPerRow`, words of a row of codes, `uniforms.numGroups`, and
 * the buffers `codes`, `scales` and `offsets` of u32.
 */
export function rawQuadsWgsl(encoding: QuantizedEncoding): string {
  const {bits, hasScales} = quantizedFormats[encoding.format];
  const {hasOffsets} = encoding;
  const scaleCode = hasScales ? 'scaleCodeOf(row, k)' : '0u';
  const offsetCode = hasOffsets ? 'offsetCodeOf(row, k)' : '0u';
  const numbers = `decodeQuad(${bits === 16 ? 'raw.xy' : 'raw.x'})`;
  const scaled = `decodeUnitScale(raw.z) * ${numbers}${hasOffsets ? ' + decodeScale(raw.w)' : ''}`;
  return /* wgsl */ `
  ${decodeWgsl(encoding)}
  ${quadWords[bits]}
  ${scalingWgsl(encoding)}
  fn rawQuadAt(row : u32, k : u32) -> vec4<u32> { return vec4(quadWordsAt(row, k), ${scaleCode}, ${offsetCode}); }
  fn weightsOf(raw : vec4<u32>) -> vec4<f32> { return ${hasScales ? scaled : numbers}; }`;
}
