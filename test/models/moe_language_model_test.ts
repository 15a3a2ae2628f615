/** Models of config.json: training, files, padding, and configs that are refused. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {modelGoldens} from 'model-goldens';
import {generate, languageModelFiles, loadMoeLanguageModel, moeLanguageModel} from '../../src/models/index';
import * as tf from '../../src/tf';
import {expectWithin} from '../support/expect';
import {loadedModel, savedModel} from '../support/layers';

const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};

const small = {
  model_type: 'granitemoe',
  vocab_size: 12,
  hidden_size: 8,
  intermediate_size: 8,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  num_local_experts: 4,
  num_experts_per_tok: 2,
  hidden_act: 'silu',
  residual_multiplier: 0.5,
  embedding_multiplier: 2,
  logits_scaling: 2,
  tie_word_embeddings: true,
  initializer_range: 0.3,
};

const idTensor = (ids: number[][]): tf.Tensor2D => tf.tensor2d(ids, undefined, 'int32');
const predict = (model: tf.LayersModel, ids: number[][]) => model.predict(idTensor(ids)) as tf.Tensor3D;
const bytesOf = async (blob: Blob): Promise<Uint8Array> => new Uint8Array(await blob.arrayBuffer());

async function expectSame(model: tf.LayersModel, other: tf.LayersModel, ids: number[][], within = 1e-6): Promise<void> {
  await expectWithin(predict(model, ids), await predict(other, ids).array(), () => within, 'logits');
}

describeWithFlags('moeLanguageModel', ALL_ENVS, () => {
  it('learns: steps of fit lower the loss, and every weight has a gradient', async () => {
    const model = moeLanguageModel(small);
    const ids = idTensor([[1, 2, 3, 4, 5, 6], [3, 4, 5, 6, 7, 8]]);
    const next = tf.oneHot(idTensor([[2, 3, 4, 5, 6, 7], [4, 5, 6, 7, 8, 9]]), small.vocab_size, 1, 0, 'float32');
    const loss = (isNext: tf.Tensor, logits: tf.Tensor): tf.Scalar =>
      tf.tidy(() => tf.neg(tf.mean(tf.sum(tf.mul(isNext, tf.logSoftmax(logits)), -1))).asScalar());
    model.compile({optimizer: tf.train.adam(0.03), loss});
    const {grads} = tf.variableGrads(() => loss(next, model.apply(ids, {training: true}) as tf.Tensor));
    expect(Object.keys(grads).length).toBe(model.trainableWeights.length);
    const {history} = await model.fit(ids, next, {epochs: 5, verbose: 0});
    const losses = history.loss as number[];
    expect(losses[4]).toBeLessThan(0.8 * losses[0]);
  });
});

describeWithFlags('moeLanguageModel, on the host', cpu, () => {
  it('is saved and loaded as a model of tf.layers, and generates as before', async () => {
    for (const config of [small, modelGoldens.gpt_oss.config, modelGoldens.qwen2_moe.config]) {
      const model = moeLanguageModel(config, {padTokenId: 0, name: 'speaker'});
      expect(model.name).toBe('speaker');
      let saved: tf.io.ModelArtifacts | undefined;
      await model.save(tf.io.withSaveHandler(async (artifacts) => {
        saved = artifacts;
        return {modelArtifactsInfo: {dateSaved: new Date(), modelTopologyType: 'JSON'}};
      }));
      const loaded = await tf.loadLayersModel(tf.io.fromMemory(saved!));
      await expectSame(loaded, model, [[1, 2, 3], [0, 4, 5]]);
      const options = {maxNewTokens: 5};
      expect(await generate(loaded, [1, 2], options)).toEqual(await generate(model, [1, 2], options));
      const again = await loadMoeLanguageModel((await languageModelFiles(loaded, config))['model.safetensors'], config);
      await expectSame(again, model, [[1, 2, 3]]);
    }
  });

  it('does not see padding, before or after the tokens', async () => {
    const model = moeLanguageModel(small, {padTokenId: 0});
    const alone = predict(model, [[5, 6, 7]]);
    const before = tf.slice(predict(model, [[0, 0, 5, 6, 7]]), [0, 2, 0]);
    const after = tf.slice(predict(model, [[5, 6, 7, 0]]), [0, 0, 0], [1, 3, 12]);
    const wanted = await alone.array();
    await expectWithin(before, wanted, () => 1e-5, 'padding before');
    await expectWithin(after, wanted, () => 1e-5, 'padding after');
    expect((await tf.max(tf.abs(tf.sub(tf.slice(predict(model, [[1, 1, 5, 6, 7]]), [0, 2, 0]), alone))).data())[0])
      .toBeGreaterThan(1e-3);
  });

  it('reads the rotary embedding in the spelling of transformers 4 and 5', () => {
    const attentionOf = (config: object) => {
      const model = moeLanguageModel({...small, num_hidden_layers: 1, ...config});
      const {rotaryBase, rotaryScaling} = model.getLayer('layers_0_attention').getConfig();
      return {rotaryBase, rotaryScaling};
    };
    const yarn = {rope_type: 'yarn', factor: 4, original_max_position_embeddings: 64};
    const pairs: Array<[object, object]> = [
      [{rope_theta: 500}, {rope_parameters: {rope_theta: 500, rope_type: 'default'}}],
      [{rope_theta: 500, rope_scaling: {type: 'linear', factor: 2}}, {rope_parameters: {rope_theta: 500, rope_type: 'linear', factor: 2}}],
      [{rope_scaling: yarn}, {rope_parameters: yarn}],
      [{max_position_embeddings: 64, rope_scaling: {type: 'yarn', factor: 4}}, {rope_parameters: yarn}],
    ];
    for (const [old, recent] of pairs) {
      expect(attentionOf(old)).toEqual(attentionOf(recent));
    }
    expect(attentionOf({rope_scaling: {...yarn, mscale: 1, mscale_all_dim: 1}}).rotaryScaling)
      .toEqual(jasmine.objectContaining({attentionFactor: 1}));
    expect(attentionOf(pairs[1][0])).toEqual({rotaryBase: 500, rotaryScaling: {type: 'linear', factor: 2}});
  });

  it('reads sliding windows, heads and biases of each family', () => {
    const attentionArgs = (name: string, layer: number, config: object = {}) =>
      moeLanguageModel({...modelGoldens[name].config, ...config}).getLayer(`layers_${layer}_attention`).getConfig();
    expect(attentionArgs('gpt_oss', 0)).toEqual(jasmine.objectContaining({slidingWindow: 128, useSinks: true, useOutputBias: true}));
    expect(attentionArgs('gpt_oss', 1).slidingWindow).toBeNull();
    expect(attentionArgs('mixtral', 0, {sliding_window: 5}).slidingWindow).toBe(5);
    expect(attentionArgs('qwen3_moe_raw', 0, {sliding_window: 5}).slidingWindow).toBeNull();
    expect(attentionArgs('qwen3_moe_raw', 0, {sliding_window: 5, use_sliding_window: true}).slidingWindow).toBe(5);
    expect(attentionArgs('qwen2_moe', 0)).toEqual(jasmine.objectContaining({useBias: true, useOutputBias: false}));
    expect(attentionArgs('olmoe', 0).queryKeyNormalization).toBe('all');
    expect(attentionArgs('mixtral', 0, {num_key_value_heads: null}).numKeyValueHeads).toBe(4);
    expect(attentionArgs('granitemoe', 0).scale).toBe(0.25);
  });

  it('refuses configs that it cannot do, before any tensor is made', () => {
    const {numTensors} = tf.memory();
    const refused: Array<[object, RegExp]> = [
      [{model_type: 'dbrx'}, /config\.model_type must be one of gpt_oss, .*, but is the string 'dbrx'/],
      [{vocab_size: undefined}, /config\.vocab_size must be an integer from 1/],
      [{num_hidden_layers: 0}, /config\.num_hidden_layers must be an integer from 1/],
      [{num_attention_heads: 3}, /config\.num_attention_heads must be a multiple of num_key_value_heads \(2\), but is 3/],
      [{head_dim: 3}, /config must have heads of an even size .*but has 3/],
      [{rope_scaling: {type: 'dynamic', factor: 2}}, /config\.rope_scaling\.type must be 'default' or 'linear' or 'llama3' or 'yarn'/],
      [{rope_scaling: {type: 'yarn', original_max_position_embeddings: 8}}, /config\.rope_scaling\.factor must be a positive number/],
      [{partial_rotary_factor: 0.5}, /config\.partial_rotary_factor must be 1, but is 0\.5/],
      [{logits_scaling: 0}, /config\.logits_scaling must be a positive number/],
      [{...modelGoldens.olmoe.config, clip_qkv: 8}, /config\.clip_qkv must be null, because these ops have no clipping/],
      [{...modelGoldens.gpt_oss.config, layer_types: ['linear_attention', 'full_attention']}, /config\.layer_types must be a list of 2 values/],
      [{...modelGoldens.qwen2_moe.config, mlp_only_layers: [0, 1, 2]}, /config must have experts in at least one of 3 layers/],
    ];
    for (const [config, message] of refused) {
      expect(() => moeLanguageModel({...small, ...config})).withContext(JSON.stringify(config)).toThrowError(message);
    }
    expect(() => moeLanguageModel(small, {padTokenId: 12})).toThrowError(/padTokenId must be less than config\.vocab_size \(12\)/);
    expect(tf.memory().numTensors).toBe(numTensors);
  });
});

describeWithFlags('loadMoeLanguageModel', cpu, () => {
  it('reads files in slices, reports progress, and stores experts in the format asked for', async () => {
    const {config, file} = modelGoldens.mixtral;
    const fractions: number[] = [];
    const blob = new Blob([file as Uint8Array<ArrayBuffer>]);
    const floats = await loadMoeLanguageModel(blob, config, {onProgress: (fraction) => fractions.push(fraction)});
    expect(fractions).toEqual([...fractions].sort((a, b) => a - b));
    expect(fractions[fractions.length - 1]).toBeCloseTo(1, 6);
    for (const format of ['int8', 'bfloat16'] as const) {
      const model = await loadMoeLanguageModel(file, config, {format});
      expect(model.getLayer('layers_1_experts').getConfig().expertFormat).toBe(format);
      await expectSame(model, floats, [[1, 2, 3]], 0.05);
    }
  });

  it('names tensors that are missing, and leaves no tensor after that or an abort', async () => {
    const {config, file} = modelGoldens.olmoe;
    const tensors = await tf.readSafetensors(file);
    tensors.delete('model.layers.1.self_attn.q_norm.weight');
    const controller = new AbortController();
    const {numTensors} = tf.memory();
    await expectAsync(loadMoeLanguageModel(tensors, config)).toBeRejectedWithError(/model\.layers\.1\.self_attn\.q_norm\.weight/);
    const onProgress = (fraction: number) => fraction > 0.5 && controller.abort();
    await expectAsync(loadMoeLanguageModel(file, config, {signal: controller.signal, onProgress: (f) => void onProgress(f)}))
      .toBeRejectedWithError(/aborted/);
    await expectAsync(loadMoeLanguageModel(new Map([['blk.0.x', tensors.get('lm_head.weight')!]]), config))
      .toBeRejectedWithError(/must be safetensors files/);
    expect(tf.memory().numTensors).toBe(numTensors);
  });
});

describeWithFlags('models in codes', cpu, () => {
  const formats = {int4: {denseGroupSize: 16, useDenseOffsets: true}, int8: {denseScaleFormat: 'float16'}, float8: {}, bfloat16: {}} as const;
  const configOf = (model: tf.LayersModel, name: string) => model.getLayer(name).getConfig();

  it('compute, generate and write files as models of the floats that their codes stand for', async () => {
    const cases = [['mixtral', 'int8'], ['gpt_oss', 'int4'], ['qwen2_moe', 'float8'], ['granitemoeshared', 'bfloat16']] as const;
    for (const [name, denseFormat] of cases) {
      const {config, file} = modelGoldens[name];
      const model = await loadMoeLanguageModel(file, config, {format: 'int8', denseFormat, ...formats[denseFormat]});
      expect(configOf(model, 'layers_0_attention').projectionFormat).toBe(denseFormat);
      expect(['embedding', 'head'].map((layer) => configOf(model, layer).embeddingsFormat)).toEqual([denseFormat, denseFormat]);
      const files = await languageModelFiles(model, config);
      const floats = await loadMoeLanguageModel(await bytesOf(files['model.safetensors']), config);
      const ids = [[5, 9, 30, 2], [1, 2, 3, 4]];
      const wanted = (await predict(floats, ids).data()) as Float32Array;
      const largest = wanted.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
      await expectWithin(predict(model, ids), wanted, () => 1e-5 * largest, name);
      expect(await generate(model, ids, {maxNewTokens: 6})).toEqual(await generate(floats, ids, {maxNewTokens: 6}));
      const loaded = await loadedModel(await savedModel(model));
      await expectSame(loaded, model, ids, 0);
      expect(await languageModelFiles(loaded, config).then(({'model.safetensors': blob}) => bytesOf(blob))).toEqual(await bytesOf(files['model.safetensors']));
    }
  });

  it('have the codes of moeQuantizeWeights, and one weight for a tied head', async () => {
    const {'model.safetensors': blob} = await languageModelFiles(moeLanguageModel(small), small);
    const file = await bytesOf(blob);
    const {numTensors} = tf.memory();
    (await loadMoeLanguageModel(file, small, {denseFormat: 'int4', useDenseOffsets: true})).dispose();
    expect(tf.memory().numTensors).toBe(numTensors);
    const floats = await loadMoeLanguageModel(file, small);
    const model = await loadMoeLanguageModel(file, small, {denseFormat: 'int8'});
    const [embeddings] = floats.getLayer('embedding').getWeights();
    const {codes, scales} = tf.moeQuantizeWeights(tf.expandDims(embeddings), {format: 'int8'});
    const given = model.getLayer('embedding').getWeights();
    expect(given.map(({shape}) => shape)).toEqual([[1, 12, 2], [1, 12, 1]]);
    expect(await given[0].data()).toEqual(await codes.data());
    expect(await given[1].data()).toEqual(await scales!.data());
    expect(model.layers.some(({name}) => name === 'head')).toBeFalse();
    const kernels = floats.getLayer('layers_1_attention').getWeights().slice(0, 3);
    const stacked = tf.moeQuantizeWeights(tf.expandDims(tf.transpose(tf.concat(kernels, 1))), {format: 'int8'});
    expect(await model.getLayer('layers_1_attention').getWeights()[0].data()).toEqual(await stacked.codes.data());
  });

  it('refuse formats that do not fit, before any tensor is made', async () => {
    const {config, file} = modelGoldens.mixtral;
    const {numTensors} = tf.memory();
    const odd = {...small, hidden_size: 12, num_attention_heads: 2, num_key_value_heads: 1};
    const cases: Array<[Parameters<typeof moeLanguageModel>[1], string, typeof odd?]> = [
      [{denseFormat: 'int3' as 'int4'}, "denseFormat must be one of float32, int4, int8, fp4, float8, float16, bfloat16, but is 'int3'."],
      [{denseGroupSize: 32}, "denseGroupSize must not be given for denseFormat 'float32', which has no scales."],
      [{denseFormat: 'int8', denseScaleFormat: 'e8m0'}, "denseScaleFormat must not be 'e8m0' for int8, whose scales and offsets have a sign."],
      [{denseFormat: 'int4'}, 'config.hidden_size must be a multiple of 8 for int4, whole words, but is 12.', odd],
    ];
    for (const [options, message, other] of cases) {
      expect(() => moeLanguageModel(other ?? config, options)).toThrowError(`Error in moeLanguageModel: ${message}`);
      await expectAsync(loadMoeLanguageModel(file, other ?? config, options as object))
        .toBeRejectedWithError(`Error in loadMoeLanguageModel: ${message}`);
    }
    expect(tf.memory().numTensors).toBe(numTensors);
  });
});

describeWithFlags('languageModelFiles', cpu, () => {
  it('writes the files that were read, byte for byte', async () => {
    for (const name of ['olmoe', 'granitemoeshared', 'gpt_oss', 'qwen2_moe']) {
      const {config, file} = modelGoldens[name];
      const model = await loadMoeLanguageModel(file, config);
      const files = await languageModelFiles(model, config);
      const [written, read] = await Promise.all([
        tf.readSafetensors(await bytesOf(files['model.safetensors'])),
        tf.readSafetensors(file),
      ]);
      expect([...written.keys()].sort()).toEqual([...read.keys()].sort());
      for (const [tensorName, tensor] of written) {
        expect(tensor).withContext(tensorName).toEqual(read.get(tensorName)!);
      }
      expect(JSON.parse(await files['config.json'].text())).toEqual(config);
      model.dispose();
    }
  });

  it('writes shards, and refuses a config of another model', async () => {
    const model = moeLanguageModel(small);
    const files = await languageModelFiles(model, small, {dtype: 'F16', maxShardBytes: 2000});
    expect(Object.keys(files)).toContain('model.safetensors.index.json');
    expect(JSON.parse(await files['config.json'].text()).dtype).toBe('float16');
    const other = {...small, residual_multiplier: 1, tie_word_embeddings: false, rope_theta: 5};
    await expectAsync(languageModelFiles(model, other)).toBeRejectedWithError(/tie_word_embeddings.*\n.*rotaryBase of layer 0.*\n.*factor of residuals/);
  });
});
