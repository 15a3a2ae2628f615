/** Quantized weights on WebGL: textures of words, programs of packed and of single elements, and calls in turn. */
import {describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as fc from 'fast-check';
import * as tf from '../../src/tf';
import {webglRecorder} from '../../src/kernels/shared/webgl_steps';
import {expectFloats, expectInts, expectWithin} from '../support/expect';
import {bitsPerCode, bitsPerScale, naiveDequantized, numberOf, packed, scaleOf} from '../naive/quantized_weights';
import {type GroupedCase, naiveGroupedMatMul} from '../naive/grouped_mat_mul';
import {lcg} from '../support/routings';
import {backend, onDevice, withFlags} from '../support/webgl_backends';

const webgl = {predicate: ({backendName}: {backendName: string}) => backendName === 'webgl'};

const hasScales = (format: tf.QuantizedFormat) => bitsPerCode[format] < 16;
const isInteger = (format: tf.QuantizedFormat) => format === 'int4' || format === 'int8';
const numBytesInGPU = () => (tf.memory() as unknown as {numBytesInGPU: number}).numBytesInGPU;

type Encoding = {
  format: tf.QuantizedFormat;
  groupSize: number;
  scaleFormat: tf.ScaleFormat;
  hasOffsets?: boolean;
  zeroPoint?: number;
};

/** Codes near 1 of each scale format, and how far the next one is. */
const scaleCodes = {float32: [0x3e800000, 2 ** 16], float16: [0x3400, 2 ** 6], bfloat16: [0x3e80, 1], e8m0: [0x7a, 1]};

/** Any codes, with what they stand for. */
function anyWeights({format, scaleFormat, hasOffsets, zeroPoint, ...encoding}: Encoding, shape: [number, number, number], seed: number) {
  const next = lcg(seed);
  const bits = bitsPerCode[format];
  const groupSize = Math.min(encoding.groupSize, shape[2]);
  const groups = [shape[0], shape[1], Math.ceil(shape[2] / groupSize)];
  const codes = Array.from({length: tf.util.sizeFromShape(shape)}, () => Math.floor(next() * 2 ** bits))
    // 16-bit numbers between 1/4 and 4 in size.
    .map((code) => ({float16: 0x3400 + code % 0x1000 + 0x8000 * (code >> 15), bfloat16: 0x3e80 + code % 0x100 + 0x8000 * (code >> 15)})[format as 'float16'] ?? code)
    .map((code) => (Number.isNaN(numberOf[format](code)) ? 0 : code));
  const [first, step] = scaleCodes[scaleFormat];
  const any = () => Array.from({length: tf.util.sizeFromShape(groups)}, () => first + step * Math.floor(8 * next()));
  const [scales, offsets] = [any(), any()];
  const numbers = (given: number[]) => given.map(scaleOf[scaleFormat]);
  const tensorOf = (given: number[]) => scaleFormat === 'float32'
    ? tf.tensor(numbers(given), groups)
    : tf.tensor1d(packed(given, bitsPerScale[scaleFormat]), 'int32');
  const zero = hasOffsets || !isInteger(format) ? 0 : (zeroPoint ?? 2 ** (bits - 1));
  const weights: tf.QuantizedWeights = {
    format,
    shape,
    codes: tf.tensor(packed(codes, bits), [shape[0], shape[1], (shape[2] * bits) / 32], 'int32'),
    ...(hasScales(format) && {groupSize, scaleFormat, scales: tensorOf(scales)}),
    ...(hasOffsets ? {offsets: tensorOf(offsets)} : isInteger(format) && {zeroPoint: zero}),
  };
  const values = naiveDequantized({
    format, shape, codes, zeroPoint: zero,
    ...(hasScales(format) && {groupSize, scales: numbers(scales)}),
    ...(hasOffsets && {offsets: numbers(offsets)}),
  });
  return {weights, values};
}

const floatsOf = (count: number, seed: number) => {
  const next = lcg(seed);
  return Float32Array.from({length: count}, () => 2 * next() - 1);
};

const anyEncoding = fc.record({
  format: fc.constantFrom(...(Object.keys(bitsPerCode) as tf.QuantizedFormat[])),
  scaleFormat: fc.constantFrom(...(Object.keys(bitsPerScale) as tf.ScaleFormat[])),
  groupSize: fc.constantFrom(16, 32, 1024),
  zeroPoint: fc.constantFrom(undefined, 7),
  hasOffsets: fc.boolean(),
}).map(({hasOffsets, ...encoding}): Encoding => ({...encoding, hasOffsets: hasOffsets && isInteger(encoding.format)}));

const anyProduct = fc.record({
  encoding: anyEncoding,
  counts: fc.array(fc.nat({max: 4}), {minLength: 2, maxLength: 5}),
  numRest: fc.nat({max: 2}),
  numColumns: fc.integer({min: 1, max: 9}),
  numWords: fc.integer({min: 1, max: 11}),
  options: fc.constantFrom<tf.MoeGroupedMatMulOptions>(
    {}, {activation: 'silu'}, {activation: 'silu', gated: true}, {activation: 'gelu', gated: true, gateUp: 'interleaved'},
    {activation: 'swigluOai', gated: true},
  ),
  withBias: fc.boolean(),
  inParts: fc.boolean(),
  seed: fc.nat(),
});

const offsetOf = (counts: number[]) => counts.reduce((ends, count) => [...ends, ends[ends.length - 1] + count], [0]);

/** Experts `first` to `end - 1`. */
function partOf({codes, scales, offsets, shape, scaleFormat, ...weights}: tf.QuantizedWeights, first: number, end: number): tf.QuantizedWeights {
  const rows = (tensor: tf.Tensor) => tf.tensor(
    Array.from(tensor.dataSync()).slice((first * tensor.size) / shape[0], (end * tensor.size) / shape[0]),
    [end - first, ...tensor.shape.slice(1)], tensor.dtype as 'int32');
  return {
    ...weights, scaleFormat, codes: rows(codes), shape: [end - first, shape[1], shape[2]],
    ...(scales && {scales: rows(scales)}), ...(offsets && {offsets: rows(offsets)}),
  };
}

const int4 = (shape: [number, number, number], seed: number, scaleFormat: tf.ScaleFormat = 'float32') =>
  anyWeights({format: 'int4', groupSize: 32, scaleFormat}, shape, seed);

describeWithFlags('quantized experts on WebGL', webgl, () => {
  // tfjs's own programs would be compiled for each shape.
  const ofAnyShape = (run: () => Promise<void>) => () => withFlags({WEBGL_USE_SHAPES_UNIFORMS: true}, run);

  it('multiply as their float32 weights do', ofAnyShape(async () => {
    await fc.assert(
      fc.asyncProperty(anyProduct, async ({encoding, counts, numRest, numWords, options, withBias, inParts, seed, ...sizes}) => {
        const numIn = (numWords * 32) / bitsPerCode[encoding.format];
        const numColumns = options.gated ? 2 * sizes.numColumns : sizes.numColumns;
        const offset = offsetOf(counts);
        const numRows = offset[counts.length] + numRest;
        const shape: [number, number, number] = [counts.length, numColumns, numIn];
        const scaleFormat = inParts ? 'float32' : encoding.scaleFormat;
        const {weights, values} = anyWeights({...encoding, scaleFormat}, shape, seed);
        const x = floatsOf(numRows * numIn, seed + 1);
        const bias = withBias ? floatsOf(counts.length * numColumns, seed + 2) : undefined;
        const c: GroupedCase = {numRows, numIn, numColumns, offset};
        const naive = naiveGroupedMatMul(c, {x, weights: values, bias}, options);
        // NaN in rows of no expert.
        const rows = x.map((value, i) => (i < offset[counts.length] * numIn ? value : NaN));
        const out = tf.moeGroupedMatMul(
          tf.tensor2d(rows, [numRows, numIn]),
          inParts ? [partOf(weights, 0, 1), partOf(weights, 1, counts.length)] : weights,
          offset,
          {...options, bias: bias && tf.tensor2d(bias, [counts.length, numColumns])},
        );
        await expectWithin(out, naive.values, (i) => naive.bounds[i], 'products');
      }),
      // Each is a program of its own. Both browsers and every run draw others.
      {numRuns: 15},
    );
  }));

  it('have the gradient to rows that their float32 weights have', ofAnyShape(async () => {
    for (const [format, numColumns] of [['int4', 6], ['int4', 5], ['int8', 4], ['fp4', 2], ['float8', 3], ['float16', 6], ['bfloat16', 5]] as const) {
      for (const hasOffsets of isInteger(format) ? [false, true] : [false]) {
        const shape: [number, number, number] = [3, numColumns, format === 'float16' ? 34 : 40];
        const {weights, values} = anyWeights({format, groupSize: 16, scaleFormat: 'float16', hasOffsets}, shape, 4);
        const x = tf.tensor2d(floatsOf(7 * shape[2], 5), [7, shape[2]]);
        const dy = floatsOf(7 * numColumns, 6);
        const product = (rows: tf.Tensor) => tf.moeGroupedMatMul(rows, weights, [0, 2, 2, 7]);
        const dx = tf.grad(product)(x, tf.tensor2d(dy, [7, numColumns]));
        const naive = naiveGroupedMatMul(
          {numRows: 7, numIn: numColumns, numColumns: shape[2], offset: [0, 2, 2, 7]}, {x: dy, weights: values}, {weightFormat: 'inOut'});
        await expectWithin(dx, naive.values, (i) => naive.bounds[i], `${format} with offsets: ${hasOffsets}`);
      }
    }
  }));

  it('run for one token and for several as their float32 weights do', async () => {
    const [E, H, I, K] = [5, 32, 24, 2];
    for (const [first, second] of [['int4', 'int4'], ['int4', 'int8'], ['fp4', 'float16']] as const) {
      const w1 = anyWeights({format: first, groupSize: 16, scaleFormat: 'float16'}, [E, 2 * I, H], 7);
      const w2 = anyWeights({format: second, groupSize: 24, scaleFormat: 'float32'}, [E, H, I], 8);
      const floats = [tf.tensor3d(w1.values, [E, 2 * I, H]), tf.tensor3d(w2.values, [E, H, I])];
      for (const T of [1, 2, 5]) {
        const x = tf.tensor2d(floatsOf(T * H, 9), [T, H]);
        const logits = tf.tensor2d(floatsOf(T * E, 10), [T, E]);
        const options: tf.FusedMoeOptions = {w1Bias: tf.ones([E, 2 * I]), expertMap: tf.tensor1d([1, 2, 3, 4, 0], 'int32')};
        const wanted = await tf.fusedMoe(x, floats[0], floats[1], logits, K, options).data();
        const largest = Math.max(...wanted.map(Math.abs));
        const out = tf.fusedMoe(x, w1.weights, w2.weights, logits, K, options);
        await expectWithin(out, wanted as Float32Array, () => 1e-5 * largest, `${first}, ${second}, ${T} tokens`);
      }
    }
  });

  it('read no NaN of other rows and experts', async () => {
    // Row 1 is NaN, and so is a row of the second expert.
    const shape: [number, number, number] = [2, 4, 32];
    const codes = new Uint8Array(256).fill(0x38);
    codes.fill(0x7f, 5 * 32, 6 * 32);
    const weights: tf.QuantizedWeights = {
      format: 'float8', shape, codes: tf.tensor3d(new Int32Array(codes.buffer), [2, 4, 8], 'int32'), groupSize: 32, scales: tf.ones([2, 4, 1]),
    };
    const x = tf.concat([tf.ones([1, 32]), tf.fill([1, 32], NaN), tf.ones([1, 32])]) as tf.Tensor2D;
    const [one, nan] = [[32, 32, 32, 32], [NaN, NaN, NaN, NaN]];
    await expectFloats(tf.moeGroupedMatMul(x, weights, [0, 3, 3]), [...one, ...nan, ...one], 'rows of one expert');
    await expectFloats(tf.moeGroupedMatMul(x, weights, [0, 2, 3]), [...one, ...nan, 32, NaN, 32, 32], 'of two experts');
    await expectFloats(tf.moeGroupedMatMul(x, weights, [0, 1, 1]), [...one, 0, 0, 0, 0, 0, 0, 0, 0], 'of no expert');
  });

  it('are others of one shape in turn, and made anew', async () => {
    const x = tf.ones<tf.Rank.R2>([3, 64]);
    const ones = tf.ones<tf.Rank.R2>([1, 2]);
    const before = {numTensors: tf.memory().numTensors, bytes: numBytesInGPU()};
    const sums = (values: number[]) => Array.from({length: values.length / 64}, (_, row) =>
      values.slice(64 * row, 64 * row + 64).reduce((sum, value) => sum + value));
    webglRecorder.forget(backend());
    for (let round = 0; round < 3; round++) {
      const drawn = [1, 2].map((seed) => int4([2, 64, 64], seed + 2 * round, round === 1 ? 'bfloat16' : 'float32'));
      for (const {weights, values} of [...drawn, ...drawn, drawn[1], drawn[0]]) {
        const [dequantized, product, fused] = tf.tidy(() => [
          tf.moeDequantizeWeights(weights),
          tf.moeGroupedMatMul(x, weights, [0, 1, 3]),
          tf.fusedExperts(tf.slice(x, [0, 0], [1, 64]), weights, weights, ones, tf.tensor2d([0, 1], [1, 2], 'int32'), {gated: false, activation: 'linear'}),
        ]);
        const [first, second] = [sums(values).slice(0, 64), sums(values).slice(64)];
        const wanted = [...first, ...second, ...second];
        await expectFloats(dequantized, values, `weights in round ${round}`);
        await expectWithin(product, wanted, () => 1e-3, `products in round ${round}`);
        const twice = [0, 1].map((e) => Array.from({length: 64}, (_, d) => sums(
          values.slice(4096 * e + 64 * d, 4096 * e + 64 * d + 64).map((value, i) => value * (e === 0 ? first : second)[i]))[0]));
        await expectWithin(fused, twice[0].map((value, d) => value + twice[1][d]), () => 0.1, `experts in round ${round}`);
        tf.dispose([dequantized, product, fused]);
      }
      drawn.forEach(({weights}) => tf.dispose(weights));
    }
    // x, the ids and weights of slots are on the device now.
    const numBytesOf = (...tensors: tf.Tensor[]) => tensors.reduce((sum, {dataId}) => {
      const {texture, texShape} = backend().texData.get(dataId);
      return sum + (texture == null ? 0 : 4 * texShape![0] * texShape![1]);
    }, 0);
    expect(tf.memory().numTensors).toBe(before.numTensors);
    expect(numBytesInGPU() - numBytesOf(x, ones)).toBe(before.bytes);
  });

  it('take at most 1.4 times their bytes as textures', () => {
    for (const [format, scaleFormat, shape] of [
      ['int4', 'float16', [4, 96, 352]], ['int4', 'float32', [4, 96, 352]], ['int8', 'float16', [3, 50, 64]], ['fp4', 'e8m0', [1, 7, 1024]],
      ['float16', 'float32', [2, 33, 62]],
    ] as Array<[tf.QuantizedFormat, tf.ScaleFormat, [number, number, number]]>) {
      const {weights} = anyWeights({format, groupSize: 32, scaleFormat}, shape, 3);
      const x = tf.ones<tf.Rank.R2>([4, shape[2]]);
      const offset = tf.tensor1d(new Array(shape[0] + 1).fill(4).map((end: number, e) => (e === 0 ? 0 : end)), 'int32');
      tf.dispose(tf.moeGroupedMatMul(x, tf.ones(shape), offset));
      const before = numBytesInGPU();
      for (let call = 0; call < 2; call++) {
        tf.dispose(tf.moeGroupedMatMul(x, weights, offset));
        const numBytes = 4 * (weights.codes.size + (weights.scales?.size ?? 0));
        expect(numBytesInGPU() - before).withContext(`${format}, ${scaleFormat}`).toBeLessThanOrEqual(1.4 * numBytes);
      }
      tf.dispose([weights]);
      expect(numBytesInGPU()).withContext(`${format}, ${scaleFormat}`).toBe(before);
    }
  });

  it('take float32 scales in every form that textures have', () =>
    withFlags({WEBGL_SIZE_UPLOAD_UNIFORM: 4}, async () => {
      const {weights, values} = int4([2, 2, 64], 3);
      const scales = weights.scales as tf.Tensor3D;
      const longer = tf.concat([tf.ones([1, 2, 2]), scales]) as tf.Tensor3D;
      const forms: Array<[string, tf.Tensor]> = [
        ['on the host', tf.tensor3d(scales.dataSync(), [2, 2, 2])],
        ['2 x 2 elements a texel', onDevice(scales, true)],
        ['one element a texel', onDevice(scales, false)],
        ['a slice', tf.slice(onDevice(longer, false), [1, 0, 0], [2, 2, 2])],
        ['a reshape', tf.reshape(onDevice(tf.reshape(scales, [4, 2]), true), [2, 2, 2])],
      ];
      for (const numColumns of [2, 1]) {
        const of = (given: tf.Tensor): tf.QuantizedWeights => ({...weights, scales: given});
        const x = tf.tensor2d(floatsOf(3 * 64, 4), [3, 64]);
        const {values: wanted, bounds} = naiveGroupedMatMul(
          {numRows: 3, numIn: 64, numColumns: 2, offset: [0, 1, 3]}, {x: x.dataSync(), weights: values}, {gated: numColumns === 1});
        for (const order of [forms, [...forms].reverse(), forms]) {
          for (const [name, given] of order) {
            const out = tf.moeGroupedMatMul(x, of(given), [0, 1, 3], {gated: numColumns === 1});
            await expectWithin(out, wanted, (i) => bounds[i], name);
            await expectFloats(tf.moeDequantizeWeights(of(given)), values, name);
          }
        }
      }
      await expectFloats(forms[1][1], await scales.data() as Float32Array, 'scales afterwards');
    }));

  it('leave codes and rows as they are', async () => {
    const {weights} = int4([2, 4, 64], 5, 'float16');
    const before = await weights.codes.data();
    const x = tf.tensor2d(floatsOf(3 * 64, 4), [3, 64]);
    for (let call = 0; call < 2; call++) {
      tf.moeGroupedMatMul(x, weights, [0, 1, 3]);
      tf.moeGroupedMatMul(x, weights, [0, 1, 3], {gated: true});
      const {isPacked, usage, values} = backend().texData.get(weights.codes.dataId);
      expect([isPacked, usage, values != null]).toEqual([false, 2, true]);
    }
    await expectInts(weights.codes, before as Int32Array, 'codes');
    await expectFloats(x, floatsOf(3 * 64, 4), 'rows');
  });

  it('say which words are no longer on the host', () => {
    const {weights: w1} = int4([2, 4, 8], 1, 'float16');
    const {weights: w2} = int4([2, 8, 8], 2, 'float16');
    const moved = (tensor: tf.Tensor) => tf.mul(tensor, tf.scalar(1, 'int32'));
    const logits = tf.zeros<tf.Rank.R2>([1, 2]);
    const message = (opName: string, name: string) =>
      `Error in ${opName}: ${name} must be on the host on the webgl backend, whose textures round integers, but another op ` +
      'has moved them into one. Pass them as they were loaded or made.';
    const run = (first: tf.QuantizedWeights, second: tf.QuantizedWeights, numTokens: number) => () =>
      tf.fusedMoe(tf.ones([numTokens, 8]), first, second, tf.tile(logits, [numTokens, 1]), 1, {gated: false});
    const [narrow, wide] = [{...w1, shape: [2, 8, 8], codes: w2.codes, scales: w2.scales}, w2];
    for (const numTokens of [1, 5]) {
      run(narrow, wide, numTokens)();
      expect(run({...narrow, codes: moved(narrow.codes)}, wide, numTokens)).toThrowError(message('fusedMoe', 'w1.codes'));
      expect(run(narrow, {...wide, scales: moved(wide.scales!)}, numTokens)).toThrowError(message('fusedMoe', 'w2.scales'));
    }
    const x = tf.ones<tf.Rank.R2>([1, 8]);
    // What tfjs moves from the host is lost; what has a texture of words is only read wrongly.
    tf.moeGroupedMatMul(x, w1, [0, 1, 1]);
    expect(() => tf.moeGroupedMatMul(x, [w1, {...w1, codes: moved(w1.codes)}], [0, 1, 1, 1, 1])).toThrowError(message('moeGroupedMatMul', 'weights[1].codes'));
    // A slice of codes that have a texture shares it.
    const sliced = {...w1, shape: [1, 4, 8], codes: tf.slice(w1.codes, [1, 0, 0], [1, 4, 1]), scales: tf.tensor1d(packed([1, 1, 1, 1], 16), 'int32')};
    expect(() => tf.moeGroupedMatMul(x, sliced, [0, 1])).toThrowError(message('moeGroupedMatMul', 'weights.codes'));
  });

  it('say that their words take more than a texture', async () => {
    const {weights} = int4([2, 8, 64], 1);
    await withFlags({WEBGL_MAX_TEXTURE_SIZE: 8}, () => {
      expect(() => tf.moeGroupedMatMul(tf.ones([1, 64]), weights, [0, 1, 1])).toThrowError(
        "Error in moeGroupedMatMul: weights.codes [2,8,8] takes 128 texels of a texture, but this device's hold at most 64 (WEBGL_MAX_TEXTURE_SIZE is 8).");
    });
  });
});
