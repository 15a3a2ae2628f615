/** Quantized checkpoint files as they are published: nothing changes a value. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {
  loadMoeCheckpoint, moeCheckpoint, type MoeCheckpointOptions, moeLayerConfig, type MoeModelConfig,
} from '../../src/checkpoints/index';
import * as tf from '../../src/tf';
import golden from '../golden/quantized_experts.json';
import {numberOf, packed, scaleOf} from '../naive/quantized_weights';
import {expectFloats} from '../support/expect';
import {bytesOf, floatsOf} from '../support/quantized_files';
import {lcg} from '../support/routings';
import {safetensorsFile, type WrittenBytes, type WrittenTensor} from '../support/safetensors';
import {
  blobOf, experts, plain, raw, type RawTensor, storedConfig, type StoredLinear, type StoredSizes, storedTensors, valuesOfPlain,
} from '../support/stored_experts';

/** A matrix [rows, columns] in a format, and what it stands for. */
type Case = {
  name: string;
  rows: number;
  columns: number;
  linear: StoredLinear;
  values: ArrayLike<number>;
  quantization: {[key: string]: unknown};
  /** Of the result. */
  expected: Partial<tf.QuantizedWeights>;
};

const next = lcg(41);
const integers = (length: number, bound: number) => Array.from({length}, () => Math.floor(bound * next()));
/** Codes of positive scales of about 2^-7 to 2^-3. */
const halves = (length: number) => Uint16Array.from({length}, () => 0x2000 + Math.floor(0x1000 * next()));
const bfloats = (length: number) => Uint16Array.from({length}, () => 0x3c00 + Math.floor(0x200 * next()));
const floats = (length: number) => Float32Array.from({length}, () => 0.01 + next() / 8);
const valuesOf = (codes: Uint16Array, format: 'float16' | 'bfloat16') => Array.from(codes, scaleOf[format]);
/** float32 at every step, as torch computes. */
const dequantized = (rows: number, columns: number, valueOf: (row: number, column: number) => number) =>
  Float32Array.from({length: rows * columns}, (_, i) => valueOf(Math.floor(i / columns), i % columns));

const [ROWS, COLUMNS] = [16, 64];
const bytesOfCodes = (codes: number[]) => Uint8Array.from(codes);
const nibblesOf = (codes: number[]) => new Uint8Array(packed(codes, 4).buffer);
const compressed = (weights: {[key: string]: unknown}) => ({
  quant_method: 'compressed-tensors', format: 'some', config_groups: {group_0: {targets: ['Linear'], weights}}, ignore: ['lm_head'],
});

function packQuantized(bits: 4 | 8, hasZeros: boolean): Case {
  const groupSize = 32;
  const codes = integers(ROWS * COLUMNS, 2 ** bits);
  const scales = halves(ROWS * 2);
  const zeros = integers(ROWS * 2, 2 ** bits);
  /** Rows of one group in a word, from its lowest bits. */
  const perWord = 32 / bits;
  const zeroWords = new Int32Array((ROWS / perWord) * 2);
  zeros.forEach((zero, i) => {
    const [row, group] = [i >> 1, i & 1];
    zeroWords[Math.floor(row / perWord) * 2 + group] |= zero << (bits * (row % perWord));
  });
  const scale = valuesOf(scales, 'float16');
  return {
    name: `compressed-tensors int${bits}${hasZeros ? ', zero points' : ''}`,
    rows: ROWS, columns: COLUMNS,
    linear: {
      '.weight_packed': raw('I32', [ROWS, (COLUMNS * bits) / 32], packed(codes, bits)),
      '.weight_scale': raw('F16', [ROWS, 2], scales),
      '.weight_shape': raw('I64', [2], new BigInt64Array([BigInt(ROWS), BigInt(COLUMNS)])),
      ...(hasZeros && {'.weight_zero_point': raw('I32', [ROWS / perWord, 2], zeroWords)}),
      ...(hasZeros && {'.weight_g_idx': raw('I32', [COLUMNS], Int32Array.from({length: COLUMNS}, (_, i) => i >> 5))}),
    },
    values: dequantized(ROWS, COLUMNS, (r, c) => {
      const group = 2 * r + (c >> 5);
      return (codes[r * COLUMNS + c] - (hasZeros ? zeros[group] : 2 ** (bits - 1))) * scale[group];
    }),
    quantization: compressed({num_bits: bits, type: 'int', symmetric: !hasZeros, strategy: 'group', group_size: groupSize}),
    expected: {format: `int${bits}`, groupSize, scaleFormat: hasZeros ? 'float32' : 'float16'},
  };
}

function intQuantized(): Case {
  const codes = Int8Array.from(integers(ROWS * COLUMNS, 256), (code) => code - 128);
  const scales = floats(ROWS);
  return {
    name: 'compressed-tensors int8, a scale for each row',
    rows: ROWS, columns: COLUMNS,
    linear: {'.weight': raw('I8', [ROWS, COLUMNS], codes), '.weight_scale': raw('F32', [ROWS, 1], scales)},
    values: dequantized(ROWS, COLUMNS, (r, c) => codes[r * COLUMNS + c] * scales[r]),
    quantization: compressed({num_bits: 8, type: 'int', symmetric: true, strategy: 'channel'}),
    expected: {format: 'int8', groupSize: COLUMNS, scaleFormat: 'float32', zeroPoint: 128},
  };
}

/** E4M3 without NaN. */
const float8Codes = (length: number) => integers(length, 256).map((code) => (code % 128 === 127 ? code - 1 : code));

function floatQuantized(strategy: 'tensor' | 'channel' | 'block'): Case {
  const codes = float8Codes(ROWS * COLUMNS);
  const shape = {tensor: [1], channel: [ROWS, 1], block: [2, 4]}[strategy];
  const scales = bfloats(tf.util.sizeFromShape(shape));
  const scale = valuesOf(scales, 'bfloat16');
  const scaleAt = {tensor: () => 0, channel: (r: number) => r, block: (r: number, c: number) => 4 * (r >> 3) + (c >> 4)}[strategy];
  return {
    name: `compressed-tensors float8, ${strategy}`,
    rows: ROWS, columns: COLUMNS,
    linear: {'.weight': raw('F8_E4M3', [ROWS, COLUMNS], bytesOfCodes(codes)), '.weight_scale': raw('BF16', shape, scales)},
    values: dequantized(ROWS, COLUMNS, (r, c) => numberOf.float8(codes[r * COLUMNS + c]) * scale[scaleAt(r, c)]),
    quantization: compressed({num_bits: 8, type: 'float', strategy, ...(strategy === 'block' && {block_structure: [8, 16]})}),
    expected: {format: 'float8', groupSize: strategy === 'block' ? 16 : COLUMNS, scaleFormat: 'bfloat16'},
  };
}

function fp4Quantized(format: 'mxfp4' | 'nvfp4'): Case {
  const codes = integers(ROWS * COLUMNS, 16);
  const groupSize = format === 'mxfp4' ? 32 : 16;
  const numScales = (ROWS * COLUMNS) / groupSize;
  const scales = format === 'mxfp4' ? integers(numScales, 8).map((code) => 120 + code) : integers(numScales, 100).map((code) => 10 + code);
  const globalScale = Math.fround(37.3);
  const scaleAt = (i: number) =>
    format === 'mxfp4' ? scaleOf.e8m0(scales[i]) : Math.fround(numberOf.float8(scales[i]) / globalScale);
  const shape = [ROWS, COLUMNS / groupSize];
  return {
    name: `compressed-tensors ${format}`,
    rows: ROWS, columns: COLUMNS,
    linear: {
      '.weight_packed': raw('U8', [ROWS, COLUMNS / 2], nibblesOf(codes)),
      '.weight_scale': raw(format === 'mxfp4' ? 'U8' : 'F8_E4M3', shape, bytesOfCodes(scales)),
      ...(format === 'nvfp4' && {'.weight_global_scale': raw('F32', [1], Float32Array.of(globalScale))}),
    },
    values: dequantized(ROWS, COLUMNS, (r, c) => {
      const i = r * COLUMNS + c;
      return numberOf.fp4(codes[i]) * scaleAt(Math.floor(i / groupSize));
    }),
    quantization: compressed({num_bits: 4, type: 'float', strategy: 'tensor_group', group_size: groupSize}),
    expected: {format: 'fp4', groupSize, scaleFormat: format === 'mxfp4' ? 'e8m0' : 'float32'},
  };
}

/** The golden rows in a matrix whose other rows are 0. */
function deepseekFp8(): Case {
  const {rows: chosen, weight, scaleInv, values, numIn, block} = golden.fp8;
  const [rows, columns] = [256, numIn];
  const codes = new Uint8Array(rows * columns);
  const wanted = new Float32Array(rows * columns);
  chosen.forEach((row, i) => {
    codes.set(bytesOf(weight).subarray(i * columns, (i + 1) * columns), row * columns);
    wanted.set(floatsOf(values).subarray(i * columns, (i + 1) * columns), row * columns);
  });
  return {
    name: 'FP8 in blocks of 128 x 128',
    rows, columns,
    linear: {'.weight': raw('F8_E4M3', [rows, columns], codes), '.weight_scale_inv': raw('F32', [2, 1], floatsOf(scaleInv))},
    values: wanted,
    quantization: {quant_method: 'fp8', fmt: 'e4m3', weight_block_size: block},
    expected: {format: 'float8', groupSize: 128, scaleFormat: 'float32'},
  };
}

/** Values [inputs, outputs] by rows of outputs. */
const byOutput = (values: Float32Array, numIn: number, numOut: number) =>
  dequantized(numOut, numIn, (output, input) => values[input * numOut + output]);

/** The scales of the golden values have no more bits than a float16. */
const asHalves = (values: Float32Array) => Uint16Array.from(values, (value) => {
  const code = Array.from({length: 0x8000}, (_, each) => each).find((each) => scaleOf.float16(each) === value);
  if (code == null) {
    throw new Error(`${value} is no float16.`);
  }
  return code;
});

function inputGroups(name: 'gptq' | 'awq', quantization: {[key: string]: unknown}): Case {
  const {qweight, qzeros, scales, group, shape: [columns, rows], values} = golden.gptqAwq.cases.find((each) => each.case === name)!;
  return {
    name: `${name}${quantization['checkpoint_format'] === 'gptq_v2' ? ', version 2' : ''}`,
    rows, columns,
    linear: {
      '.qweight': raw('I32', name === 'gptq' ? [columns / 8, rows] : [columns, rows / 8], bytesOf(qweight)),
      '.qzeros': raw('I32', [columns / group, rows / 8], bytesOf(qzeros)),
      '.scales': raw('F16', [columns / group, rows], asHalves(floatsOf(scales))),
      ...(name === 'gptq' && {'.g_idx': raw('I32', [columns], Int32Array.from({length: columns}, (_, i) => Math.floor(i / group)))}),
    },
    values: byOutput(floatsOf(values), columns, rows),
    quantization: {quant_method: name, bits: 4, group_size: group, ...quantization},
    expected: {format: 'int4', groupSize: group, scaleFormat: 'float32'},
  };
}

/** GPTQ by its description: symmetric, so that every zero is half of the codes. */
function symmetricGptq(bits: 4 | 8, version: 'gptq' | 'gptq_v2'): Case {
  const codes = integers(ROWS * COLUMNS, 2 ** bits);
  const scales = halves(2 * ROWS);
  const scale = valuesOf(scales, 'float16');
  /** [inputs/perWord, outputs], of codes [outputs, inputs]. */
  const perWord = 32 / bits;
  const words = packed(codes, bits);
  const wordsInRow = COLUMNS / perWord;
  const qweight = Int32Array.from(words, (_, i) => words[(i % ROWS) * wordsInRow + Math.floor(i / ROWS)]);
  const zero = 2 ** (bits - 1) - (version === 'gptq' ? 1 : 0);
  return {
    name: `gptq of ${bits} bits, symmetric, ${version}`,
    rows: ROWS, columns: COLUMNS,
    linear: {
      '.qweight': raw('I32', [COLUMNS / perWord, ROWS], qweight),
      '.qzeros': raw('I32', [2, ROWS / perWord], packed(new Uint8Array(2 * ROWS).fill(zero), bits)),
      '.scales': raw('F16', [2, ROWS], scales),
    },
    values: dequantized(ROWS, COLUMNS, (r, c) => (codes[r * COLUMNS + c] - 2 ** (bits - 1)) * scale[(c >> 5) * ROWS + r]),
    quantization: {quant_method: 'gptq', bits, group_size: 32, sym: true, desc_act: false, checkpoint_format: version},
    expected: {format: `int${bits}`, groupSize: 32, scaleFormat: 'float16', zeroPoint: 2 ** (bits - 1)},
  };
}

const cases: Case[] = [
  deepseekFp8(),
  packQuantized(4, false),
  packQuantized(4, true),
  packQuantized(8, false),
  packQuantized(8, true),
  intQuantized(),
  floatQuantized('tensor'),
  floatQuantized('channel'),
  floatQuantized('block'),
  fp4Quantized('mxfp4'),
  fp4Quantized('nvfp4'),
  inputGroups('gptq', {sym: false, desc_act: false}),
  inputGroups('awq', {version: 'gemm', zero_point: true}),
  symmetricGptq(4, 'gptq'),
  symmetricGptq(4, 'gptq_v2'),
  symmetricGptq(8, 'gptq'),
];

/** Two experts, whose gates are the case's matrix in the first and ups in the second; the rest is in F32. */
function block({rows, columns, linear}: Pick<Case, 'rows' | 'columns' | 'linear'>) {
  const sizes: StoredSizes = {hiddenSize: columns, intermediateSize: rows};
  const down = plain(columns, rows, 7);
  return {sizes, down, tensors: storedTensors([{gate: linear, up: linear, down}], sizes)};
}

const load = (tensors: Array<WrittenTensor | WrittenBytes>, config: MoeModelConfig, options: Partial<MoeCheckpointOptions> = {}) =>
  moeCheckpoint(blobOf(tensors), config, {layerIndex: 0, ...options});

const twice = (values: ArrayLike<number>) => Float32Array.from([...Array.from(values), ...Array.from(values)]);

/** As they are stored, in float32, and the encoding. */
async function expectRead(given: Case): Promise<void> {
  const {sizes, down, tensors} = block(given);
  const config = storedConfig(1, sizes, given.quantization);
  const {w1, w2} = await load(tensors, config);
  const {shape, ...fields} = w1 as tf.QuantizedWeights;
  expect(shape).toEqual([1, 2 * given.rows, given.columns]);
  expect(fields).toEqual(jasmine.objectContaining(given.expected));
  await expectFloats(tf.moeDequantizeWeights(w1 as tf.QuantizedWeights), twice(given.values), 'as stored');
  await expectFloats(w2 as tf.Tensor, valuesOfPlain(down), 'w2');
  const {w1: decoded} = await load(tensors, config, {format: 'float32'});
  await expectFloats(decoded as tf.Tensor, twice(given.values), 'float32');
}

const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};
/** Rows that are read apart, and whole matrices; scales in floats, and in words. */
const onGpus = ['FP8 in blocks of 128 x 128', 'compressed-tensors mxfp4', 'gptq'];

const expectAllRead = (chosen: Case[]) => chosen.forEach((given) => it(given.name, () => expectRead(given)));

describeWithFlags('quantized checkpoint files, on the host', cpu, () => {
  expectAllRead(cases.filter(({name}) => !onGpus.includes(name)));
});

describeWithFlags('quantized checkpoint files', ALL_ENVS, () => {
  expectAllRead(cases.filter(({name}) => onGpus.includes(name)));
});

const caseOf = (name: string) => cases.find((each) => each.name === name)!;

describeWithFlags('quantized checkpoint files on the way in', cpu, () => {
  /** MXFP4 of two experts, in which gates and ups alternate; w2 is in BF16. */
  function gptOss() {
    const {blocks, scales, shape: [E, rows, H], values} = golden.mxfp4.cases.find((each) => each.case === 'random')!;
    const [I, path] = [rows / 2, 'model.layers.0.mlp'];
    const zeros = (...shape: number[]) => ({shape, values: Array<number>(tf.util.sizeFromShape(shape)).fill(0), dtype: 'BF16' as const});
    const tensors: Array<WrittenTensor | WrittenBytes> = [
      {name: `${path}.experts.gate_up_proj_blocks`, ...raw('U8', [E, rows, H / 32, 16], bytesOf(blocks))},
      {name: `${path}.experts.gate_up_proj_scales`, ...raw('U8', [E, rows, H / 32], bytesOf(scales))},
      {name: `${path}.experts.gate_up_proj_bias`, ...zeros(E, rows)},
      {name: `${path}.experts.down_proj`, ...zeros(E, I, H)},
      {name: `${path}.experts.down_proj_bias`, ...zeros(E, H)},
      {name: `${path}.router.weight`, ...zeros(E, H)},
      {name: `${path}.router.bias`, ...zeros(E)},
    ];
    const config = {
      model_type: 'gpt_oss', hidden_size: H, intermediate_size: I, num_local_experts: E, num_experts_per_tok: 1,
      quantization_config: {quant_method: 'mxfp4', modules_to_not_convert: ['model.layers.*.mlp.router']},
    };
    const byRow = floatsOf(values);
    const rowOf = (e: number, row: number) => Array.from(byRow.subarray((e * rows + row) * H, (e * rows + row + 1) * H));
    const range = (length: number) => Array.from({length}, (_, i) => i);
    const wanted = range(E).map((e) => [...range(I).map((i) => rowOf(e, 2 * i)), ...range(I).map((i) => rowOf(e, 2 * i + 1))]);
    return {tensors, config, wanted};
  }

  it('experts of a layer that has their format, as they are', async () => {
    const ofLayers = cases.filter(({expected}) => expected.groupSize! % 16 === 0);
    expect(ofLayers.length).toBeGreaterThan(5);
    for (const given of ofLayers) {
      const {sizes, tensors} = block(given);
      const config = storedConfig(1, sizes, given.quantization);
      const w1 = (await load(tensors, config)).w1 as tf.QuantizedWeights;
      const layer = tf.layers.mixtureOfExperts({
        ...moeLayerConfig(config), expertFormat: w1.format, expertGroupSize: w1.groupSize, expertScaleFormat: w1.scaleFormat,
        expertZeroPoint: w1.zeroPoint, useExpertOffsets: w1.offsets != null,
      });
      layer.build([null, sizes.hiddenSize]);
      await loadMoeCheckpoint(layer, blobOf(tensors), config, {layerIndex: 0});
      const weights = layer.getWeights();
      for (const part of ['codes', 'scales', 'offsets'] as const) {
        const place = layer.weights.findIndex(({originalName}) => originalName.endsWith(`w1_${part}`));
        const actual = place < 0 ? undefined : [...await weights[place].data()];
        expect(actual).withContext(`${given.name}: ${part}`).toEqual(w1[part] && [...await w1[part].data()]);
      }
    }
  });

  it('MXFP4 of gpt-oss, in one part and in two', async () => {
    const {tensors, config, wanted} = gptOss();
    const {w1} = await load(tensors, config);
    await expectFloats(tf.moeDequantizeWeights(w1 as tf.QuantizedWeights), wanted, 'as stored');
    expect(w1).toEqual(jasmine.objectContaining({format: 'fp4', scaleFormat: 'e8m0', groupSize: 32}));
    const {w1: parts} = await load(tensors, config, {expertsPerTensor: 1});
    const decoded = (parts as tf.QuantizedWeights[]).map((part) => tf.moeDequantizeWeights(part));
    await expectFloats(tf.concat(decoded), wanted, 'parts');
  });

  it('FP8 of stacked experts', async () => {
    const [E, I, H] = [2, 16, 32];
    const codes = float8Codes(E * 2 * I * H);
    const scales = bfloats(E * 4 * 2);
    const scale = valuesOf(scales, 'bfloat16');
    const tensors: Array<WrittenTensor | WrittenBytes> = [
      {name: 'model.layers.0.mlp.gate.weight', ...plain(E, H)['.weight']},
      {name: `${experts}.gate_up_proj`, ...raw('F8_E4M3', [E, 2 * I, H], bytesOfCodes(codes))},
      {name: `${experts}.gate_up_proj_scale_inv`, ...raw('BF16', [E, 4, 2], scales)},
      {name: `${experts}.down_proj`, ...raw('F32', [E, H, I], new Float32Array(E * H * I))},
    ];
    const config = storedConfig(E, {hiddenSize: H, intermediateSize: I}, {quant_method: 'fp8', weight_block_size: [8, 16]});
    const {w1} = await load(tensors, config);
    expect((w1 as tf.QuantizedWeights).scaleFormat).toBe('bfloat16');
    const wanted = dequantized(E * 2 * I, H, (r, c) => numberOf.float8(codes[r * H + c]) * scale[2 * (r >> 3) + (c >> 4)]);
    await expectFloats(tf.moeDequantizeWeights(w1 as tf.QuantizedWeights), wanted, 'w1');
  });

  it('quantizes BF16 like moeQuantizeWeights', async () => {
    const [I, H] = [16, 32];
    const sizes = {hiddenSize: H, intermediateSize: I};
    const linear = (rows: number, columns: number, seed: number) => {
      const {'.weight': {bytes, shape}} = plain(rows, columns, seed);
      const upper = new Uint16Array(bytes.slice().buffer).filter((_, i) => i % 2 === 1);
      return {'.weight': raw('BF16', shape, upper)};
    };
    const given = {gate: linear(I, H, 2), up: linear(I, H, 3), down: linear(H, I, 4)};
    const {w1} = await load(storedTensors([given], sizes), storedConfig(1, sizes), {format: 'int4', groupSize: 16});
    const values = [plain(I, H, 2), plain(I, H, 3)].flatMap((each) => Array.from(valuesOfPlain(each)));
    const wanted = tf.moeQuantizeWeights(tf.tensor3d(values, [1, 2 * I, H]), {format: 'int4', groupSize: 16});
    const {codes, scales, ...fields} = w1 as tf.QuantizedWeights;
    expect([...await codes.data()]).toEqual([...await wanted.codes.data()]);
    expect([...await scales!.data()]).toEqual([...await wanted.scales!.data()]);
    expect(fields).toEqual(jasmine.objectContaining({format: 'int4', groupSize: 16}));
  });

  it('takes rows in several pieces as in one', async () => {
    const {rows, columns, linear, values, quantization} = caseOf('compressed-tensors float8, block');
    const tall = 2 ** 18;
    const {bytes, shape} = linear['.weight'];
    const repeated = new Uint8Array(bytes.length * (tall / rows));
    const scales = linear['.weight_scale'];
    const repeatedScales = new Uint8Array(scales.bytes.length * (tall / rows));
    for (let i = 0; i < tall / rows; i++) {
      repeated.set(bytes, i * bytes.length);
      repeatedScales.set(scales.bytes, i * scales.bytes.length);
    }
    const down = {'.weight': raw('F32', [columns, tall], new Float32Array(columns * tall))};
    const stored = {
      '.weight': raw('F8_E4M3', [tall, shape[1]], repeated),
      '.weight_scale': raw('BF16', [tall / 8, 4], repeatedScales),
    };
    const sizes = {hiddenSize: columns, intermediateSize: tall};
    const tensors = new Map(storedTensors([{gate: stored, up: stored, down}], sizes).map(({name, ...tensor}) => [name, tensor as RawTensor]));
    const {w1} = await moeCheckpoint(tensors, storedConfig(1, sizes, quantization), {layerIndex: 0, format: 'float32'});
    const all = await w1.data();
    const wrong = all.findIndex((value, i) => value !== values[i % values.length]);
    expect(wrong).toBe(-1);
  });
});

describeWithFlags('quantized checkpoint files that are wrong', cpu, () => {
  const OPTIONAL = ['.weight_shape', '.weight_g_idx', '.weight_zero_point', '.g_idx'];
  /** Another dtype of as many bits. */
  const others: Record<string, string> = {I32: 'U32', U8: 'BOOL', F16: 'I16', BF16: 'I16', F32: 'I32', I8: 'BOOL', F8_E4M3: 'F8_E5M2', I64: 'U64'};

  const changed = (given: Case, suffix: string, tensor: RawTensor | undefined): Case => {
    const {[suffix]: _, ...rest} = given.linear;
    return {...given, linear: {...rest, ...(tensor != null && {[suffix]: tensor})}};
  };
  const rejects = (given: Case, message: RegExp) => {
    const {sizes, tensors} = block(given);
    return expectAsync(load(tensors, storedConfig(1, sizes, given.quantization))).toBeRejectedWithError(message);
  };

  for (const given of cases) {
    it(`${given.name}: a tensor that is missing, of another dtype, or of another shape`, async () => {
      for (const [suffix, tensor] of Object.entries(given.linear)) {
        const {dtype, shape, bytes} = tensor;
        const ofProjection = 'Error in moeCheckpoint: the checkpoint must have[^]*experts.0.gate_proj.';
        if (!OPTIONAL.includes(suffix)) {
          await rejects(changed(given, suffix, undefined), new RegExp(`${ofProjection}.*there is none`));
        }
        const retyped = changed(given, suffix, {dtype: others[dtype], shape, bytes});
        await rejects(retyped, new RegExp(`${ofProjection}.*expected .*but is ${others[dtype]}`));
        const reshaped = changed(given, suffix, {dtype, shape: [...shape, 1], bytes});
        await rejects(reshaped, new RegExp(`${ofProjection}.*expected \\[.*but is \\[${shape},1\\]`));
      }
    });
  }

  it('a file that is cut off', async () => {
    for (const given of [...cases, deepseekFp8()]) {
      const {sizes, tensors} = block(given);
      const file = safetensorsFile(tensors);
      const cut = new Blob([file.slice(0, file.length - 1) as Uint8Array<ArrayBuffer>]);
      const read = moeCheckpoint(cut, storedConfig(1, sizes, given.quantization), {layerIndex: 0});
      await expectAsync(read).toBeRejectedWithError(/must have \d+ bytes of data, where its last tensor ends/);
    }
  });

  it('act-order', async () => {
    const shuffled = (suffix: string, name: string) => {
      const groups = Int32Array.from({length: 64}, (_, i) => i % 2);
      return changed(caseOf(name), suffix, raw('I32', [64], groups));
    };
    const message = /experts.0.gate_proj.(?:weight_)?g_idx must have the group floor\(1 \/ 32\) for input 1, but has 1. Files with act-order/;
    await rejects(shuffled('.g_idx', 'gptq'), message);
    await rejects(shuffled('.weight_g_idx', 'compressed-tensors int4'), message);
    const given = caseOf('gptq of 4 bits, symmetric, gptq');
    await rejects({...given, quantization: {...given.quantization, desc_act: true}}, /g_idx: expected \[64\], but there is none/);
    expect(tf.memory().numTensors).toBe(0);
  });

  it('zeros that are not as config.json says', async () => {
    const given = caseOf('gptq');
    const isSymmetric = {...given, quantization: {...given.quantization, sym: true}};
    await rejects(isSymmetric, /gate_proj.qzeros must have zeros of 8, as config.quantization_config.sym is true, but has \d+/);
  });

  it('values of config.json that cannot be', async () => {
    const refuses = (name: string, quantization: {[key: string]: unknown}, message: RegExp) => {
      const given = caseOf(name);
      return rejects({...given, quantization: {...given.quantization, ...quantization}}, message);
    };
    await refuses('gptq', {bits: 3}, /config.quantization_config.bits must be 4 or 8, but is 3/);
    await refuses('gptq', {group_size: 0}, /config.quantization_config.group_size must be a positive integer or -1, but is 0/);
    await refuses('gptq', {group_size: undefined}, /group_size must be a positive integer or -1, but is undefined/);
    await refuses('gptq', {checkpoint_format: 'marlin'}, /checkpoint_format must be gptq or gptq_v2, but is the string 'marlin'/);
    await refuses('awq', {version: 'gemv'}, /config.quantization_config.version must be gemm or GEMM, but is the string 'gemv'/);
    await refuses('FP8 in blocks of 128 x 128', {weight_block_size: [128]}, /weight_block_size must be two positive integers/);
    await refuses('FP8 in blocks of 128 x 128', {weight_block_size: [128, 8]}, /gate_proj.weight: expected scales of a multiple of 16 inputs, or of all 128, but they are of 8/);
    await refuses('compressed-tensors int4', {config_groups: [null, {weights: 'none'}]}, /weight_scale: expected \[1\] or \[\] or \[16,1\], but is \[16,2\]/);
  });

  it('a shape that lies', async () => {
    const message = /gate_proj.weight_shape must have 16 and 64, but has 16 and 63/;
    for (const shape of [raw('I64', [2], new BigInt64Array([16n, 63n])), raw('I32', [2], Int32Array.of(16, 63))]) {
      await rejects(changed(caseOf('compressed-tensors int4'), '.weight_shape', shape), message);
    }
  });

  it('rows that end within a word', async () => {
    const linear = {
      '.weight_packed': raw('U8', [1, 6], new Uint8Array(6)),
      '.weight_scale': raw('U8', [1, 1], new Uint8Array(1)),
    };
    const given = {...caseOf('compressed-tensors mxfp4'), rows: 1, columns: 12, linear};
    await rejects(given, /weight_packed: expected a multiple of 8 inputs, which fill whole words, but has 12/);
  });

  it('a method that is not known', async () => {
    const given = {...caseOf('gptq'), quantization: {quant_method: 'bitsandbytes'}};
    await rejects(given, /quant_method is the string 'bitsandbytes'. Files of mxfp4, fp8, compressed-tensors, gptq, awq can be read/);
    await rejects({...given, quantization: []} as never, /quant_method is undefined/);
  });

  it('experts whose formats differ, unless another is asked for', async () => {
    const given = caseOf('compressed-tensors int8');
    const {sizes, tensors} = block(given);
    const up = plain(given.rows, given.columns);
    const mixed = tensors.filter(({name}) => !name.includes('up_proj'));
    mixed.push({name: `${experts}.0.up_proj.weight`, ...up['.weight']});
    const config = storedConfig(1, sizes, given.quantization);
    await expectAsync(load(mixed, config)).toBeRejectedWithError(/w1 is stored in two formats \(int8_32_float16_128 and float32/);
    const {w1} = await load(mixed, config, {format: 'float32'});
    await expectFloats(w1 as tf.Tensor, [...Array.from(given.values), ...valuesOfPlain(up)], 'float32');
  });
});
