/**
 * How GLSL reads quantized weights.
 *
 * tfjs keeps int32 tensors in textures of floats, exact to 2^24 only. So packed words go from the host into a texture
 * of bytes, a word in the four bytes of a texel. tfjs frees it with the tensor, whose values stay on the host: reads of
 * the tensor are exact.
 */
import {env, type TensorInfo, util} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {
  type QuantizedEncoding,
  quantizedFormats,
  type QuantizedTensors,
  scaleBits,
} from '../../contract/quantized_weights';
import {runningOpName} from '../../contract/op_name';
import {weightFormats} from './index';
import {scaleFormats} from './scale_formats';

/** tfjs's TextureUsage.PIXELS, which the package does not export: a texture of four bytes a texel. */
const PIXELS = 2;

/** Inputs and uniforms of a program that reads weights. */
type WeightTextures = {inputs: Record<string, TensorInfo>; uniforms: Record<string, number>};

/** The textures of weights, made where the weights have none yet, for a program with weightReaderGlsl. */
export function weightTextures(
  backend: MathBackendWebGL,
  kernelName: string,
  weights: QuantizedTensors,
  {groupSize, scaleFormat}: QuantizedEncoding,
  numGroups: number,
): WeightTextures {
  const inputs: WeightTextures['inputs'] = {};
  const uniforms: WeightTextures['uniforms'] = {wordsPerRow: weights.codes.shape[2], numGroups, groupSize};
  for (const name of ['codes', 'scales', 'offsets'] as const) {
    const tensor = weights[name];
    if (tensor != null) {
      inputs[name] = {...tensor, shape: [util.sizeFromShape(tensor.shape)]};
      if (name === 'codes' || scaleFormat !== 'float32') {
        uniforms[`${name}Width`] = wordTextureWidth(backend, kernelName, name, tensor);
      }
    }
  }
  return {inputs, uniforms};
}

/** The width of the texture of a tensor of words. */
function wordTextureWidth(backend: MathBackendWebGL, kernelName: string, name: string, tensor: TensorInfo): number {
  const texData = backend.texData.get(tensor.dataId);
  if (texData.texture == null && texData.values != null) {
    const words = texData.values as Int32Array;
    const [height, width] = textureShapeOf(words.length, kernelName, name);
    const texture = backend.getTextureManager().acquireTexture([height, width], PIXELS, false);
    backend.gpgpu.uploadPixelDataToTexture(texture.texture, {width, height, data: bytesOf(words, width * height)});
    // tfjs counts what it frees.
    (backend as unknown as {numBytesInGPU: number}).numBytesInGPU += 4 * width * height;
    Object.assign(texData, {texture, texShape: [height, width], usage: PIXELS, isPacked: false});
  }
  util.assert(
    texData.usage === PIXELS && texData.values != null,
    () =>
      `Error in ${runningOpName(kernelName)}: ${name} must be on the host on the webgl backend, whose textures round ` +
      'integers, but another op has moved them into one. Pass them as they were loaded or made.',
  );
  return texData.texShape![1];
}

/** [height, width], of as many texels as there are words if possible: then no copy is needed. */
function textureShapeOf(numWords: number, kernelName: string, name: string): [number, number] {
  const maxSize = env().getNumber('WEBGL_MAX_TEXTURE_SIZE');
  const square = Math.ceil(Math.sqrt(numWords));
  util.assert(
    square <= maxSize,
    () =>
      `Error in ${runningOpName(kernelName)}: ${name} take ${numWords} texels of a texture, but this device's hold at ` +
      `most ${maxSize ** 2} (WEBGL_MAX_TEXTURE_SIZE is ${maxSize}).`,
  );
  let width = square;
  while (numWords % width !== 0 && width < maxSize) {
    width++;
  }
  return numWords % width === 0 ? [numWords / width, width] : [Math.ceil(numWords / square), square];
}

function bytesOf({buffer, byteOffset, length}: Int32Array, numTexels: number): Uint8Array {
  const bytes = new Uint8Array(buffer, byteOffset, 4 * length);
  if (length === numTexels) {
    return bytes;
  }
  const padded = new Uint8Array(4 * numTexels);
  padded.set(bytes);
  return padded;
}

/** GLSL: `name`Word(i), word i of the texture `name`. */
const wordGlsl = (name: string) => `
  uint ${name}Word(int i) {
    uvec4 bytes = uvec4(texelFetch(${name}, ivec2(i % ${name}Width, i / ${name}Width), 0) * 255.0 + 0.5);
    return bytes.x | (bytes.y << 8) | (bytes.z << 16) | (bytes.w << 24);
  }`;

/** By bits of a code: the quad of column k, which is a multiple of 4. */
const quadReaders: Readonly<Record<number, string>> = {
  4: `
  vec4 numbersAt(int row, int k) {
    return decodeQuad(codesWord(row * wordsPerRow + k / 8) >> uint(16 * (k / 4 % 2)));
  }`,
  8: `
  vec4 numbersAt(int row, int k) { return decodeQuad(codesWord(row * wordsPerRow + k / 4)); }`,
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
  float ${functionName}(int i) { return get${name[0].toUpperCase()}${name.slice(1)}(i); }`;
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
 * offsetOf(row, k), as in weightsAtWgsl. The program has the inputs and uniforms of weightTextures.
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
