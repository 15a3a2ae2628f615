/** Blocks that are written as files: read again they are the same, to the byte where the dtype is kept. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {checkpointGoldens} from 'checkpoint-goldens';
import {
  type CheckpointTensor,
  type CheckpointTensors,
  loadMoeCheckpoint,
  type MoeCheckpoint,
  moeCheckpoint,
  moeCheckpointFiles,
  moeLayerConfig,
  readSafetensors,
  writeSafetensors,
} from '../../src/checkpoints/index';
import type {MixtureOfExperts} from '../../src/layers/index';
import * as tf from '../../src/tf';
import {expectFloats} from '../support/expect';

const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};
/** The blocks that are read: not those whose configs are refused, nor the quantized one. */
const written = Object.keys(checkpointGoldens).filter((name) => !['gemma4_text', 'laguna', 'gpt_oss_mxfp4'].includes(name));

const bytesOf = async ({bytes}: CheckpointTensor): Promise<Uint8Array> =>
  ArrayBuffer.isView(bytes) ? bytes : new Uint8Array(await bytes.slice(0, bytes.size).arrayBuffer());

async function expectSameTensors(given: CheckpointTensors, wanted: CheckpointTensors, what: string): Promise<void> {
  expect([...given.keys()].sort()).withContext(what).toEqual([...wanted.keys()].sort());
  for (const [name, tensor] of wanted) {
    const {dtype, shape} = given.get(name)!;
    expect({dtype, shape}).withContext(`${what}: ${name}`).toEqual({dtype: tensor.dtype, shape: tensor.shape});
    const [actual, expected] = await Promise.all([bytesOf(given.get(name)!), bytesOf(tensor)]);
    const numWrong = expected.reduce((count, byte, i) => count + (actual[i] === byte ? 0 : 1), Math.abs(actual.length - expected.length));
    expect(numWrong).withContext(`${what}: wrong bytes of ${name}`).toBe(0);
  }
}

async function builtLayer(name: string): Promise<MixtureOfExperts> {
  const {config, file, recorded} = checkpointGoldens[name];
  const layer = tf.layers.mixtureOfExperts(moeLayerConfig(config));
  layer.build([null, recorded!.input[0].length]);
  await loadMoeCheckpoint(layer, file!, config, {layerIndex: recorded!.layerIndex});
  return layer;
}

async function expectRoundTrip(name: string): Promise<void> {
  const {config, file, recorded} = checkpointGoldens[name];
  const {layerIndex} = recorded!;
  const base = await readSafetensors(file!);
  const block = await moeCheckpoint(base, config, {layerIndex});
  const layer = await builtLayer(name);
  const before = tf.memory().numTensors;
  for (const [given, what] of [[block, 'moeCheckpoint'], [layer, 'the layer']] as const) {
    const files = await moeCheckpointFiles({[layerIndex]: given}, config, {base});
    expect(Object.keys(files)).toEqual(['config.json', 'model.safetensors']);
    const {quantization_config: _, ...kept} = config;
    expect(JSON.parse(await files['config.json'].text())).toEqual(kept);
    await expectSameTensors(await readSafetensors(files['model.safetensors']), base, `${name}, ${what}`);
  }
  expect(tf.memory().numTensors).toBe(before);
}

describeWithFlags('moeCheckpointFiles, on the host', cpu, () => {
  for (const name of written) {
    it(`writes the block of ${name} as it was read`, () => expectRoundTrip(name));
  }

  it('writes rounded values that are read as they are', async () => {
    const {config, file, recorded} = checkpointGoldens['qwen2_moe'];
    const {layerIndex} = recorded!;
    const block = await moeCheckpoint(file!, config, {layerIndex, format: 'float32'});
    for (const [dtype, format, name] of [['BF16', 'bfloat16', 'bfloat16'], ['F16', 'float16', 'float16']] as const) {
      const files = await moeCheckpointFiles({[layerIndex]: block}, {...config, dtype: 'float32'}, {dtype});
      expect((JSON.parse(await files['config.json'].text()) as {dtype: string}).dtype).toBe(name);
      const again = await moeCheckpoint(files['model.safetensors'], config, {layerIndex, format: 'float32'});
      const rounded = tf.moeDequantizeWeights(tf.moeQuantizeWeights(block.w1, {format}));
      await expectFloats(again.w1, await rounded.data() as Float32Array, dtype);
    }
    const old = await moeCheckpointFiles({[layerIndex]: block}, {...config, dtype: undefined, torch_dtype: 'float32'}, {dtype: 'F16'});
    expect((JSON.parse(await old['config.json'].text()) as {torch_dtype: string}).torch_dtype).toBe('float16');
    const {dtype: _, ...text} = config;
    const multimodal = {model_type: 'some', torch_dtype: 'float32', text_config: {...text, torch_dtype: 'float32', quantization_config: {quant_method: 'fp8'}}};
    const nested = await moeCheckpointFiles({[layerIndex]: block}, multimodal, {dtype: 'F16'});
    expect(JSON.parse(await nested['config.json'].text())).toEqual(
      {model_type: 'some', torch_dtype: 'float16', text_config: {...text, torch_dtype: 'float16'}});
  });

  it('writes quantized experts decoded, in place of their codes', async () => {
    const {config, file, recorded} = checkpointGoldens['gpt_oss_mxfp4'];
    const {layerIndex} = recorded!;
    const base = await readSafetensors(file!);
    const block = await moeCheckpoint(base, config, {layerIndex});
    await expectAsync(moeCheckpointFiles({[layerIndex]: block}, config, {base})).toBeRejectedWithError(
      /^Error in moeCheckpointFiles: dtype must be given, because base has no tensor .*gate_up_proj\.$/);
    const files = await moeCheckpointFiles({[layerIndex]: block}, config, {base, dtype: 'BF16'});
    const written = await readSafetensors(files['model.safetensors']);
    expect([...written.keys()].filter((name) => /_blocks|_scales/.test(name))).toEqual([]);
    const again = await moeCheckpoint(written, JSON.parse(await files['config.json'].text()) as object as typeof config, {layerIndex, format: 'float32'});
    for (const name of ['w1', 'w2'] as const) {
      const expected = tf.moeDequantizeWeights(block[name] as tf.QuantizedWeights);
      await expectFloats(again[name], await expected.data() as Float32Array, name);
    }
  });

  it('writes floats of config.json as floats, as transformers wants them', async () => {
    const {config, file, recorded} = checkpointGoldens['mixtral'];
    const block = await moeCheckpoint(file!, config, {layerIndex: recorded!.layerIndex});
    const files = await moeCheckpointFiles({1: block}, {...config, router_jitter_noise: 0, nested: {rms_norm_eps: 1}});
    const text = await files['config.json'].text();
    expect(text).toContain('"router_jitter_noise": 0.0,');
    expect(text).toContain('"rms_norm_eps": 1.0\n');
    expect(text).toContain('"num_experts_per_tok": 2,');
    expect(JSON.parse(text)).toEqual({...config, router_jitter_noise: 0, nested: {rms_norm_eps: 1}});
  });

  it('copies the rest of a checkpoint, in shards with an index', async () => {
    const {config, file, recorded} = checkpointGoldens['mixtral'];
    const {layerIndex} = recorded!;
    const rest: CheckpointTensor = {dtype: 'I64', shape: [3], bytes: Uint8Array.from({length: 24}, (_, i) => i)};
    const tensors = new Map([...await readSafetensors(file!), ['model.embed_tokens.ids', rest], ['__proto__', rest]]);
    // As a Blob, of which the writer copies parts without reading them.
    const base = await readSafetensors(await writeSafetensors(tensors));
    const block = await moeCheckpoint(base, config, {layerIndex});
    const files = await moeCheckpointFiles({[layerIndex]: block}, config, {base, maxShardBytes: 30_000});
    const shards = Object.keys(files).filter((fileName) => fileName.endsWith('.safetensors'));
    expect(shards.length).toBeGreaterThan(2);
    expect(shards[0]).toBe(`model-00001-of-0000${shards.length}.safetensors`);
    const index = JSON.parse(await files['model.safetensors.index.json'].text()) as
      {metadata: {total_size: number}; weight_map: {[name: string]: string}};
    let total = 0;
    const entries = Object.entries(index.weight_map);
    for (const shard of shards) {
      const inShard = await readSafetensors(files[shard]);
      expect(entries.filter(([, fileName]) => fileName === shard).map(([name]) => name).sort()).toEqual([...inShard.keys()].sort());
      inShard.forEach(({bytes}) => {
        total += ArrayBuffer.isView(bytes) ? bytes.byteLength : bytes.size;
      });
      expect(files[shard].size).toBeLessThan(32_000);
    }
    expect(index.metadata.total_size).toBe(total);
    await expectSameTensors(await readSafetensors(shards.map((shard) => files[shard])), base, 'shards');
  });

  it('reads what a Blob of a subclass downloads, and the file of a server', async () => {
    const {config, file, recorded} = checkpointGoldens['mixtral'];
    const {layerIndex} = recorded!;
    const whole = new Blob([file! as BlobPart]);
    /** As in @huggingface/hub: nothing is in the Blob itself. */
    class DownloadedBlob extends Blob {
      constructor(private readonly begin: number, private readonly end: number) {
        super([]);
      }
      override get size() {
        return this.end - this.begin;
      }
      override slice(start = 0, end = this.size) {
        return new DownloadedBlob(this.begin + start, this.begin + end);
      }
      override arrayBuffer() {
        return whole.slice(this.begin, this.end).arrayBuffer();
      }
    }
    const remote = {size: whole.size, slice: (start: number, end: number) => ({arrayBuffer: () => whole.slice(start, end).arrayBuffer()})};
    const wanted = await readSafetensors(file!);
    for (const source of [new DownloadedBlob(0, whole.size), remote]) {
      const base = await readSafetensors(source);
      const block = await moeCheckpoint(base, config, {layerIndex});
      const files = await moeCheckpointFiles({[layerIndex]: block}, config, {base});
      await expectSameTensors(await readSafetensors(await files['model.safetensors'].arrayBuffer()), wanted, 'the block');
      const copied = await writeSafetensors(base);
      await expectSameTensors(await readSafetensors(await copied.arrayBuffer()), wanted, 'the copy');
    }
  });

  it('says what does not fit, before anything is read', async () => {
    const {config, file, recorded} = checkpointGoldens['mixtral'];
    const {layerIndex} = recorded!;
    const block = await moeCheckpoint(file!, config, {layerIndex});
    const write = (blocks: object, options?: object, of = config) =>
      moeCheckpointFiles(blocks as {[layerIndex: number]: MoeCheckpoint}, of, options);
    const errors: Array<[Promise<unknown>, string | RegExp]> = [
      [write({}), 'blocks must have a block for at least one number of a layer, but is the object {}.'],
      [write({first: block}), /^Error in moeCheckpointFiles: blocks must have a block for at least one number of a layer, but is the object \{first: /],
      [write({1: {}}), 'blocks[1] must be a MixtureOfExperts layer or a result of moeCheckpoint, but is the object {}.'],
      [write({1: null}), 'layer must be a MixtureOfExperts layer, but is null.'],
      [write({1: block}, {dtype: 'F64'}), "dtype must be one of F32, F16, BF16, but is 'F64'."],
      [write({1: block}, {maxShardBytes: 0}), 'maxShardBytes must be a positive integer, but is 0.'],
      [write({1: {...block, topk: 3, options: {...block.options, w1Bias: tf.zeros([2, 2])}}}),
        'blocks[1] must have the weights and arguments that config asks for, as moeLayerConfig gives them, but 2 do not fit:\n' +
        'w1_bias: expected none, but is [2,2]\ntopk: expected 2, but is 3'],
      [write({1: block}, {base: new Map([...await readSafetensors(file!), ['model.layers.0.q_proj.qweight', {dtype: 'I32', shape: [0], bytes: new Uint8Array()}]])}),
        'base must have no quantized tensors but those of the blocks, but has model.layers.0.q_proj.qweight.'],
      [write({1: block}, {base: new Map()}), /the checkpoint must have the tensors of a mixtral block/],
    ];
    for (const [promise, message] of errors) {
      await expectAsync(promise).toBeRejectedWithError(typeof message === 'string' ? `Error in moeCheckpointFiles: ${message}` : message);
    }
    await expectAsync(write({1: block}, {signal: AbortSignal.abort(new Error('no'))})).toBeRejectedWithError('no');
    const wrong: CheckpointTensor = {dtype: 'F32', shape: [2], bytes: new Uint8Array(4)};
    await expectAsync(writeSafetensors(new Map([['a', wrong]]))).toBeRejectedWithError(
      "Error in writeSafetensors: tensors['a'] must be 8 bytes as F32 [2], but is 4 bytes.");
    await expectAsync(writeSafetensors(new Map([['__metadata__', {...wrong, shape: [1]}]]))).toBeRejectedWithError(
      "Error in writeSafetensors: tensors['__metadata__'] must be named otherwise, but is the string '__metadata__'.");
  });

  it('refuses a correction of scores that the family lacks, unless it is 0', async () => {
    const config = {model_type: 'olmoe', hidden_size: 2, intermediate_size: 1, num_experts: 4, num_experts_per_tok: 2, hidden_act: 'silu'};
    const layer = tf.layers.mixtureOfExperts({...moeLayerConfig(config), useScoreCorrectionBias: true});
    layer.build([null, 2]);
    expect(Object.keys(await moeCheckpointFiles({0: layer}, config)).length).toBe(2);
    layer.setWeights(layer.getWeights().map((weight) => tf.onesLike(weight)));
    await expectAsync(moeCheckpointFiles({0: layer}, config)).toBeRejectedWithError(
      'Error in moeCheckpointFiles: score_correction_bias must be 0, because files of this family have none.');
  });

  it('refuses tensors of GGUF files', async () => {
    const {config, file, recorded} = checkpointGoldens['mixtral'];
    const {layerIndex} = recorded!;
    const block = await moeCheckpoint(file!, config, {layerIndex});
    const codes: CheckpointTensor = {dtype: 'Q4_0', shape: [1, 32], bytes: new Uint8Array(18)};
    const base = new Map([['blk.0.attn_q.weight', codes]]);
    await expectAsync(moeCheckpointFiles({[layerIndex]: block}, config, {base, dtype: 'F32'})).toBeRejectedWithError(
      'Error in moeCheckpointFiles: base must have the tensors of safetensors files, but has those of a GGUF file.');
    await expectAsync(writeSafetensors(new Map([['a', codes]]))).toBeRejectedWithError(
      "Error in writeSafetensors: tensors['a'] must have a dtype of safetensors files, but has Q4_0.");
  });

  it('refuses values that the files of a family cannot hold', async () => {
    const {config, recorded} = checkpointGoldens['jetmoe'];
    const layer = await builtLayer('jetmoe');
    const place = layer.weights.findIndex(({originalName}) => originalName.endsWith('w2_bias'));
    layer.setWeights(layer.getWeights().map((weight, w) => (w === place ? tf.add(weight, tf.range(0, weight.shape[0]!).reshape([-1, 1])) : weight)));
    await expectAsync(moeCheckpointFiles({[recorded!.layerIndex]: layer}, config)).toBeRejectedWithError(
      /^Error in moeCheckpointFiles: w2_bias must have the same values for each expert, because files of this family have one /);
  });
});

describeWithFlags('moeCheckpointFiles', ALL_ENVS, () => {
  it('writes a layer of this backend, and a quantized one decoded', async () => {
    const config = {
      model_type: 'qwen2_moe', hidden_size: 8, moe_intermediate_size: 16, num_experts: 4, num_experts_per_tok: 2, hidden_act: 'silu',
      norm_topk_prob: true, shared_expert_intermediate_size: 8,
    };
    const layer = tf.layers.mixtureOfExperts({
      ...moeLayerConfig(config), kernelInitializer: 'glorotNormal', routerInitializer: 'glorotNormal', inputShape: [8],
    });
    tf.sequential({layers: [layer]});
    const small = tf.quantizeMixtureOfExperts(layer, {format: 'int4'});
    const files = await moeCheckpointFiles({0: layer, 7: small}, config);
    const x = tf.randomNormal([3, 8]) as tf.Tensor2D;
    for (const [layerIndex, given] of [[0, layer], [7, small]] as const) {
      const again = tf.layers.mixtureOfExperts({...moeLayerConfig(config), inputShape: [8]});
      tf.sequential({layers: [again]});
      await loadMoeCheckpoint(again, files['model.safetensors'], config, {layerIndex});
      const wanted = given.apply(x) as tf.Tensor;
      const actual = again.apply(x) as tf.Tensor;
      expect((await tf.max(tf.abs(tf.sub(actual, wanted))).data())[0]).toBeLessThan(1e-5);
    }
  });
});
