/**
 * How GLSL reads quantized weights.
 *
 * tfjs keeps int32 tensors in textures of floats, exact to 2^24 only. So packed words go from the host into a texture
 * of bytes, a word in the four bytes of a texel. tfjs frees it with the tensor, whose values stay on the host: reads of
 * the tensor are exact.
 */
import {env, type TensorInfo, util} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {assertKeepsWords, PIXELS} from '../../contract/devices';
import {hostValuesOf} from '../../contract/host_values';
import {runningOpName} from '../../contract/op_name';
import {
  type QuantizedEncoding,
  quantizedFormats,
  type QuantizedTensors,
  scaleBits,
} from '../../contract/quantized_weights';
import {prepare} from '../shared/webgl';
import {weightFormats} from './index';
import {scaleFormats} from './scale_formats';

/** What a program reads of weights: textures and uniforms. */
type WeightTextures = {raw: Record<string, TensorInfo>; uniforms: Record<string, number>};

/** The textures of weights, made where the weights have none yet, for a program with weightReaderGlsl. */
export function weightTextures(
  backend: MathBackendWebGL,
  kernelName: string,
  argName: string,
  weights: QuantizedTensors,
  {groupSize, scaleFormat}: QuantizedEncoding,
  numGroups: number,
): WeightTextures {
  const raw: WeightTextures['raw'] = {};
  const uniforms: WeightTextures['uniforms'] = {wordsPerRow: weights.codes.shape[2], numGroups, groupSize};
  for (const name of ['codes', 'scales', 'offsets'] as const) {
    const tensor = weights[name];
    if (tensor != null) {
      raw[name] = tensor;
      if (name === 'codes' || scaleFormat !== 'float32') {
        const [height, log2OfWidth] = wordTextureShape(tensor.shape, kernelName, `${argName}.${name}`);
        uniforms[`${name}Log2OfWidth`] = log2OfWidth;
        prepare(backend, tensor, (on, words) => {
          assertKeepsWords(on, runningOpName(kernelName), `${argName}.${name}`, words);
          uploadWords(on, words, height, 2 ** log2OfWidth);
        });
      }
    }
  }
  return {raw, uniforms};
}

/** Its width is a power of two, so that no shader divides by it. */
function wordTextureShape(shape: number[], kernelName: string, name: string): [height: number, log2OfWidth: number] {
  const numWords = util.sizeFromShape(shape);
  const maxSize = env().getNumber('WEBGL_MAX_TEXTURE_SIZE');
  const log2OfWidth = Math.min(Math.ceil(Math.log2(numWords) / 2), Math.floor(Math.log2(maxSize)));
  const height = Math.ceil(numWords / 2 ** log2OfWidth);
  util.assert(
    height <= maxSize,
    () =>
      `Error in ${runningOpName(kernelName)}: ${name} [${shape}] takes ${numWords} texels of a texture, but this ` +
      `device's hold at most ${maxSize ** 2} (WEBGL_MAX_TEXTURE_SIZE is ${maxSize}).`,
  );
  return [height, log2OfWidth];
}

/** Gives a tensor of words its texture, if it has none. */
function uploadWords(backend: MathBackendWebGL, {dataId}: TensorInfo, height: number, width: number): void {
  const data = backend.texData.get(dataId);
  if (data.texture == null) {
    const bytes = bytesOf(hostValuesOf(data.values as ArrayLike<number>, 'int32') as Int32Array, width * height);
    const texture = backend.getTextureManager().acquireTexture([height, width], PIXELS, false);
    backend.gpgpu.uploadPixelDataToTexture(texture.texture, {width, height, data: bytes});
    // tfjs counts what it frees.
    (backend as unknown as {numBytesInGPU: number}).numBytesInGPU += 4 * width * height;
    Object.assign(data, {texture, texShape: [height, width], usage: PIXELS, isPacked: false});
  }
}

/** Without a copy if there is a word for each texel. */
function bytesOf({buffer, byteOffset, length}: Int32Array, numTexels: number): Uint8Array {
  const bytes = new Uint8Array(buffer, byteOffset, 4 * length);
  if (length === numTexels) {
    return bytes;
  }
  const padded = new Uint8Array(4 * numTexels);
  padded.set(bytes);
  return padded;
}

/**
 * GLSL: `name`Word(i), word i of the texture `name`, and `name`Bytes(i), its bytes in the lowest bits of integers that
 * have other bits too. 2^23 and a byte is a float with these bits, which costs less than to convert it to an integer.
 */
const wordGlsl = (name: string) => `
  uvec4 ${name}Bytes(int i) {
    ivec2 place = ivec2(i & ((1 << ${name}Log2OfWidth) - 1), i >> ${name}Log2OfWidth);
    return floatBitsToUint(texelFetch(${name}, place, 0) * 255.0 + 8388608.0);
  }
  uint ${name}Word(int i) {
    uvec4 bytes = ${name}Bytes(i) & 255u;
    return bytes.x | (bytes.y << 8) | (bytes.z << 16) | (bytes.w << 24);
  }`;

/** By bits of a code: the quad of column k, which is a multiple of 4. */
const quadReaders: Readonly<Record<number, string>> = {
  4: `
  vec4 numbersAt(int row, int k) {
    uint quad = codesWord(row * wordsPerRow + k / 8) >> uint(16 * (k / 4 % 2));
    return decodeCodes(uvec4(quad) >> uvec4(0, 4, 8, 12));
  }`,
  8: `
  vec4 numbersAt(int row, int k) { return decodeCodes(codesBytes(row * wordsPerRow + k / 4)); }`,
  // The second word is another row's where C % 4 = 2 and k is the last.
  16: `
  vec4 numbersAt(int row, int k) {
    int word = row * wordsPerRow + k / 2;
    return decodeQuad(uvec2(codesWord(word), codesWord(word + 1)));
  }`,
};

/** GLSL: `functionName`(i), scale i of the tensor `name`. */
function scaleAtGlsl(scaleFormat: QuantizedEncoding['scaleFormat'], functionName: string, name: string): string {
  const bits = scaleBits[scaleFormat];
  if (bits === 32) {
    return `
  float ${functionName}(int i) {
    int element = i + offset${name};
    int width = ${name}TexShape[1];
    return texelFetch(${name}, ivec2(element % width, element / width), 0).x;
  }`;
  }
  const perWord = 32 / bits;
  return `
  ${wordGlsl(name)}
  float ${functionName}(int i) {
    return decodeScale((${name}Word(i / ${perWord}) >> uint(${bits} * (i % ${perWord}))) & ${2 ** bits - 1}u);
  }`;
}

/**
 * GLSL, for rows [L, D] of codes, k a multiple of 4: numbersAt(row, k), weightsAt(row, k), scaleOf(row, k) and
 * offsetOf(row, k), as in weightsAtWgsl; also codesBytes(i), codesWord(i) and the format's own decode. The program has
 * the textures and uniforms of weightTextures.
 */
export function weightReaderGlsl({format, scaleFormat, zeroPoint, hasOffsets}: QuantizedEncoding): string {
  const {bits, hasScales} = quantizedFormats[format];
  const numbers = `
  ${wordGlsl('codes')}
  ${weightFormats[format].decodeGlsl(zeroPoint)}
  ${quadReaders[bits]}`;
  if (!hasScales) {
    return `
  ${numbers}
  vec4 weightsAt(int row, int k) { return numbersAt(row, k); }`;
  }
  const scaled = `
  ${numbers}
  int groupOf(int row, int k) { return row * numGroups + k / groupSize; }
  ${scaleFormats[scaleFormat].decodeGlsl}
  ${scaleAtGlsl(scaleFormat, 'scaleAt', 'scales')}
  float scaleOf(int row, int k) { return scaleAt(groupOf(row, k)); }`;
  if (!hasOffsets) {
    return `
  ${scaled}
  vec4 weightsAt(int row, int k) { return scaleOf(row, k) * numbersAt(row, k); }`;
  }
  return `
  ${scaled}
  ${scaleAtGlsl(scaleFormat, 'offsetAt', 'offsets')}
  float offsetOf(int row, int k) { return offsetAt(groupOf(row, k)); }
  vec4 weightsAt(int row, int k) { return scaleOf(row, k) * numbersAt(row, k) + offsetOf(row, k); }`;
}
