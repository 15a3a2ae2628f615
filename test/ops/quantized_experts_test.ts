/** Ops on quantized experts against naive loops over the float32 numbers that codes stand for. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {type FusedCase, naiveFusedExperts, type NaiveFusedOptions} from '../naive/fused_experts';
import {naiveFusedMoe} from '../naive/fused_moe';
import {naiveGroupedMatMul, type NaiveOptions} from '../naive/grouped_mat_mul';
import {bitsPerCode} from '../naive/quantized_weights';
import {expectFloats, expectWithin} from '../support/expect';
import {
  codesTensor,
  hasScales,
  isInteger,
  nameOf,
  nested,
  type QuantizedDraw,
  randomParts,
  randomQuantized,
} from '../support/quantized_experts';
import {caseOf, type Sizes, tensors} from '../support/fused_cases';
import {lcg} from '../support/routings';

const formats = Object.keys(bitsPerCode) as tf.QuantizedFormat[];
const codesPerWord = (format: tf.QuantizedFormat) => 32 / bitsPerCode[format];

/** Every format, and every scale format, group size and kind of zero at least once. */
const draws: QuantizedDraw[] = [
  {format: 'int4', groupSize: 32},
  {format: 'int4', groupSize: 32, scaleFormat: 'float16', zeroPoint: 7},
  {format: 'int4', groupSize: 128, scaleFormat: 'bfloat16', hasOffsets: true},
  {format: 'int4', groupSize: 16, scaleFormat: 'float32', hasOffsets: true},
  {format: 'int8', scaleFormat: 'bfloat16'},
  {format: 'int8', groupSize: 16, scaleFormat: 'float16', hasOffsets: true},
  {format: 'fp4', groupSize: 32, scaleFormat: 'e8m0'},
  {format: 'fp4', groupSize: 16},
  {format: 'float8', groupSize: 128},
  {format: 'float8', groupSize: 32, scaleFormat: 'e8m0'},
  {format: 'float16'},
  {format: 'bfloat16'},
];

/** One for each number of bits, each kind of number and each format of scales. */
const inTiles = [1, 2, 6, 8, 10].map((i) => draws[i]);

/** Each format with every group, scale format and kind of zero: for backends that compile nothing. */
const allDraws: QuantizedDraw[] = formats.flatMap((format): QuantizedDraw[] =>
  hasScales(format)
    ? [16, 32, 128, undefined].flatMap((groupSize) =>
        (['float32', 'float16', 'bfloat16', 'e8m0'] as const).flatMap((scaleFormat): QuantizedDraw[] => [
          {format, groupSize, scaleFormat},
          ...(isInteger(format) ? [{format, groupSize, scaleFormat, zeroPoint: 3}, {format, groupSize, scaleFormat, hasOffsets: true}] : []),
        ]))
    : [{format}],
);

type MatMulCase = {
  name: string;
  /** C in words. */
  numWords: number;
  numColumns: number;
  numRows: number;
  offset: number[];
  options: NaiveOptions;
  hasBias?: boolean;
};

/** Sizes for each of the GPU kernels' ways: few rows, some rows, and tiles. */
const matMulCases: MatMulCase[] = [
  {name: 'few rows, C of one word', numWords: 1, numColumns: 8, numRows: 5, offset: [1, 3, 3, 4], options: {}, hasBias: true},
  {
    name: 'some rows, an odd number of words, C no multiple of the group, gated', numWords: 7, numColumns: 12, numRows: 12,
    offset: [0, 7, 12], options: {activation: 'silu', gated: true},
  },
  {
    name: 'tiles, C of whole steps, interleaved', numWords: 16, numColumns: 8, numRows: 73, offset: [2, 70, 70, 71],
    options: {activation: 'swigluOai', gated: true, gateUp: 'interleaved'}, hasBias: true,
  },
];

const oddCases: MatMulCase[] = [
  {name: 'no rows', numWords: 2, numColumns: 4, numRows: 0, offset: [0, 0, 0], options: {}},
  {name: 'one row, one output', numWords: 1, numColumns: 1, numRows: 1, offset: [0, 1], options: {}, hasBias: true},
  {name: 'no expert has rows', numWords: 3, numColumns: 4, numRows: 3, offset: [0, 0, 0], options: {}},
  {name: 'few rows, odd D', numWords: 5, numColumns: 7, numRows: 4, offset: [0, 1, 1, 4], options: {activation: 'gelu'}, hasBias: true},
  {name: 'few rows, more words than lanes', numWords: 67, numColumns: 36, numRows: 3, offset: [0, 2, 3], options: {}},
  {
    name: 'few rows, odd number of outputs', numWords: 9, numColumns: 10, numRows: 4, offset: [0, 1, 1, 4],
    options: {activation: 'geluTanh', gated: true, gateUp: 'interleaved'},
  },
  {name: 'tiles, odd D, an odd number of words', numWords: 5, numColumns: 9, numRows: 50, offset: [0, 44, 50], options: {}, hasBias: true},
  {
    name: 'tiles, more columns than one has', numWords: 4, numColumns: 140, numRows: 30, offset: [1, 29],
    options: {activation: 'relu', gated: true}, hasBias: true,
  },
];

async function expectMatMul(draw: QuantizedDraw, {name, numWords, numColumns, numRows, offset, options, hasBias}: MatMulCase, inParts = false): Promise<void> {
  const numExperts = offset.length - 1;
  const numIn = numWords * codesPerWord(draw.format);
  const next = lcg(numRows + numIn);
  const random = (size: number) => Float32Array.from({length: size}, () => 2 * next() - 1);
  const isOfExpert = (row: number) => row >= offset[0] && row < offset[numExperts];
  // NaN and infinities in rows of no expert.
  const x = random(numRows * numIn).map((value, i) => (isOfExpert(Math.floor(i / numIn)) ? value : i % 2 === 0 ? NaN : Infinity));
  const bias = hasBias ? random(numExperts * numColumns) : undefined;
  const counts = inParts ? [1, numExperts - 1] : [numExperts];
  const {parts, values} = randomParts(counts.filter((count) => count > 0), [numColumns, numIn], draw, numRows);
  const given = {
    x: tf.tensor2d(x, [numRows, numIn]),
    offset: tf.tensor1d(offset, 'int32'),
    bias: bias && tf.tensor2d(bias, [numExperts, numColumns]),
  };
  const y = tf.moeGroupedMatMul(given.x, inParts ? parts : parts[0], given.offset, {...options, bias: given.bias});
  const {values: wanted, bounds} = naiveGroupedMatMul({numRows, numIn, numColumns, offset}, {x, weights: values, bias}, options);
  await expectWithin(y, wanted, (i) => bounds[i], `${nameOf(draw)}, ${name}`);
  tf.dispose([y, {...given, parts}] as tf.TensorContainer);
}

/** Whether kernels are compiled for each format. */
const isGpu = (backendName: string) => backendName.startsWith('web');

describeWithFlags('moeGroupedMatMul of quantized weights', ALL_ENVS, ({backendName}) => {
  for (const [i, draw] of draws.entries()) {
    it(`is the matmul of the numbers: ${nameOf(draw)}`, async () => {
      // A software GPU compiles each program for a second: there one program a format.
      const [few, some, tiles] = matMulCases;
      const ofGpu = inTiles.includes(draw) ? [tiles] : i % 3 === 0 ? [some] : [few];
      for (const sizes of isGpu(backendName) ? ofGpu : [few, some, tiles]) {
        await expectMatMul(draw, sizes);
      }
    });
  }

  for (const [i, sizes] of oddCases.entries()) {
    it(`has any sizes: ${sizes.name}`, async () => {
      for (const draw of isGpu(backendName) ? [draws[(5 * i + 10) % draws.length]] : allDraws) {
        await expectMatMul(draw, sizes);
      }
    });
  }

  it('reads parts as their concatenation', async () => {
    for (const draw of isGpu(backendName) ? [draws[2]] : allDraws) {
      for (const sizes of [matMulCases[0], matMulCases[2]]) {
        await expectMatMul(draw, sizes, true);
      }
    }
  });

  it('has NaN of a code only in the outputs of its row', async () => {
    const shape: [number, number, number] = [2, 4, 16];
    // Code 0x7f of expert 1, output 2.
    const codes = Array.from({length: 128}, (_, i) => (i === 64 + 2 * 16 + 5 ? 127 : 56));
    const weights: tf.QuantizedWeights = {
      format: 'float8', shape, codes: codesTensor(codes, 'float8', shape), groupSize: 16, scales: tf.ones([2, 4, 1]),
    };
    for (const [numRows, offset] of [[3, [0, 1, 3]], [40, [0, 20, 40]]] as const) {
      const y = await tf.moeGroupedMatMul(tf.ones([numRows, 16]), weights, [...offset]).array();
      const wanted = y.map((_, row) => [16, 16, row >= offset[1] ? NaN : 16, 16]);
      expect(y).toEqual(wanted);
    }
  });

  for (const format of ['float16', 'bfloat16'] as const) {
    it(`has NaN of a ${format} only in the outputs of its row, after rows of another length`, async () => {
      const codes = (numIn: number, isNaN: (i: number) => boolean) =>
        codesTensor(Array.from({length: 9 * numIn}, (_, i) => (isNaN(i) ? 0x7fff : 0)), format, [1, 9, numIn]);
      for (const numRows of [1, 40]) {
        for (const numIn of [4, 6]) {
          // The first code of output 4.
          const weights = {format, shape: [1, 9, numIn], codes: codes(numIn, (i) => i === 4 * numIn)};
          const y = tf.moeGroupedMatMul(tf.ones([numRows, numIn]), weights, [0, numRows]);
          await expectFloats(y, Array.from({length: 9 * numRows}, (_, i) => (i % 9 === 4 ? NaN : 0)), `${numRows} rows, C = ${numIn}`);
        }
      }
    });
  }

  it('has groups of any number of inputs', async () => {
    for (const groupSize of [48, 2 ** 32, 2 ** 40]) {
      for (const sizes of [matMulCases[0], matMulCases[2]]) {
        await expectMatMul({format: 'int8', groupSize, hasOffsets: true}, sizes);
      }
      const {scales, ...quantized} = tf.moeQuantizeWeights(tf.ones([1, 1, 32]), {groupSize});
      expect(quantized.groupSize).toBe(groupSize);
      await expectFloats(scales!, [-0.125], 'scales');
      await expectFloats(tf.moeDequantizeWeights({...quantized, scales}), new Array<number>(32).fill(1), 'weights');
    }
  });

  it('has NaN of a scale only in the outputs of its group', async () => {
    const shape: [number, number, number] = [1, 3, 64];
    // 2 is 1.0, and 255 the NaN of e8m0.
    const weights: tf.QuantizedWeights = {
      format: 'fp4', shape, codes: codesTensor(new Array<number>(192).fill(2), 'fp4', shape), groupSize: 32, scaleFormat: 'e8m0',
      scales: tf.tensor1d([127 + 127 * 2 ** 8 + 127 * 2 ** 16 + (255 << 24), 127 + 127 * 2 ** 8], 'int32'),
    };
    await expectFloats(tf.moeGroupedMatMul(tf.ones([2, 64]), weights, [0, 2]), [64, NaN, 64, 64, NaN, 64], 'y');
  });
});

type FusedOptions = NaiveFusedOptions & {hasBias?: boolean; hasMap?: boolean; inParts?: boolean};

/** w1 and w2 by their draws; float32 without one. */
async function expectFused(
  sizes: Sizes,
  drawOfW1: QuantizedDraw | undefined,
  drawOfW2: QuantizedDraw | undefined,
  {hasBias, hasMap, inParts, ...options}: FusedOptions = {},
): Promise<void> {
  const {K, E, H, I} = sizes;
  const {w1Bias, w2Bias, expertMap: _, ...fused} = caseOf(sizes, options);
  const numColumns = options.gated === false ? I : 2 * I;
  const quantized = (shape: [number, number, number], draw: QuantizedDraw | undefined, floats: number[][][]) => {
    if (draw == null) {
      return {given: tf.tensor3d(floats), wanted: floats};
    }
    const {parts, values} = randomParts(inParts ? [1, shape[0] - 1] : [shape[0]], [shape[1], shape[2]], draw, H);
    return {given: inParts ? parts : parts[0], wanted: nested(values, shape)};
  };
  const w1 = quantized([E, numColumns, H], drawOfW1, fused.w1);
  const w2 = quantized([E, H, I], drawOfW2, fused.w2);
  const biases = hasBias ? {w1Bias, w2Bias} : {};
  // Experts in reverse, and two that are not local.
  const maps = hasMap ? {expertMap: [...Array.from({length: E}, (__, e) => E - 1 - e), -1, -1]} : {};
  const {x, ids, topkWeights} = tensors(fused, {H, K});
  const naiveCase: FusedCase = {...fused, ...biases, ...maps, w1: w1.wanted, w2: w2.wanted};
  const out = tf.fusedExperts(x, w1.given, w2.given, topkWeights, ids, {...options, ...biases, ...maps});
  expect(out.shape).toEqual([sizes.T, H]);
  const {values, magnitudes} = naiveFusedExperts(naiveCase, options);
  const what = JSON.stringify({sizes, options, drawOfW1, drawOfW2});
  await expectWithin(out, values, (i) => 2e-5 * magnitudes[i] + 1e-5, what);
  tf.dispose([out, x, ids, topkWeights, w1.given, w2.given] as tf.TensorContainer);
}

const alternate = (i: number) => draws[i % draws.length];
const sizesOf = (T: number, H = 16, I = 24): Sizes => ({T, K: 2, E: 3, H, I});

describeWithFlags('fusedExperts of quantized weights', ALL_ENVS, ({backendName}) => {
  for (const [i, draw] of draws.entries()) {
    it(`runs few tokens without a sort: ${nameOf(draw)}`, async () => {
      // w2 in another format.
      const ofW2 = alternate(i + 5);
      const options = [{hasBias: true}, {gateUp: 'interleaved' as const, activation: 'swigluOai' as const, hasMap: true}];
      // With a map the GPU kernels are others, with the same reader of weights.
      for (const [T, given] of isGpu(backendName) ? [[1 + (i % 2), options[i % 2]] as const] : ([[1, options[0]], [2, options[1]]] as const)) {
        await expectFused(sizesOf(T), draw, ofW2, given);
      }
    });
  }

  it('takes any number of tokens', async () => {
    const pairs = isGpu(backendName) ? [[draws[0], draws[6]]] : draws.map((draw, i) => [draw, alternate(i + 3)]);
    for (const [ofW1, ofW2] of pairs) {
      for (const T of isGpu(backendName) ? [0, 2, 40] : [0, 1, 2, 3, 40, 200]) {
        await expectFused(sizesOf(T, 40, 32), ofW1, ofW2, {hasBias: T % 2 === 1, hasMap: T % 2 === 0, inParts: T === 40});
      }
    }
  });

  it('takes a bias, a map and offsets at once', () =>
    // In a kernel of GPUs these are as many buffers as any device binds.
    expectFused(sizesOf(2), draws[3], draws[3], {hasBias: true, hasMap: true}));

  it('takes either weights in float32', async () => {
    for (const T of isGpu(backendName) ? [1, 3] : [1, 3, 40]) {
      await expectFused(sizesOf(T, 16, 8), draws[0], undefined);
      await expectFused(sizesOf(T, 16, 8), undefined, draws[0], {gated: false, activation: 'relu'});
    }
  });

  it('multiplies rows by router weights first', async () => {
    await expectFused(sizesOf(2, 16, 16), draws[0], draws[0], {applyRouterWeightOnInput: true, hasBias: true});
    await expectFused(sizesOf(4, 16, 16), draws[0], draws[0], {applyRouterWeightOnInput: true, hasMap: true});
  });

  it('lets nothing of tokens without local experts through', async () => {
    const [H, I] = [16, 8];
    const w1 = randomQuantized([2, 2 * I, H], draws[0], 1);
    const w2 = randomQuantized([2, H, I], {format: 'int8', groupSize: 16}, 2);
    for (const T of [2, 5]) {
      const x = tf.tidy(() => tf.concat([tf.fill([1, H], NaN), tf.ones([T - 1, H])]));
      const ids = [[-1, 2], ...new Array<number[]>(T - 1).fill([0, 1])];
      const out = await tf.fusedExperts(x as tf.Tensor2D, w1.weights, w2.weights, [[NaN, Infinity], ...new Array<number[]>(T - 1).fill([1, 1])], ids).array();
      expect(out[0]).toEqual(new Array<number>(H).fill(0));
      expect(out.slice(1).flat().every(Number.isFinite)).toBeTrue();
    }
  });
});

describeWithFlags('fusedMoe of quantized weights', ALL_ENVS, () => {
  for (const T of [1, 9]) {
    it(`has routers, maps and shared experts, T = ${T}`, async () => {
      const sizes = sizesOf(T, 16, 8);
      const {E, H, I, K} = sizes;
      const fused = caseOf(sizes);
      const logits = Array.from({length: T}, (_, t) => Array.from({length: E}, (__, e) => Math.sin(3 * t + 2 * e)));
      const w1 = randomQuantized([E, 2 * I, H], draws[0], 3);
      const w2 = randomQuantized([E, H, I], draws[0], 4);
      const shared = caseOf({...sizes, E: 1}, {}, 9);
      const out = tf.fusedMoe(tf.tensor2d(fused.x), w1.weights, w2.weights, tf.tensor2d(logits), K, {
        w1Bias: fused.w1Bias,
        sharedExperts: {w1: shared.w1[0], w2: shared.w2[0]},
      });
      const routed = {x: fused.x, w1Bias: fused.w1Bias, w1: nested(w1.values, [E, 2 * I, H]), w2: nested(w2.values, [E, H, I])};
      const {values, magnitudes} = naiveFusedMoe(routed, logits, {topk: K, scoring: 'softmax', renormalize: true}, {});
      const ofShared = naiveFusedExperts({x: fused.x, ids: fused.x.map(() => [0]), topkWeights: fused.x.map(() => [1]), w1: shared.w1, w2: shared.w2});
      const wanted = values.map((value, i) => value + ofShared.values[i]);
      await expectWithin(out, wanted, (i) => 2e-5 * (magnitudes[i] + ofShared.magnitudes[i]) + 1e-5, 'out');
    });
  }
});

describeWithFlags('memory of quantized experts', ALL_ENVS, () => {
  it('returns to where it began, also after an error', async () => {
    const [E, H, I] = [2, 16, 40];
    const numBytesInGPU = async () => {
      const last = tf.tidy(() => tf.neg(tf.scalar(1)));
      await last.data();
      last.dispose();
      return (tf.memory() as {numBytesInGPU?: number}).numBytesInGPU ?? 0;
    };
    const run = async () => {
      const w1 = randomQuantized([E, 2 * I, H], draws[0], 1).weights;
      const w2 = randomQuantized([E, H, I], draws[0], 2).weights;
      for (const T of [1, 5]) {
        const x = tf.ones<tf.Rank.R2>([T, H]);
        const logits = tf.ones<tf.Rank.R2>([T, E]);
        const before = tf.memory().numTensors;
        const out = tf.fusedMoe(x, w1, w2, logits, 1);
        expect(tf.memory().numTensors).toBe(before + 1);
        await out.data();
        const gradient = tf.grad((rows: tf.Tensor) => tf.fusedMoe(rows, w1, w2, logits, 1))(x);
        await gradient.data();
        expect(() => tf.fusedMoe(x, w1, {...w2, scales: w1.scales}, logits, 1)).toThrowError(/^Error in fusedMoe: w2.scales must/);
        expect(() => tf.fusedMoe(x, w1, w2, logits, 3)).toThrowError(/^Error in fusedMoe: topk must/);
        tf.dispose([x, logits, out, gradient]);
      }
      tf.dispose([w1, w2] as tf.TensorContainer);
    };
    await run();
    const [before, bytesBefore] = [tf.memory(), await numBytesInGPU()];
    await run();
    const after = tf.memory();
    expect([after.numTensors, after.numDataBuffers, after.numBytes]).toEqual([before.numTensors, before.numDataBuffers, before.numBytes]);
    expect(await numBytesInGPU()).toBe(bytesBefore);
  });
});
