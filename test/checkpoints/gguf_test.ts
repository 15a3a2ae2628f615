/** GGUF files: headers by @huggingface/gguf, blocks of ggml, and names that all families share. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {checkpointGoldens} from 'checkpoint-goldens';
import {type MoeCheckpoint, moeCheckpoint, type MoeCheckpointOptions, type MoeModelConfig, readGguf} from '../../src/checkpoints/index';
import * as tf from '../../src/tf';
import golden from '../golden/quantized_experts.json';
import {scaleOf} from '../naive/quantized_weights';
import {expectFloats} from '../support/expect';
import {ggufFile, type GgufTensor, headerOf} from '../support/gguf';
import {bytesOf, floatsOf} from '../support/quantized_files';
import {lcg} from '../support/routings';

const types: Record<string, number> = {F32: 0, F16: 1, Q4_0: 2, Q4_1: 3, Q8_0: 8, Q4_K: 12, Q6_K: 14, BF16: 30, MXFP4: 39};

const next = lcg(15);
const numbers = (length: number) => Float32Array.from({length}, () => Math.floor(17 * next() - 8) / 8);
const float32 = (name: string, shape: number[], values = numbers(tf.util.sizeFromShape(shape))): GgufTensor & {values: Float32Array} => ({
  name: `blk.3.${name}`, shape, type: types.F32, bytes: new Uint8Array(values.buffer), values,
});

type Golden = {type: string; shape: number[]; bytes: Uint8Array; values: Float32Array};

/** Q4_1 by its description, which the golden values lack. */
function q4_1(): Golden {
  const blocks = Array.from({length: 32}, () => ({
    d: 0x2400 + Math.floor(0x400 * next()),
    m: 0x8000 + 0x2800 + Math.floor(0x400 * next()),
    bytes: Array.from({length: 16}, () => Math.floor(256 * next())),
  }));
  const values = blocks.flatMap(({d, m, bytes}) =>
    [...bytes.map((byte) => byte & 15), ...bytes.map((byte) => byte >> 4)].map((code) => Math.fround(scaleOf.float16(d) * code + scaleOf.float16(m))));
  const bytes = blocks.flatMap(({d, m, bytes: codes}) => [d & 255, d >> 8, m & 255, m >> 8, ...codes]);
  return {type: 'Q4_1', shape: [2, 512], bytes: Uint8Array.from(bytes), values: Float32Array.from(values)};
}

const goldens: Golden[] = [
  ...golden.gguf.cases.map(({type, shape, data, values}) => ({type, shape, bytes: bytesOf(data), values: floatsOf(values)})),
  q4_1(),
];
const goldenOf = (type: string) => goldens.find((each) => each.type === type)!;

/** The second half, then the first. */
const swapped = <Values extends Uint8Array | Float32Array>(values: Values): Values => {
  const half = values.length / 2;
  const result = values.slice() as Values;
  result.set(values.subarray(half));
  result.set(values.subarray(0, half), half);
  return result;
};

/** [2, 512] as a tensor of this shape. */
const stored = ({type, bytes}: Golden, name: string, shape: number[]): GgufTensor => ({name: `blk.3.${name}`, shape, type: types[type], bytes});

const config = {
  model_type: 'qwen3_moe', hidden_size: 512, moe_intermediate_size: 1, num_experts: 2, num_experts_per_tok: 1, norm_topk_prob: true,
  hidden_act: 'silu',
};
const down = float32('ffn_down_exps.weight', [2, 512, 1]);
const router = float32('ffn_gate_inp.weight', [2, 512]);

async function load(tensors: GgufTensor[], modelConfig: MoeModelConfig, options: Partial<MoeCheckpointOptions> = {}) {
  const file = ggufFile([{...float32('', [4]), name: 'token_embd.weight'}, ...tensors]);
  return moeCheckpoint(readGguf(new Blob([file]), await headerOf(file)), modelConfig, {layerIndex: 3, ...options});
}

/** Gates and ups of two experts of one row each: the golden rows, and the same in the other order. */
const gateAndUp = (given: Golden) => [
  stored(given, 'ffn_gate_exps.weight', [2, 1, 512]),
  stored({...given, bytes: swapped(given.bytes)}, 'ffn_up_exps.weight', [2, 1, 512]),
];
/** Expert by expert: a gate and an up. */
const gatesAndUps = ({values}: Golden) => Float32Array.from([...values, ...swapped(values)]);

async function expectRead(given: Golden): Promise<void> {
  const tensors = [router, ...gateAndUp(given), down];
  const {routerKernel, w1, w2} = await load(tensors, config);
  await expectFloats(tf.transpose(routerKernel), router.values, 'routerKernel');
  await expectFloats(w2 as tf.Tensor, down.values, 'w2');
  const [a, b] = [given.values.subarray(0, 512), given.values.subarray(512)];
  const wanted = Float32Array.from([...a, ...b, ...b, ...a]);
  expect((w1 as tf.QuantizedWeights).shape).toEqual([2, 2, 512]);
  await expectFloats(tf.moeDequantizeWeights(w1 as tf.QuantizedWeights), wanted, 'as stored');
  const {w1: decoded} = await load(tensors, config, {format: 'float32', expertsPerTensor: 1});
  await expectFloats(tf.concat(decoded as tf.Tensor3D[]), wanted, 'float32');
}

const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};
const ON_GPUS = 'Q4_K';

describeWithFlags('GGUF files, on the host', cpu, () => {
  for (const given of goldens.filter(({type}) => type !== ON_GPUS)) {
    it(given.type, () => expectRead(given));
  }
});

describeWithFlags('GGUF files', ALL_ENVS, () => {
  it(ON_GPUS, () => expectRead(goldenOf(ON_GPUS)));
});

describeWithFlags('GGUF files of families', cpu, () => {
  it('w2 in blocks, gates and ups in one tensor, and in shards', async () => {
    const given = goldenOf('Q6_K');
    const sizes = {...config, hidden_size: 2, moe_intermediate_size: 512, num_experts: 1};
    const both = float32('ffn_gate_up_exps.weight', [1, 1024, 2]);
    const files = [
      ggufFile([float32('ffn_gate_inp.weight', [1, 2]), both]),
      ggufFile([stored(given, 'ffn_down_exps.weight', [1, 2, 512])]),
    ];
    const tensors = readGguf(files.map((file) => new Blob([file])), await Promise.all(files.map(headerOf)));
    const {w1, w2} = await moeCheckpoint(tensors, sizes, {layerIndex: 3});
    await expectFloats(w1 as tf.Tensor, both.values, 'w1');
    expect((w2 as tf.QuantizedWeights).format).toBe('int8');
    await expectFloats(tf.moeDequantizeWeights(w2 as tf.QuantizedWeights), given.values, 'w2');
    expect(() => readGguf([new Blob([])], [])).toThrowError(/headers must have one for each of 1 files, but has 0/);
  });

  it('gpt-oss: gates and ups apart, with biases', async () => {
    const given = goldenOf('MXFP4');
    const gptOss = {...config, model_type: 'gpt_oss', num_local_experts: 2, intermediate_size: 1};
    const bias = {
      router: float32('ffn_gate_inp.bias', [2]),
      gate: float32('ffn_gate_exps.bias', [2, 1]),
      up: float32('ffn_up_exps.bias', [2, 1]),
      down: float32('ffn_down_exps.bias', [2, 512]),
    };
    const {w1, routerBias, options} = await load([router, ...gateAndUp(given), down, ...Object.values(bias)], gptOss);
    const [[gate0, gate1], [up0, up1]] = [bias.gate.values, bias.up.values];
    await expectFloats(options.w1Bias!, [gate0, up0, gate1, up1], 'w1Bias');
    await expectFloats(options.w2Bias!, bias.down.values, 'w2Bias');
    await expectFloats(routerBias!, bias.router.values, 'routerBias');
    const {format, scaleFormat} = w1 as tf.QuantizedWeights;
    expect([format, scaleFormat, options.gateUp]).toEqual(['fp4', 'e8m0', 'concatenated']);
  });

  it('shared experts in blocks, their gate, and the bias of the choice', async () => {
    const given = goldenOf('Q8_0');
    const shared = [
      stored(given, 'ffn_gate_shexp.weight', [2, 512]),
      stored({...given, bytes: swapped(given.bytes)}, 'ffn_up_shexp.weight', [2, 512]),
      float32('ffn_down_shexp.weight', [512, 2]),
    ];
    const qwen2 = {...config, model_type: 'qwen2_moe', shared_expert_intermediate_size: 2};
    const gate = float32('ffn_gate_inp_shexp.weight', [512]);
    const {options: {sharedExperts}} = await load([router, ...gateAndUp(given), down, ...shared, gate], qwen2);
    await expectFloats(sharedExperts!.w1, gatesAndUps(given), 'shared w1');
    await expectFloats(sharedExperts!.gate!, gate.values, 'shared gate');

    const deepseek = {
      ...config, model_type: 'deepseek_v3', n_routed_experts: 2, n_shared_experts: 2, n_group: 1, topk_group: 1, topk_method: 'noaux_tc',
      scoring_func: 'sigmoid',
    };
    for (const name of ['exp_probs_b.bias', 'exp_probs_b']) {
      const correction = float32(name, [2]);
      const {options: {scoreCorrectionBias}} = await load([router, ...gateAndUp(given), down, ...shared, correction], deepseek);
      await expectFloats(scoreCorrectionBias!, correction.values, name);
    }
  });

  it('F16 and BF16', async () => {
    const one = new Uint8Array(1024).map((_, i) => [0, 0x3c][i % 2]);
    const two = new Uint8Array(1024).map((_, i) => [0, 0x40][i % 2]);
    const gate = {name: 'blk.3.ffn_gate_exps.weight', shape: [1, 1, 512], type: types.F16, bytes: one};
    const up = {name: 'blk.3.ffn_up_exps.weight', shape: [1, 1, 512], type: types.BF16, bytes: two};
    const tensors = [float32('ffn_gate_inp.weight', [1, 512]), gate, up, float32('ffn_down_exps.weight', [1, 512, 1])];
    const {w1} = await load(tensors, {...config, num_experts: 1}, {format: 'float32'});
    await expectFloats(w1 as tf.Tensor, [...Array(512).fill(1), ...Array(512).fill(2)], 'w1');
  });

  it('lists what is missing, of another shape, or of another type', async () => {
    const given = goldenOf('Q4_0');
    const wrong = [
      stored(given, 'ffn_gate_exps.weight', [1, 2, 512]),
      {name: 'blk.3.ffn_down_exps.weight', shape: [2, 512, 1], type: 26, bytes: down.bytes},
    ];
    const error = load([router, ...wrong], config);
    await expectAsync(error).toBeRejectedWithError(/ffn_gate_exps.weight: expected \[2,1,512\], but is \[1,2,512\]/);
    await expectAsync(error).toBeRejectedWithError(/ffn_up_exps.weight: expected \[2,1,512\], but there is none/);
    await expectAsync(error).toBeRejectedWithError(/ffn_down_exps.weight: expected F32 or F16 or BF16, but is I32/);
  });
});

/** The block as llama.cpp's converters store it: gates apart from ups, and axes of length 1 left out. */
async function convertedBlock({routerKernel, routerBias, w1, w2, options}: MoeCheckpoint<tf.Tensor3D>, isGated: boolean) {
  const {w1Bias, w2Bias, scoreCorrectionBias, sharedExperts} = options;
  const tensors: GgufTensor[] = [];
  const add = async (name: string, tensor: tf.Tensor | undefined) => {
    if (tensor != null) {
      tensors.push(float32(name, tensor.shape, Float32Array.from(await tensor.data())));
    }
  };
  const addParts = async (kind: string, part: string, rows: tf.Tensor | undefined, axis: number) => {
    const [gate, up] = rows == null ? [] : isGated ? tf.split(rows, 2, axis) : [undefined, rows];
    await add(`ffn_gate_${kind}.${part}`, gate);
    await add(`ffn_up_${kind}.${part}`, up);
  };
  await add('ffn_gate_inp.weight', tf.transpose(routerKernel));
  await add('ffn_gate_inp.bias', routerBias);
  await add('exp_probs_b.bias', scoreCorrectionBias);
  await addParts('exps', 'weight', w1, 1);
  await addParts('exps', 'bias', w1Bias, 1);
  await add('ffn_down_exps.weight', w2);
  await add('ffn_down_exps.bias', w2Bias);
  await addParts('shexp', 'weight', sharedExperts?.w1, 0);
  await add('ffn_down_shexp.weight', sharedExperts?.w2);
  await add('ffn_gate_inp_shexp.weight', sharedExperts?.gate && tf.reshape(sharedExperts.gate, [-1]));
  return tensors;
}

describeWithFlags('GGUF files of every family', cpu, () => {
  for (const [name, {config: ofFamily, file, recorded}] of Object.entries(checkpointGoldens)) {
    if (file != null && name !== 'laguna') {
      it(name, async () => {
        const block = await moeCheckpoint(file, ofFamily, {layerIndex: recorded!.layerIndex, format: 'float32'});
        const tensors = await convertedBlock(block, block.options.gated ?? true);
        const names = tensors.map((tensor) => ({...tensor, name: tensor.name.replace('blk.3.', `blk.${recorded!.layerIndex}.`)}));
        const again = await load(names, ofFamily, {layerIndex: recorded!.layerIndex, format: 'float32'});
        const all = (value: object): tf.Tensor[] =>
          Object.values(value).flatMap((each) => (each instanceof tf.Tensor ? [each] : typeof each === 'object' ? all(each as object) : []));
        const [given, wanted] = [all(again), all(block)];
        expect(given.map(({shape}) => shape)).toEqual(wanted.map(({shape}) => shape));
        for (const [i, tensor] of wanted.entries()) {
          await expectFloats(given[i], await tensor.data() as Float32Array, `tensor ${i}`);
        }
      });
    }
  }
});

/** Without backends. */
describe('readGguf', () => {
  const info = {name: 'blk.0.ffn_down.weight', shape: [32n, 2n], dtype: types.Q4_0, offset: 0n};
  const read = (changes: object, {size = 64 + 36, ...header}: {[name: string]: unknown} = {}) =>
    readGguf(new Uint8Array(size as number), {tensorDataOffset: 64n, tensorInfos: [{...info, ...changes}], ...header});

  it('gives types, shapes and bytes of a file', () => {
    const {dtype, shape, bytes} = read({}).get(info.name)!;
    expect([dtype, shape, (bytes as Uint8Array).length]).toEqual(['Q4_0', [2, 32], 36]);
    expect(read({name: '__proto__'}).get('__proto__')!.shape).toEqual([2, 32]);
    expect(read({shape: [], dtype: types.F32}).get(info.name)!.shape).toEqual([]);
  });

  it('takes tensors without bytes, where another begins too', () => {
    const empty = {...info, name: 'empty', shape: [32n, 0n]};
    const tensors = read({}, {tensorInfos: [info, empty]});
    expect([...tensors.values()].map(({bytes}) => (bytes as Uint8Array).length)).toEqual([0, 36]);
  });

  it('keeps tensors of unknown types, which nobody reads', () => {
    expect(read({dtype: 99}).get(info.name)!.dtype).toBe('GGML_99');
    expect(read({dtype: 99, shape: [2n ** 60n]}).get(info.name)!.dtype).toBe('GGML_99');
  });

  it('refuses headers that lie', () => {
    expect(() => read({}, {size: 64 + 35})).toThrowError(/must end within its 99 bytes, but takes 36 bytes from 64 on as Q4_0/);
    expect(() => read({offset: 64n})).toThrowError(/must begin within its 100 bytes, but begins at 128/);
    expect(() => read({offset: 2n ** 64n - 1n})).toThrowError(/must begin within its 100 bytes/);
    expect(() => read({offset: -1n})).toThrowError(/must begin within/);
    expect(() => read({}, {tensorDataOffset: -1n})).toThrowError(/must begin within/);
    expect(() => read({shape: [2n ** 60n, 2n ** 60n]})).toThrowError(/must end within its 100 bytes/);
    expect(() => read({shape: [33n, 2n]})).toThrowError(/rows of a multiple of 32 weights as Q4_0, but has rows of 33/);
    expect(() => read({shape: [32, 2]})).toThrowError(/must have a name, a shape of bigints, a dtype and an offset/);
    expect(() => read({shape: [-32n, 2n]})).toThrowError(/a shape of bigints/);
    expect(() => read({dtype: -1})).toThrowError(/a dtype/);
    expect(() => read({name: 5})).toThrowError(/a tensor of files\[0\] must have a name/);
    expect(() => read({}, {littleEndian: false})).toThrowError(/must be little-endian/);
    expect(() => readGguf(new Uint8Array(8), null as never)).toThrowError(/headers\[0\] must be what gguf\(\) of @huggingface\/gguf gives/);
    expect(() => read({}, {tensorInfos: [null]})).toThrowError(/a tensor of files\[0\] must have a name/);
  });

  it('refuses tensors that overlap, and names that come twice', () => {
    const second = {...info, name: 'blk.0.ffn_up.weight', offset: 32n};
    expect(() => read({}, {size: 200, tensorInfos: [second, info]})).toThrowError(
      /'blk.0.ffn_down.weight' of files\[0\] must end at byte 96, where tensor 'blk.0.ffn_up.weight' begins, but takes 36 bytes/,
    );
    const again = {...info, offset: 64n};
    expect(() => read({}, {size: 200, tensorInfos: [info, again]})).toThrowError(/'blk.0.ffn_down.weight' must be once in the files/);
  });
});
