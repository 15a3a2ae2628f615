/**
 * MoeQuantizeWeights on WebGPU, 1 launch: a thread takes the groups whose scales share a word, or, for formats without
 * scales, the weights whose codes do.
 *
 * The bits are those of the host: devices round sums and products like it, but not quotients, which are computed in
 * integers here. Subnormal weights are 0.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {MoeQuantizeWeights} from '../../contract/kernel_names';
import {
  encodingKey,
  type QuantizedEncoding,
  quantizedFormats,
  quantizedShapes,
  type QuantizedTensors,
  scaleBits,
} from '../../contract/quantized_weights';
import {
  assertBindable,
  entryPoint,
  newTensor,
  runWgsl,
  type StorageBinding,
  webgpuKernel,
  WORKGROUP_SIZE,
} from '../shared/webgpu';
import {weightFormats} from '../weight_formats/index';
import {scaleFormats} from '../weight_formats/scale_formats';
import {bitsOf, ENCODE_SMALL_FLOAT_WGSL} from '../weight_formats/small_floats';

/** quotient(a, b) of positive normal float32, as bits; 0 where an argument or the quotient is not normal. */
const QUOTIENT = /* wgsl */ `
  fn quotient(a : u32, b : u32) -> u32 {
    if (a < 0x00800000u || b < 0x00800000u) { return 0; }
    var remainder = (a & 0x007fffffu) | 0x00800000u;
    let divisor = (b & 0x007fffffu) | 0x00800000u;
    var exponent = i32(a >> 23) - i32(b >> 23) + 127;
    if (remainder < divisor) { remainder <<= 1; exponent -= 1; }
    var digits = 0u;
    for (var i = 0; i < 24; i++) {
      digits <<= 1;
      if (remainder >= divisor) { remainder -= divisor; digits += 1; }
      remainder <<= 1;
    }
    if (exponent < 1) { return 0; }
    // The remainder is doubled, so this rounds; a quotient never lies in the middle.
    return (u32(exponent) << 23) + digits - 0x00800000u + select(0u, 1u, remainder > divisor);
  }`;

/**
 * The scale of a group, its inverse, and its offset, as bits. `peak` is the first of the weights of the largest size.
 */
const GROUP_SCALE = /* wgsl */ `
  struct GroupScale { scale : u32, inverse : u32, offset : u32 }
  fn scaleAndInverse(size : u32, sign : u32, offset : u32) -> GroupScale {
    if (size == 0) { return GroupScale(sign, sign, offset); }
    return GroupScale(size | sign, quotient(0x3f800000, size) | sign, offset);
  }`;

const hex = (bits: number) => `0x${bits.toString(16)}u`;
const NAN = '0x7fc00000u';

/** WGSL: groupScale, of finite weights. */
function groupScaleWgsl({format, scaleFormat, hasOffsets}: QuantizedEncoding): string {
  const {largest} = weightFormats[format];
  if (hasOffsets) {
    const numSteps = 2 ** quantizedFormats[format].bits - 1;
    return /* wgsl */ `
  fn groupScale(peak : u32, low : f32, high : f32) -> GroupScale {
    let range = bitcast<u32>(high - low);
    if (range >= 0x7f800000u) { return GroupScale(${NAN}, 0, ${NAN}); }
    return scaleAndInverse(quotient(range, ${hex(bitsOf(numSteps))}), 0, bitcast<u32>(low));
  }`;
  }
  if (scaleFormat === 'e8m0') {
    const largestExponent = Math.floor(Math.log2(largest));
    return /* wgsl */ `
  fn groupScale(peak : u32, low : f32, high : f32) -> GroupScale {
    let exponent = max((peak & 0x7fffffffu) >> 23, ${largestExponent}u) - ${largestExponent}u;
    return GroupScale(exponent << 23, (254 - exponent) << 23, 0);
  }`;
  }
  const sign = largest < 0 ? '(peak ^ 0x80000000u) & 0x80000000u' : '0';
  return /* wgsl */ `
  fn groupScale(peak : u32, low : f32, high : f32) -> GroupScale {
    return scaleAndInverse(quotient(peak & 0x7fffffffu, ${hex(bitsOf(Math.abs(largest)))}), ${sign}, 0);
  }`;
}

/**
 * Shader compilers may make one operation of two. An exclusive or with `zero`, a uniform of which a compiler does not
 * know that it is 0, keeps them apart. The sign of a product is made here: that of one that underflows may be lost.
 */
const SCALED_BITS = /* wgsl */ `
  fn opaque(bits : u32) -> u32 { return bits ^ uniforms.zero; }
  fn scaledBits(weight : u32, group : GroupScale) -> u32 {
    let difference = flushed(opaque(bitcast<u32>(bitcast<f32>(weight) - bitcast<f32>(group.offset))));
    let size = bitcast<f32>(difference & 0x7fffffffu) * bitcast<f32>(group.inverse & 0x7fffffffu);
    return opaque(bitcast<u32>(size)) | ((difference ^ group.inverse) & 0x80000000u);
  }`;

const FLUSHED = /* wgsl */ `
  fn flushed(bits : u32) -> u32 { return select(0u, bits, (bits & 0x7f800000u) != 0); }
  fn weightAt(i : u32) -> u32 { return flushed(weights[i]); }`;

const QUANTIZE_GROUP = /* wgsl */ `
  fn quantizeGroup(number : u32) -> GroupScale {
    let row = number / uniforms.numGroups;
    let first = number % uniforms.numGroups * uniforms.groupSize;
    let begin = row * uniforms.numIn + first;
    let end = begin + min(uniforms.groupSize, uniforms.numIn - first);
    var peak = 0u;
    var low = bitcast<f32>(weightAt(begin));
    var high = low;
    for (var i = begin; i < end; i++) {
      let weight = weightAt(i);
      if ((weight & 0x7fffffffu) > (peak & 0x7fffffffu)) { peak = weight; }
      low = min(low, bitcast<f32>(weight));
      high = max(high, bitcast<f32>(weight));
    }
    var group = GroupScale(${NAN}, 0, ${NAN});
    if ((peak & 0x7fffffffu) < 0x7f800000u) { group = groupScale(peak, low, high); }
    for (var i = begin; i < end; i += CODES_PER_WORD) {
      var word = 0u;
      for (var j = 0u; j < CODES_PER_WORD && group.scale != ${NAN}; j++) {
        word |= encode(scaledBits(weightAt(i + j), group)) << (j * (32 / CODES_PER_WORD));
      }
      codes[i / CODES_PER_WORD] = word;
    }
    return group;
  }`;

export const moeQuantizeWeightsWebGPU = webgpuKernel(MoeQuantizeWeights, (backend, {weights}, {encoding}) => {
  const shapes = quantizedShapes(weights.shape, encoding);
  const hasScales = quantizedFormats[encoding.format].hasScales;
  assertBindable(backend, MoeQuantizeWeights, {codes: shapes.codes, ...(hasScales && {scales: shapes.scales})});
  const codes = newTensor(backend, shapes.codes, 'int32');
  if (!hasScales) {
    runWithoutScales(backend, weights, codes, encoding);
    return {codes};
  }
  const newScales = () => newTensor(backend, shapes.scales, encoding.scaleFormat === 'float32' ? 'float32' : 'int32');
  const scales = newScales();
  const quantized = encoding.hasOffsets ? {codes, scales, offsets: newScales()} : {codes, scales};
  runGroups(backend, weights, quantized, encoding);
  return quantized;
});

const written = (name: string, tensor: TensorInfo): StorageBinding => ({
  name,
  type: 'u32',
  access: 'read_write',
  tensor,
});

function runWithoutScales(
  backend: WebGPUBackend,
  weights: TensorInfo,
  codes: TensorInfo,
  {format}: QuantizedEncoding,
): void {
  const numWords = codes.shape[0] * codes.shape[1] * codes.shape[2];
  runWgsl(backend, {
    name: `MoeQuantizeWeights_${format}`,
    buffers: [written('codes', codes), {name: 'weights', type: 'vec2<u32>', access: 'read', tensor: weights}],
    uniforms: {numWords},
    numWorkgroups: Math.ceil(numWords / WORKGROUP_SIZE),
    code: () => `
      ${ENCODE_SMALL_FLOAT_WGSL}
      ${weightFormats[format].encodeWgsl(0)}
      ${entryPoint(`
        let i = group * ${WORKGROUP_SIZE} + thread;
        if (i < uniforms.numWords) { codes[i] = encode(weights[i].x) | (encode(weights[i].y) << 16); }`)}`,
  });
}

function runGroups(
  backend: WebGPUBackend,
  weights: TensorInfo,
  {codes, scales, offsets}: QuantizedTensors,
  encoding: QuantizedEncoding,
): void {
  const {format, groupSize, scaleFormat, zeroPoint} = encoding;
  const [numExperts, numOut, numIn] = weights.shape;
  const {numGroups} = quantizedShapes(weights.shape, encoding);
  const numScales = numExperts * numOut * numGroups;
  const scalesPerWord = 32 / scaleBits[scaleFormat];
  const numWords = Math.ceil(numScales / scalesPerWord);
  runWgsl(backend, {
    name: `MoeQuantizeWeights_${encodingKey(encoding)}`,
    buffers: [
      written('codes', codes),
      written('scales', scales!),
      ...(offsets == null ? [] : [written('offsets', offsets)]),
      {name: 'weights', type: 'u32', access: 'read', tensor: weights},
    ],
    constants: {CODES_PER_WORD: 32 / quantizedFormats[format].bits, SCALES_PER_WORD: scalesPerWord},
    uniforms: {numScales, numGroups, groupSize, numIn, zero: 0},
    numWorkgroups: Math.ceil(numWords / WORKGROUP_SIZE),
    code: () => `
      ${ENCODE_SMALL_FLOAT_WGSL}
      ${weightFormats[format].encodeWgsl(zeroPoint)}
      ${scaleFormats[scaleFormat].encodeWgsl}
      ${QUOTIENT}
      ${GROUP_SCALE}
      ${groupScaleWgsl(encoding)}
      ${SCALED_BITS}
      ${FLUSHED}
      ${QUANTIZE_GROUP}
      ${offsets == null ? NO_OFFSETS : WRITE_OFFSETS}
      ${entryPoint(`
        let word = group * ${WORKGROUP_SIZE} + thread;
        var scaleWord = 0u;
        var offsetWord = 0u;
        for (var i = 0u; i < SCALES_PER_WORD && word * SCALES_PER_WORD + i < uniforms.numScales; i++) {
          let quantized = quantizeGroup(word * SCALES_PER_WORD + i);
          scaleWord |= encodeScale(quantized.scale) << (i * (32 / SCALES_PER_WORD));
          offsetWord |= encodeScale(quantized.offset) << (i * (32 / SCALES_PER_WORD));
        }
        if (word * SCALES_PER_WORD < uniforms.numScales) {
          scales[word] = scaleWord;
          writeOffsets(word, offsetWord);
        }`)}`,
  });
}

const WRITE_OFFSETS = /* wgsl */ `
  fn writeOffsets(word : u32, value : u32) { offsets[word] = value; }`;
const NO_OFFSETS = /* wgsl */ `
  fn writeOffsets(word : u32, value : u32) {}`;
