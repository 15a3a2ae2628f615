/** Layers whose kernels are in codes, beside float32 layers that have the values of the codes. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import type {CausalSelfAttention, CausalSelfAttentionArgs} from '../../src/layers/index';
import * as tf from '../../src/tf';
import {expectWithin} from '../support/expect';
import {loadedModel, randomTensor, savedModel, weightsOf} from '../support/layers';
import {attentionPair, namedCodes, projectionArgs, type Quantization, setNamed} from '../support/quantized_projections';

const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};

const HIDDEN_SIZE = 24;
const VOCAB_SIZE = 11;
const heads = {numHeads: 4, numKeyValueHeads: 2, headDim: 4};
const everyPart: CausalSelfAttentionArgs = {...heads, useBias: true, useOutputBias: true, useSinks: true, queryKeyNormalization: 'head'};
const everyFormat: Record<string, Quantization> = {
  int4: {groupSize: 16},
  'int8 with offsets': {format: 'int8', groupSize: 16, symmetric: false, scaleFormat: 'float16'},
  int8: {format: 'int8', scaleFormat: 'float16'},
  fp4: {format: 'fp4', groupSize: 16},
  float8: {format: 'float8', groupSize: 1024},
  float16: {format: 'float16'},
  bfloat16: {format: 'bfloat16'},
};

/** Every format on the host. GPUs compile programs of tfjs for seconds a case, and their reading of codes has specs of its own. */
const formatsOn = (backendName: string) =>
  Object.entries(everyFormat).filter(([name]) => backendName === 'cpu' || ['int4', 'int8 with offsets'].includes(name));

/** Within 1e-5 of the largest. */
async function expectAlike(given: tf.Tensor, wanted: tf.Tensor, name: string): Promise<void> {
  const values = (await wanted.data()) as Float32Array;
  const largest = values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
  expect(largest).withContext(name).toBeGreaterThan(0);
  await expectWithin(given, values, () => 1e-5 * largest, name);
}

/** The outputs of a call, and of a step after three positions. */
function outputsOf(layer: CausalSelfAttention, x: tf.Tensor3D): tf.Tensor[] {
  const cache = layer.makeCache(x.shape[0], 4);
  const steps = [layer.attend(tf.slice(x, [0, 0, 0], [-1, 3, -1]), cache), layer.attend(tf.slice(x, [0, 3, 0], [-1, 1, -1]), cache)];
  cache.dispose();
  return [layer.apply(x) as tf.Tensor, ...steps];
}

describeWithFlags('causalSelfAttention with kernels in codes', ALL_ENVS, (env) => {
  for (const [name, options] of formatsOn(env.backendName)) {
    it(`computes with the values of its codes: ${name}`, async () => {
      for (const args of name === 'int8' ? [heads, everyPart] : [everyPart]) {
        const {quantized, standIn} = attentionPair({args, hiddenSize: HIDDEN_SIZE}, options);
        const x = randomTensor([2, 4, HIDDEN_SIZE], 5) as tf.Tensor3D;
        const wanted = outputsOf(standIn, x);
        for (const [i, output] of outputsOf(quantized, x).entries()) {
          await expectAlike(output, wanted[i], ['at once', 'prompt', 'step'][i]);
        }
      }
    });
  }

  it('has the gradients of float32 kernels, but none to codes', async () => {
    const {quantized, standIn} = attentionPair({args: everyPart, hiddenSize: HIDDEN_SIZE}, {groupSize: 16});
    const gradientsOf = (layer: CausalSelfAttention) => {
      const x = tf.variable(randomTensor([2, 4, HIDDEN_SIZE], 5));
      const loss = () => tf.sum(tf.mul(layer.apply(x) as tf.Tensor, randomTensor([2, 4, HIDDEN_SIZE], 77))) as tf.Scalar;
      const trained = layer.trainableWeights.map((weight) => [weight.originalName, weight.read() as tf.Variable] as const);
      const {grads} = tf.variableGrads(loss, [x, ...trained.map(([, variable]) => variable)]);
      return Object.fromEntries([['x', grads[x.name]], ...trained.map(([name, variable]) => [name, grads[variable.name]])]) as Record<string, tf.Tensor>;
    };
    const [given, wanted] = [gradientsOf(quantized), gradientsOf(standIn)];
    expect(Object.keys(given)).toEqual(['x', 'query_bias', 'query_norm', 'key_bias', 'key_norm', 'value_bias', 'output_bias', 'sinks']);
    for (const [name, gradient] of Object.entries(given)) {
      await expectAlike(gradient, wanted[name], name);
    }
  });
});

describeWithFlags('causalSelfAttention with kernels in codes, on the host', cpu, () => {
  it('has weights of these names and shapes, frozen and 0 until they are set', () => {
    const shapesOf = (args: Partial<CausalSelfAttentionArgs>, hiddenSize = HIDDEN_SIZE) => {
      const layer = tf.layers.causalSelfAttention({...heads, ...args});
      layer.build([null, null, hiddenSize]);
      const codes = layer.weights.filter(({originalName}) => !/_(bias|norm)$|sinks/.test(originalName));
      expect(layer.nonTrainableWeights).toEqual(codes);
      codes.forEach((weight) => expect(weight.read().dataSync().every((value) => value === 0)).toBeTrue());
      return Object.fromEntries(layer.weights.map(({originalName, shape, dtype}) => [originalName, `${dtype} ${String(shape)}`]));
    };
    expect(shapesOf({projectionFormat: 'int8', projectionGroupSize: 16, useBias: true})).toEqual({
      query_bias: 'float32 16', key_bias: 'float32 8', value_bias: 'float32 8',
      query_key_value_codes: 'int32 1,32,6', query_key_value_scales: 'float32 1,32,2',
      output_codes: 'int32 1,24,4', output_scales: 'float32 1,24,1',
    });
    expect(shapesOf({projectionFormat: 'int4', projectionScaleFormat: 'float16', useProjectionOffsets: true})).toEqual({
      query_key_value_codes: 'int32 1,32,3', query_key_value_scales: 'int32 16', query_key_value_offsets: 'int32 16',
      output_codes: 'int32 1,24,2', output_scales: 'int32 12', output_offsets: 'int32 12',
    });
    expect(shapesOf({projectionFormat: 'bfloat16'})).toEqual({query_key_value_codes: 'int32 1,32,12', output_codes: 'int32 1,24,8'});
  });

  it('is saved and loaded with its codes, trains its biases, and leaves no tensor', async () => {
    const options: Quantization = {format: 'int8', groupSize: 16, scaleFormat: 'float16'};
    const {quantized} = attentionPair({args: everyPart, hiddenSize: HIDDEN_SIZE}, options);
    const layer = tf.layers.causalSelfAttention({...everyPart, ...projectionArgs(options), inputShape: [null, HIDDEN_SIZE]});
    const model = tf.sequential({layers: [layer]});
    model.setWeights(quantized.getWeights());
    model.compile({optimizer: tf.train.sgd(0.1), loss: 'meanSquaredError'});
    const [x, target] = [randomTensor([2, 4, HIDDEN_SIZE], 5), tf.ones([2, 4, HIDDEN_SIZE])];
    const codesBefore = await weightsOf(layer).query_key_value_codes.data();
    const before = (await model.trainOnBatch(x, target)) as number;
    const {numTensors} = tf.memory();
    for (let step = 0; step < 3; step++) {
      await model.trainOnBatch(x, target);
    }
    expect(tf.memory().numTensors).toBe(numTensors);
    expect(await model.trainOnBatch(x, target)).toBeLessThan(before);
    expect(await weightsOf(layer).query_key_value_codes.data()).toEqual(codesBefore);
    const loaded = await loadedModel(await savedModel(model));
    expect(loaded.layers[0].getConfig()).toEqual(layer.getConfig());
    await expectWithin(loaded.predict(x) as tf.Tensor, await (model.predict(x) as tf.Tensor3D).array(), () => 0, 'loaded');
  });

  it('says which argument does not fit', () => {
    const messages: Array<[Partial<CausalSelfAttentionArgs>, string]> = [
      [{projectionFormat: 'int3' as 'int4'}, "projectionFormat must be one of float32, int4, int8, fp4, float8, float16, bfloat16, but is 'int3'."],
      [{projectionGroupSize: 32}, "projectionGroupSize must not be given for projectionFormat 'float32', which has no scales."],
      [{projectionFormat: 'float16', projectionScaleFormat: 'float16'}, "projectionScaleFormat must not be given for projectionFormat 'float16', which has no scales."],
      [{projectionFormat: 'int8', projectionGroupSize: 24}, 'projectionGroupSize must be a multiple of 16, but is 24.'],
      [{projectionFormat: 'int4', projectionZeroPoint: 16}, 'projectionZeroPoint must be an integer 0 to 15 for int4, but is 16.'],
      [{projectionFormat: 'int4', projectionZeroPoint: 8, useProjectionOffsets: true}, 'projectionZeroPoint must not be given with useProjectionOffsets, but is 8.'],
      [{projectionFormat: 'fp4', useProjectionOffsets: true}, "useProjectionOffsets must not be given for projectionFormat 'fp4', which has no offsets."],
    ];
    for (const [args, message] of messages) {
      expect(() => tf.layers.causalSelfAttention({...heads, ...args})).toThrowError(`Error in causalSelfAttention: ${message}`);
    }
    const build = (args: Partial<CausalSelfAttentionArgs>, hiddenSize: number) => () =>
      tf.layers.causalSelfAttention({...heads, projectionFormat: 'int4', ...args}).build([null, null, hiddenSize]);
    const {numTensors} = tf.memory();
    expect(build({}, 12)).toThrowError('Error in causalSelfAttention: the last axis of the input (H) must be a multiple of 8 for int4, whole words, but is 12.');
    expect(build({headDim: 6, numHeads: 2}, 16)).toThrowError('Error in causalSelfAttention: numHeads * headDim must be a multiple of 8 for int4, whole words, but is 12.');
    expect(tf.memory().numTensors).toBe(numTensors);
  });
});

/** An embedding in codes, and a float32 embedding that has their values. */
function embeddingPair(options: Quantization): {quantized: tf.layers.Layer; standIn: tf.layers.Layer} {
  const weights = tf.moeQuantizeWeights(randomTensor([1, VOCAB_SIZE, HIDDEN_SIZE], 3), options);
  const sizes = {vocabSize: VOCAB_SIZE, units: HIDDEN_SIZE};
  const {format = 'int4', groupSize, scaleFormat, symmetric} = options;
  const quantized = tf.layers.reversibleEmbedding({
    ...sizes, embeddingsFormat: format, embeddingsGroupSize: groupSize, embeddingsScaleFormat: scaleFormat, useEmbeddingsOffsets: symmetric === false,
  });
  const standIn = tf.layers.reversibleEmbedding(sizes);
  [quantized, standIn].forEach((layer) => layer.build([null, null]));
  setNamed(quantized, namedCodes('embeddings', weights));
  setNamed(standIn, {embeddings: tf.squeeze(tf.moeDequantizeWeights(weights), [0])});
  return {quantized, standIn};
}

describeWithFlags('reversibleEmbedding in codes', ALL_ENVS, (env) => {
  for (const [name, options] of formatsOn(env.backendName)) {
    it(`looks up the values of its codes, and multiplies with them: ${name}`, async () => {
      const {quantized, standIn} = embeddingPair(options);
      for (const numIds of [1, 7]) {
        const ids = tf.tensor2d(Array.from({length: numIds}, (_, i) => (5 * i + 10) % VOCAB_SIZE), [1, numIds], 'int32');
        const wanted = standIn.apply(ids) as tf.Tensor;
        await expectWithin(quantized.apply(ids) as tf.Tensor, (await wanted.data()) as Float32Array, () => 1e-7, 'embeddings');
        const states = randomTensor([1, numIds, HIDDEN_SIZE], 7);
        await expectAlike(quantized.apply(states) as tf.Tensor, standIn.apply(states) as tf.Tensor, 'logits');
      }
    });
  }

  it('passes gradients to hidden states, past a lookup of ids', async () => {
    const {quantized, standIn} = embeddingPair({groupSize: 16});
    const states = randomTensor([1, 3, HIDDEN_SIZE], 7);
    const ids = tf.tensor2d([[1, 2, 9]], [1, 3], 'int32');
    const gradientOf = (layer: tf.layers.Layer) =>
      tf.grad((x) => tf.sum(tf.square(layer.apply(tf.mul(x, layer.apply(ids) as tf.Tensor)) as tf.Tensor)))(states);
    await expectAlike(gradientOf(quantized), gradientOf(standIn), 'gradient');
  });
});

describeWithFlags('reversibleEmbedding in codes, on the host', cpu, () => {
  it('is saved and loaded as the tied head of a model', async () => {
    const {quantized} = embeddingPair({format: 'int8', scaleFormat: 'float16'});
    const input = tf.input({shape: [null], dtype: 'int32'});
    const embedding = tf.layers.reversibleEmbedding({vocabSize: VOCAB_SIZE, units: HIDDEN_SIZE, embeddingsFormat: 'int8', embeddingsScaleFormat: 'float16'});
    const model = tf.model({inputs: input, outputs: embedding.apply(embedding.apply(input)) as tf.SymbolicTensor});
    model.setWeights(quantized.getWeights());
    expect(model.weights.map(({originalName, shape}) => [originalName.split('/').pop(), shape])).toEqual([
      ['embeddings_codes', [1, VOCAB_SIZE, 6]], ['embeddings_scales', [6]],
    ]);
    const ids = tf.tensor2d([[0, 10, 3]], [1, 3], 'int32');
    const loaded = await loadedModel(await savedModel(model));
    await expectWithin(loaded.predict(ids) as tf.Tensor, await (model.predict(ids) as tf.Tensor3D).array(), () => 0, 'loaded');
    expect(() => quantized.apply(tf.tensor2d([[VOCAB_SIZE]], [1, 1], 'int32'))).toThrowError(/row 11 must be in 0\.\.10/);
    expect((quantized.apply(tf.zeros([0, 3], 'int32')) as tf.Tensor).shape).toEqual([0, 3, HIDDEN_SIZE]);
    expect((quantized.apply(tf.zeros([0, 3, HIDDEN_SIZE])) as tf.Tensor).shape).toEqual([0, 3, VOCAB_SIZE]);
  });

  it('says which argument does not fit', () => {
    const make = (args: object) => () => tf.layers.reversibleEmbedding({vocabSize: 4, units: 12, ...args});
    const error = (message: string) => `Error in reversibleEmbedding: ${message}`;
    expect(make({embeddingsFormat: 'int4'})).toThrowError(error('units must be a multiple of 8 for int4, whole words, but is 12.'));
    expect(make({embeddingsFormat: 'int8', embeddingsGroupSize: 12})).toThrowError(error('embeddingsGroupSize must be a multiple of 16, but is 12.'));
    expect(make({useEmbeddingsOffsets: true})).toThrowError(error("useEmbeddingsOffsets must not be given for embeddingsFormat 'float32', which has no offsets."));
  });
});
