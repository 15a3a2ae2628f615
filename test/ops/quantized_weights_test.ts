/** moeQuantizeWeights and moeDequantizeWeights against definitions, and the values of ggml and PyTorch. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as fc from 'fast-check';
import * as tf from '../../src/tf';
import {encodingOf, type QuantizedEncoding} from '../../src/contract/quantized_weights';
import {quantizedOnHost} from '../../src/kernels/weight_formats/quantize';
import {expectFloats, expectInts} from '../support/expect';
import {bitsPerCode, bitsPerScale, naiveDequantized, numberOf, packed, scaleOf, unpacked} from '../naive/quantized_weights';
import {lcg} from '../support/routings';
import golden from '../golden/quantized_weights.json';

const formats = Object.keys(bitsPerCode) as tf.QuantizedFormat[];
const scaleFormats = Object.keys(bitsPerScale) as tf.ScaleFormat[];
const hasScales = (format: tf.QuantizedFormat) => bitsPerCode[format] < 16;
const isInteger = (format: tf.QuantizedFormat) => format === 'int4' || format === 'int8';
const bytesOf = (base64: string) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
const floatsOf = (base64: string) => new Float32Array(bytesOf(base64).buffer);

/** 0 on backends that do not count. */
const numBytesInGPU = () => (tf.memory() as {numBytesInGPU?: number}).numBytesInGPU ?? 0;

/** Fields as a tensor of scales. */
const scalesTensor = (codes: number[], format: tf.ScaleFormat, shape: number[]) =>
  format === 'float32'
    ? tf.tensor(codes.map(scaleOf.float32), shape, 'float32')
    : tf.tensor1d(packed(codes, bitsPerScale[format]), 'int32');

const codesTensor = (codes: ArrayLike<number>, format: tf.QuantizedFormat, [numExperts, numOut, numIn]: number[]) => {
  const words = packed(codes, bitsPerCode[format]);
  return tf.tensor(words, [numExperts, numOut, (numIn * bitsPerCode[format]) / 32], 'int32');
};

describeWithFlags('codes and scales', ALL_ENVS, () => {
  for (const format of formats) {
    it(`${format}: every code is its number`, async () => {
      const count = 2 ** bitsPerCode[format];
      // Twice, in both orders, so that each code of 4 bits stands in each place of a word.
      const codes = Array.from({length: 2 * count}, (_, i) => (i < count ? i : 2 * count - 1 - i));
      const numRows = codes.length / 16;
      const shape = [1, numRows, 16];
      const weights = tf.moeDequantizeWeights({
        format,
        shape,
        codes: codesTensor(codes, format, shape),
        ...(hasScales(format) && {groupSize: 16, scales: tf.ones([1, numRows, 1])}),
        ...(isInteger(format) && {zeroPoint: 0}),
      });
      const given = await weights.data();
      const wanted = codes.map(numberOf[format]);
      // GPUs may take subnormal numbers of float32 for 0.
      const isSame = (i: number) => Object.is(given[i], wanted[i]) || given[i] === wanted[i] ||
        (Math.abs(wanted[i]) < 2 ** -126 && given[i] === 0);
      expect(codes.filter((_, i) => !isSame(i)).slice(0, 9)).toEqual([]);
    });
  }

  it('float8 has the numbers of PyTorch', async () => {
    const codes = tf.tensor3d(packed(Array.from({length: 256}, (_, code) => code), 8), [1, 1, 64], 'int32');
    const weights = tf.moeDequantizeWeights({format: 'float8', shape: [1, 1, 256], codes, groupSize: 256, scales: tf.ones([1, 1, 1])});
    await expectFloats(weights, golden.float8.map((value) => value ?? NaN), 'numbers');
  });

  for (const scaleFormat of scaleFormats) {
    it(`${scaleFormat}: every scale is its number`, async () => {
      const count = Math.min(2 ** bitsPerScale[scaleFormat], 4096);
      // Of 16 and 32 bits every 16th or so, and all small and large ones.
      const stride = 2 ** bitsPerScale[scaleFormat] / count;
      const scaleCodes = Array.from({length: count}, (_, i) => i * stride + (i % stride))
        .filter((code) => Number.isFinite(scaleOf[scaleFormat](code)) || scaleFormat === 'e8m0');
      // Code 9 is 1 after the zero point 8.
      const shape = [1, scaleCodes.length, 8];
      const weights = tf.moeDequantizeWeights({
        format: 'int4',
        shape,
        codes: tf.tensor(new Int32Array(scaleCodes.length).fill(0x19999999), [1, scaleCodes.length, 1], 'int32'),
        groupSize: 8,
        scaleFormat,
        scales: scalesTensor(scaleCodes, scaleFormat, [1, scaleCodes.length, 1]),
      });
      const columns = tf.squeeze(tf.slice(weights, [0, 0, 0], [1, -1, 1])) as tf.Tensor1D;
      const given = await columns.data();
      const wanted = scaleCodes.map(scaleOf[scaleFormat]);
      const isSame = (i: number) => given[i] === wanted[i] || Number.isNaN(wanted[i]) === Number.isNaN(given[i]) &&
        (Number.isNaN(wanted[i]) || (Math.abs(wanted[i]) < 2 ** -126 && Math.abs(given[i]) < 2 ** -126));
      expect(scaleCodes.filter((_, i) => !isSame(i)).slice(0, 9)).toEqual([]);
    });
  }
});

/** Every way to quantize with groups of 32. */
const encodings: QuantizedEncoding[] = formats.flatMap((format) => {
  if (!hasScales(format)) {
    return [{format, groupSize: 0, scaleFormat: 'float32' as const, zeroPoint: 0, hasOffsets: false}];
  }
  const zeroPoint = isInteger(format) ? 2 ** (bitsPerCode[format] - 1) : 0;
  return scaleFormats
    .filter((scaleFormat) => !isInteger(format) || scaleFormat !== 'e8m0')
    .flatMap((scaleFormat) => (isInteger(format) ? [false, true] : [false]).map((hasOffsets) => ({
      format, groupSize: 32, scaleFormat, zeroPoint: hasOffsets ? 0 : zeroPoint, hasOffsets,
    })));
}).map(encodingOf);

const optionsOf = ({format, groupSize, scaleFormat, hasOffsets}: QuantizedEncoding): tf.MoeQuantizeWeightsOptions =>
  (groupSize === 0 ? {format} : {format, groupSize, scaleFormat, symmetric: !hasOffsets});

/** Small and large numbers, ties, zeros, and groups of only zeros or one number. */
const anyWeights = fc.record({seed: fc.nat(), exponent: fc.integer({min: -140, max: 120}), kind: fc.nat({max: 5})}).map(
  ({seed, exponent, kind}) => {
    const next = lcg(seed);
    const size = 2 ** exponent;
    return Float32Array.from({length: 2 * 3 * 48}, (_, i) => {
      const x = 2 * next() - 1;
      return [
        size * x,
        // Of all sizes in a group.
        size * Math.sign(x) * 2 ** (-30 * next()),
        (size * Math.round(16 * x)) / 2,
        0,
        size,
        i % 5 === 0 ? 0 : size * x,
      ][kind];
    });
  },
);
const anyShape: [number, number, number] = [2, 3, 48];

describeWithFlags('moeQuantizeWeights', ALL_ENVS, ({backendName}) => {
  for (const {type, blocks, values} of golden.ggml.cases) {
    it(`has the bits of ggml's ${type}`, async () => {
      const [format, symmetric] = ({Q4_0: ['int4', true], Q4_1: ['int4', false], Q8_0: ['int8', true]} as const)[
        type as 'Q4_0' | 'Q4_1' | 'Q8_0'];
      const weights = tf.tensor3d(floatsOf(golden.ggml.weights), golden.ggml.shape as [number, number, number]);
      const quantized = tf.moeQuantizeWeights(weights, {format, symmetric, scaleFormat: 'float16'});
      const numBlocks = weights.size / 32;
      const bytes = bytesOf(blocks);
      const blockSize = bytes.length / numBlocks;
      const halves = (place: number) => Array.from({length: numBlocks}, (_, b) => bytes[b * blockSize + place] + 256 * bytes[b * blockSize + place + 1]);
      const codes = Array.from({length: numBlocks}, (_, b) => {
        const codeBytes = Array.from(bytes.subarray(b * blockSize + (symmetric ? 2 : 4), (b + 1) * blockSize));
        return format === 'int8'
          ? codeBytes.map((byte) => (byte + 128) % 256)
          : [...codeBytes.map((byte) => byte % 16), ...codeBytes.map((byte) => byte >> 4)];
      }).flat();
      expect(unpacked(await quantized.codes.data(), bitsPerCode[format], weights.size)).toEqual(codes);
      expect(unpacked(await quantized.scales!.data(), 16, numBlocks)).toEqual(halves(0));
      if (!symmetric) {
        expect(unpacked(await quantized.offsets!.data(), 16, numBlocks)).toEqual(halves(2));
      }
      await expectFloats(tf.moeDequantizeWeights(quantized), floatsOf(values), 'values');
    });
  }

  it('has the same bits on every backend', async () => {
    for (const encoding of encodings) {
      await fc.assert(
        fc.asyncProperty(anyWeights, async (values) => {
          const {codes, scales, offsets} = quantizedOnHost({values, shape: anyShape}, encoding);
          const quantized = tf.moeQuantizeWeights(tf.tensor3d(values, anyShape), optionsOf(encoding));
          await expectInts(quantized.codes, codes.values as Int32Array, `codes of ${encoding.format}`);
          for (const [name, wanted] of [['scales', scales], ['offsets', offsets]] as const) {
            if (wanted == null) {
              expect(quantized[name]).withContext(name).toBeUndefined();
            } else if (wanted.values instanceof Int32Array) {
              await expectInts(quantized[name]!, wanted.values, name);
            } else {
              await expectFloats(quantized[name]!, wanted.values, name);
            }
          }
          tf.dispose(quantized);
        }),
        {numRuns: backendName === 'cpu' ? 1 : 12},
      );
    }
  });

  it('is off by half a step at most, and by one past the last code', async () => {
    for (const encoding of encodings.filter(({scaleFormat, format}) => scaleFormat === 'float32' && isInteger(format))) {
      await fc.assert(
        fc.asyncProperty(fc.nat(), async (seed) => {
          const next = lcg(seed);
          const values = Float32Array.from({length: 2 * 3 * 48}, () => 2 * next() - 1);
          const quantized = tf.moeQuantizeWeights(tf.tensor3d(values, anyShape), optionsOf(encoding));
          const [weights, scales, codes] = await Promise.all(
            [tf.moeDequantizeWeights(quantized), quantized.scales!, quantized.codes].map((tensor) => tensor.data()));
          const bits = bitsPerCode[encoding.format];
          const last = unpacked(codes, bits, values.length).map((code) => code === 2 ** bits - 1);
          const worst = Math.max(...values.map((value, i) => {
            const step = Math.abs(scales[Math.floor(i / 48) * 2 + Math.floor((i % 48) / 32)]);
            return Math.abs(value - weights[i]) / step / (last[i] && !encoding.hasOffsets ? 2 : 1);
          }));
          expect(worst).toBeLessThanOrEqual(0.5 + 1e-4);
        }),
        {numRuns: 5},
      );
    }
  });

  it('gives back codes of which a group has the largest', async () => {
    for (const format of formats.filter(hasScales)) {
      const next = lcg(3);
      const largest = {int4: 0, int8: 255, fp4: 7, float8: 126}[format as 'int4'];
      const count = 2 ** bitsPerCode[format];
      const shape = [2, 3, 48];
      // The first code of each group of 16 is the largest. -127 is the least of int8, and NaN and -0 come back as others.
      const codes = Array.from({length: 288}, (_, i) => (i % 16 === 0 ? largest : Math.floor(next() * count)))
        .map((code) => (isInteger(format) ? Math.max(code, format === 'int8' ? 1 : 0) : Object.is(numberOf[format](code), -0) || Number.isNaN(numberOf[format](code)) ? 0 : code));
      const scales = Array.from({length: 18}, (_, i) => 2 ** (i - 9));
      const given: tf.QuantizedWeights = {format, shape, codes: codesTensor(codes, format, shape), groupSize: 16, scales: tf.tensor3d(scales, [2, 3, 3])};
      const quantized = tf.moeQuantizeWeights(tf.moeDequantizeWeights(given), {format, groupSize: 16, scaleFormat: 'float32'});
      expect(unpacked(await quantized.codes.data(), bitsPerCode[format], 288)).withContext(format).toEqual(codes);
      await expectFloats(quantized.scales!, scales, format);
    }
  });

  it('gives back 16-bit codes', async () => {
    for (const format of ['float16', 'bfloat16'] as const) {
      const codes = Array.from({length: 65536}, (_, code) => code).filter((code) => {
        const size = Math.abs(numberOf[format](code));
        return size >= 2 ** -126 || size === 0;
      });
      codes.length -= codes.length % 2;
      const shape = [1, 1, codes.length];
      const weights = tf.moeDequantizeWeights({format, shape, codes: codesTensor(codes, format, shape)});
      await expectInts(tf.moeQuantizeWeights(weights, {format}).codes, packed(codes, 16), format);
    }
  });

  it('makes a group with NaN or an infinity NaN, and no other', async () => {
    const weights = new Float32Array(64).fill(1);
    weights[3] = NaN;
    weights[40] = -Infinity;
    for (const format of formats) {
      const values = tf.tensor3d(weights, [1, 1, 64]);
      const quantized = tf.moeQuantizeWeights(values, hasScales(format) ? {format, groupSize: 16} : {format});
      const given = await tf.moeDequantizeWeights(quantized).data();
      const wanted = hasScales(format) ? [true, false, true, false] : [false, false, false, false];
      const isAllNaN = wanted.map((_, g) => given.subarray(16 * g, 16 * g + 16).every(Number.isNaN));
      expect(isAllNaN).withContext(format).toEqual(wanted);
      expect(given[20]).withContext(format).toBe(format === 'fp4' ? 1 : given[50]);
    }
  });

  it('makes zeros of scale 0', async () => {
    for (const options of [{}, {symmetric: false}, {format: 'int8'}, {format: 'float8'}] as tf.MoeQuantizeWeightsOptions[]) {
      const quantized = tf.moeQuantizeWeights(tf.zeros([1, 2, 32]), options);
      await expectFloats(quantized.scales!, [0, 0], 'scales');
      await expectFloats(tf.moeDequantizeWeights(quantized), new Float32Array(64), 'weights');
    }
  });

  it('is a method of tensors', async () => {
    const {codes} = tf.tensor3d([[[1, 2, 3, 4, 5, 6, 7, -8]]]).moeQuantizeWeights({groupSize: 8});
    await expectInts(codes, [0x0fedcba9], 'codes');
  });
});

describeWithFlags('moeDequantizeWeights', ALL_ENVS, ({backendName}) => {
  it('has the values of MXFP4 files', async () => {
    const [{shape, blocks, scales, values}] = golden.mxfp4;
    const [numExperts, numOut, numIn] = shape;
    const weights = tf.moeDequantizeWeights({
      format: 'fp4',
      shape,
      codes: tf.tensor3d(new Int32Array(bytesOf(blocks).buffer), [numExperts, numOut, numIn / 8], 'int32'),
      groupSize: 32,
      scaleFormat: 'e8m0',
      scales: tf.tensor1d(packed(bytesOf(scales), 8), 'int32'),
    });
    await expectFloats(weights, floatsOf(values), 'values');
  });

  const anyEncoding = fc.record({
    format: fc.constantFrom(...formats),
    scaleFormat: fc.constantFrom(...scaleFormats),
    groupSize: fc.constantFrom(16, 32, 48, 1024, undefined),
    zeroPoint: fc.constantFrom(undefined, 0, 7, 15),
    hasOffsets: fc.boolean(),
    numExperts: fc.integer({min: 1, max: 4}),
    numOut: fc.integer({min: 1, max: 5}),
    // In words.
    numIn: fc.integer({min: 1, max: 13}),
    seed: fc.nat(),
  });

  it('is scale * (code - zeroPoint), or scale * code + offset, of any experts', async () => {
    await fc.assert(
      fc.asyncProperty(anyEncoding, async ({format, scaleFormat, zeroPoint, hasOffsets, numExperts, numOut, seed, ...drawn}) => {
        const next = lcg(seed);
        const bits = bitsPerCode[format];
        const numIn = (drawn.numIn * 32) / bits;
        const shape: [number, number, number] = [numExperts, numOut, numIn];
        const groupSize = drawn.groupSize ?? numIn;
        const groups = [numExperts, numOut, Math.ceil(numIn / groupSize)];
        const count = tf.util.sizeFromShape(groups);
        const offsets = isInteger(format) && hasOffsets;
        const codes = Array.from({length: tf.util.sizeFromShape(shape)}, () => Math.floor(next() * 2 ** bits))
          .map((code) => (Number.isFinite(numberOf[format](code)) && (code === 0 || Math.abs(numberOf[format](code)) > 1e-30) ? code : 0));
        // Of 8 and 9 bits, so that every product and sum is exact in float32.
        const scaleCodes = (): number[] => Array.from({length: count}, () =>
          ({float32: 0x3e800000, float16: 0x3400, bfloat16: 0x3e80, e8m0: 0x7a})[scaleFormat] + Math.floor(next() * 8) * ({float32: 2 ** 16, float16: 2 ** 6, bfloat16: 1, e8m0: 1})[scaleFormat]);
        const [scales, offsetCodes] = [scaleCodes(), scaleCodes()];
        const weights: tf.QuantizedWeights = {
          format,
          shape,
          codes: codesTensor(codes, format, shape),
          ...(hasScales(format) && {groupSize, scaleFormat, scales: scalesTensor(scales, scaleFormat, groups)}),
          ...(offsets ? {offsets: scalesTensor(offsetCodes, scaleFormat, groups)} : isInteger(format) && {zeroPoint}),
        };
        const wanted = naiveDequantized({
          format,
          shape,
          codes,
          ...(hasScales(format) && {groupSize, scales: scales.map(scaleOf[scaleFormat])}),
          ...(offsets
            ? {offsets: offsetCodes.map(scaleOf[scaleFormat])}
            : {zeroPoint: isInteger(format) ? (zeroPoint ?? 2 ** (bits - 1)) : 0}),
        });
        const first = Math.floor(next() * numExperts);
        const part = tf.moeDequantizeWeights(weights, {experts: [first, numExperts - first]});
        await expectFloats(tf.moeDequantizeWeights(weights), wanted, 'all');
        await expectFloats(part, wanted.slice(first * numOut * numIn), `experts from ${first}`);
        expect(part.shape).toEqual([numExperts - first, numOut, numIn]);
        tf.dispose([weights, part]);
      }),
      {numRuns: 40},
    );
  });

  it('leaves nothing behind', async () => {
    const weights = tf.tensor3d(Float32Array.from({length: 128}, (_, i) => i - 60), [1, 2, 64]);
    const before = tf.memory();
    for (const encoding of encodings) {
      const quantized = tf.moeQuantizeWeights(weights, optionsOf(encoding));
      const dequantized = tf.moeDequantizeWeights(quantized);
      await dequantized.data();
      tf.dispose([quantized, dequantized]);
      const kept = tf.tidy(() => tf.moeDequantizeWeights(tf.moeQuantizeWeights(weights, optionsOf(encoding))));
      kept.dispose();
    }
    expect(tf.memory().numTensors).toBe(before.numTensors);
    expect(tf.memory().numDataBuffers).toBe(before.numDataBuffers);
  });

  it('reads words that stay on the host on webgl, with a texture that goes with them', async () => {
    const weights = tf.tensor3d(Float32Array.from({length: 128}, (_, i) => i - 60), [1, 2, 64]);
    const quantized = tf.moeQuantizeWeights(weights, {scaleFormat: 'float16'});
    const before = await quantized.codes.data();
    const numBytes = numBytesInGPU();
    for (let i = 0; i < 2; i++) {
      tf.dispose(tf.moeDequantizeWeights(quantized));
      if (backendName === 'webgl') {
        // 16 words of codes and 2 of scales.
        expect(numBytesInGPU() - numBytes).toBe(4 * (16 + 2));
      }
    }
    await expectInts(quantized.codes, before as Int32Array, 'codes');
    tf.dispose(quantized);
    if (backendName === 'webgl') {
      expect(numBytesInGPU()).toBe(numBytes);
    }
  });

  it('says that words are no longer on the host', () => {
    if (backendName === 'webgl') {
      const quantized = tf.moeQuantizeWeights(tf.ones([1, 2, 64]));
      const moved = tf.mul(quantized.codes, tf.scalar(1, 'int32'));
      expect(() => tf.moeDequantizeWeights({...quantized, codes: moved})).toThrowError(
        'Error in moeDequantizeWeights: weights.codes must be on the host on the webgl backend, whose textures round integers, ' +
        'but another op has moved them into one. Pass them as they were loaded or made.');
    }
  });

  it('has no gradient to codes and scales, and passes others', () => {
    const scales = tf.ones([1, 1, 1]);
    const of = (given: tf.Tensor) => tf.moeDequantizeWeights({format: 'int4', shape: [1, 1, 8], codes: tf.zeros([1, 1, 1], 'int32'), groupSize: 8, scales: given});
    expect(() => tf.grad(of)(scales)).toThrowError('Error in moeDequantizeWeights: there is no gradient to scales. Quantized weights are frozen.');
    expect(() => tf.grad((w) => tf.moeDequantizeWeights(tf.moeQuantizeWeights(w, {groupSize: 8})))(tf.ones([1, 1, 8])))
      .toThrowError(/there is no gradient to codes|there is no gradient to scales/);
    const toX = tf.grad((x: tf.Tensor) => tf.matMul(x, tf.squeeze(of(scales), [0]), false, true));
    expect(toX(tf.ones([2, 8])).shape).toEqual([2, 8]);
  });
});
