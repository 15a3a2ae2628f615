/** Weights of codes: rows of words, [E, D, C], with the scales and offsets of their groups. */
import type {WeightTensors} from '../../../contract/expert_weights';
import type {MoeWeightFormat} from '../../../contract/kernel_names';
import {codesPerWord, type QuantizedEncoding, quantizedFormats} from '../../../contract/quantized_weights';
import {repeat} from '../../shared/repeat';
import type {StorageBinding} from '../../shared/webgpu';
import {codeBuffers, decodeWgsl, rawQuadsWgsl, scalingWgsl} from '../../weight_formats/webgpu';
import {nMajorLane} from './n_major_lane';
import type {LaneReader, WeightReader} from './weight_reader';

/** Words that a lane reads of a column at a time, all of one group: of at most 16 codes, which a group has at least. */
const wordsOfChunk = (bits: number, wordsPerRow: number): 2 | 4 => (bits > 4 && wordsPerRow % 4 === 0 ? 4 : 2);

/**
 * Four terms of a column. A row of 16-bit codes may end within a quad, whose rest is another row's. A program, which is
 * for any C, goes by its uniforms.
 */
const kMajorQuad = (bits: number): string => /* wgsl */ `
  fn rawQuad(expert : u32, column : u32, k : u32) -> vec4<u32> {
    if (HAS_K_TAIL == 1 && k >= uniforms.numIn) { return vec4<u32>(); }
    let raw = rawQuadAt(expert * uniforms.numColumns + min(column, uniforms.numColumns - 1), k);
    return ${bits === 16 ? 'select(raw, vec4(raw.x, 0, raw.zw), HAS_K_TAIL == 1 && k + 4 > uniforms.numIn)' : 'raw'};
  }`;

/** Four columns of a term. */
const N_MAJOR_QUAD = /* wgsl */ `
  fn rawQuad(expert : u32, column : u32, k : u32) -> vec4<u32> {
    if (HAS_K_TAIL == 1 && k >= uniforms.numIn) { return vec4<u32>(); }
    return rawQuadAt(expert * uniforms.numIn + k, min(column, (uniforms.numColumns - 1) / 4 * 4));
  }`;

/** WGSL: chunkAt(row, k), the words from term k on. */
const chunkAt = (numWords: number): string => /* wgsl */ `
  fn chunkAt(row : u32, k : u32) -> vec${numWords}<u32> {
    return codes[(row * uniforms.wordsPerRow + k / CODES_PER_WORD) / ${numWords}];
  }`;

/** The same of two words, where a row has an odd number of words. Codes past the row are 0. */
const CHUNK_AT_ANY_WORD = /* wgsl */ `
  fn chunkAt(row : u32, k : u32) -> vec2<u32> {
    let word = k / CODES_PER_WORD;
    let first = row * uniforms.wordsPerRow + word;
    return vec2(codes[first], select(0, codes[first + 1], word + 1 < uniforms.wordsPerRow));
  }`;

/** WGSL: quad q of a chunk, before it is decoded. */
function quadOfChunk(chunk: string, q: number, bits: number): string {
  if (bits === 16) {
    return `${chunk}.${['xy', 'zw'][q]}`;
  }
  return bits === 8 ? `${chunk}.${'xyzw'[q]}` : `${chunk}.${'xyzw'[q >> 1]} >> ${16 * (q & 1)}`;
}

const bindings = ({weights, ...scaling}: WeightTensors, codesType: string): StorageBinding[] =>
  codeBuffers({codes: weights, ...scaling}, codesType);

/** A lane reads a chunk of each of its columns, and decodes a quad at a time. */
function kMajorLane(encoding: QuantizedEncoding, wordsPerRow: number): LaneReader {
  const {bits, hasScales} = quantizedFormats[encoding.format];
  const {hasOffsets} = encoding;
  const numWords = wordsOfChunk(bits, wordsPerRow);
  const inChunks = wordsPerRow % numWords === 0;
  const scaled = (j: number, numbers: string, scalesLater: boolean) =>
    !hasScales || scalesLater ? numbers : `scale${j} * ${numbers}${hasOffsets ? ` + offset${j}` : ''}`;
  return {
    buffers: (weights) => bindings(weights, inChunks ? `vec${numWords}<u32>` : 'u32'),
    functions: /* wgsl */ `
  const CODES_PER_WORD = ${codesPerWord(encoding)}u;
  ${decodeWgsl(encoding)}
  ${scalingWgsl(encoding)}
  ${inChunks ? chunkAt(numWords) : CHUNK_AT_ANY_WORD}`,
    numTerms: numWords * codesPerWord(encoding),
    load: repeat(
      4,
      (j) => /* wgsl */ `
      let weightRow${j} = expert * uniforms.numColumns + min(d + ${j}, uniforms.numColumns - 1);
      let chunk${j} = chunkAt(weightRow${j}, k);
      ${hasScales ? `let scale${j} = decodeUnitScale(scaleCodeOf(weightRow${j}, k));` : ''}
      ${hasOffsets ? `let offset${j} = decodeScale(offsetCodeOf(weightRow${j}, k));` : ''}`,
    ),
    quad: (q, scalesLater) =>
      repeat(4, (j) => {
        const numbers = `decodeQuad(${quadOfChunk(`chunk${j}`, q, bits)})`;
        return `let weight${j} = ${scaled(j, numbers, scalesLater)};`;
      }),
    scales: hasScales && !hasOffsets ? 'vec4(scale0, scale1, scale2, scale3)' : undefined,
  };
}

export function quantizedWeights(
  encoding: QuantizedEncoding,
  [, , wordsPerRow]: number[],
  weightFormat: MoeWeightFormat,
): WeightReader {
  const {groupSize} = encoding;
  const numCodes = wordsPerRow * codesPerWord(encoding);
  const isKMajor = weightFormat === 'outIn';
  const tile = {
    buffers: (weights: WeightTensors) => bindings(weights, 'u32'),
    functions: /* wgsl */ `
  ${rawQuadsWgsl(encoding)}
  ${isKMajor ? kMajorQuad(quantizedFormats[encoding.format].bits) : N_MAJOR_QUAD}`,
  };
  return {
    uniforms: {wordsPerRow, ...(groupSize === 0 ? {} : {numGroups: Math.ceil(numCodes / groupSize)})},
    tile,
    lane: isKMajor ? kMajorLane(encoding, wordsPerRow) : nMajorLane(tile),
  };
}
