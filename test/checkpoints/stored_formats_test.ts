/** Quantized checkpoint files as they are published: nothing changes a value. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {moeCheckpoint, type MoeCheckpointOptions, type MoeModelConfig} from '../../src/checkpoints/index';
import * as tf from '../../src/tf';
import golden from '../golden/quantized_experts.json';
import {numberOf, packed, scaleOf} from '../naive/quantized_weights';
import {expectFloats} from '../support/expect';
import {bytesOf, floatsOf} from '../support/quantized_files';
import {lcg} from '../support/routings';
import type {WrittenTensor} from '../support/safetensors';
import {
  blobOf, plain, raw, storedConfig, type StoredLinear, type StoredSizes, storedTensors, valuesOfPlain,
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

const load = (tensors: WrittenTensor[], config: MoeModelConfig, options: Partial<MoeCheckpointOptions> = {}) =>
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

/** Formats that are stored in different ways, for backends other than cpu. */
const ON_ALL_BACKENDS = ['FP8 in blocks of 128 x 128', 'gptq'];

describeWithFlags('quantized checkpoint files', ALL_ENVS, () => {
  for (const given of cases) {
    it(given.name, async () => {
      if (tf.getBackend() === 'cpu' || ON_ALL_BACKENDS.includes(given.name)) {
        await expectRead(given);
      }
    });
  }
});
