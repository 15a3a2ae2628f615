/** rmsNormalization and reversibleEmbedding: values, gradients, masks, files and errors. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import type {ReversibleEmbeddingArgs, RmsNormalizationArgs} from '../../src/layers/index';
import * as tf from '../../src/tf';
import {naiveRmsNorm} from '../naive/attention';
import {expectFloats, expectWithin} from '../support/expect';
import {loadedModel, randomizeWeights, randomTensor, savedModel} from '../support/layers';

const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};
const V = 7;
const H = 5;

function embeddingLayer(args: Partial<ReversibleEmbeddingArgs> = {}): tf.layers.Layer {
  const layer = tf.layers.reversibleEmbedding({vocabSize: V, units: H, ...args});
  layer.build([null, null]);
  randomizeWeights(layer);
  return layer;
}

describeWithFlags('rmsNormalization', ALL_ENVS, () => {
  it('normalizes rows of any rank, of any size', async () => {
    for (const shape of [[1, 1], [3, 5], [2, 3, 4], [2, 1, 2, 300]]) {
      const size = shape[shape.length - 1];
      const norm = tf.layers.rmsNormalization({epsilon: 0.01});
      norm.build(shape);
      randomizeWeights(norm);
      const x = tf.mul(randomTensor(shape, 3), 100);
      const [gamma, values] = await Promise.all([norm.getWeights()[0].data(), x.data()]);
      const rows = Array.from({length: values.length / size}, (_, r) => Array.from(values.slice(r * size, (r + 1) * size)));
      const wanted = rows.flatMap((row) => naiveRmsNorm(row, gamma, 0.01));
      const given = norm.apply(x) as tf.Tensor;
      expect(given.shape).toEqual(shape);
      await expectWithin(given, wanted, (_, value) => 1e-5 * Math.abs(value) + 1e-7, `[${shape}]`);
    }
  });

  it('has gradients to the input and gamma', async () => {
    const norm = tf.layers.rmsNormalization({epsilon: 0.5});
    norm.build([2, 3]);
    const x = tf.tensor2d([[1, -2, 0.5], [0, 0, 0]]);
    norm.setWeights([tf.tensor1d([2, 1, -1])]);
    const gamma = norm.weights[0].read() as tf.Variable;
    const dy = tf.tensor2d([[1, 2, 3], [1, 1, 1]]);
    const loss = (input: tf.Tensor) => tf.sum(tf.mul(norm.apply(input) as tf.Tensor, dy)) as tf.Scalar;
    const {grads} = tf.variableGrads(() => loss(x), [gamma]);
    // r = 1 / sqrt(1.75 + 0.5); dgamma = dy x r; dx = r dy gamma - r^3 x mean(dy gamma x).
    const r = 2.25 ** -0.5;
    await expectWithin(grads[gamma.name], [r, -4 * r, 1.5 * r], () => 1e-5, 'gamma');
    const mean = (2 * 1 + 2 * -2 + -3 * 0.5) / 3;
    const first = [2 * r - r ** 3 * mean, 2 * r + 2 * r ** 3 * mean, -3 * r - 0.5 * r ** 3 * mean];
    const ofZero = [2, 1, -1].map((value) => value * 0.5 ** -0.5);
    await expectWithin(tf.grad(loss)(x), [...first, ...ofZero], () => 1e-5, 'x');
  });
});

describeWithFlags('rmsNormalization, of second order', ALL_ENVS, () => {
  it('has the gradients of the same in core ops', async () => {
    const norm = tf.layers.rmsNormalization({epsilon: 0.5});
    norm.build([2, 3]);
    randomizeWeights(norm);
    const [gamma] = norm.getWeights();
    const x = randomTensor([2, 3], 5);
    const dy = randomTensor([2, 3], 6);
    const core = (input: tf.Tensor) => tf.mul(tf.div(input, tf.sqrt(tf.add(tf.mean(tf.square(input), -1, true), 0.5))), gamma);
    const second = (f: (input: tf.Tensor) => tf.Tensor) =>
      tf.grad((input) => tf.sum(tf.square(tf.grad((inner) => tf.sum(tf.mul(f(inner), dy)))(input))))(x);
    await expectWithin(second((input) => norm.apply(input) as tf.Tensor), await second(core).array(), () => 1e-4, 'x');
  });
});

describeWithFlags('reversibleEmbedding', ALL_ENVS, () => {
  it('looks up ids of both dtypes, and is the head of hidden states', async () => {
    const layer = embeddingLayer();
    const table = (await layer.getWeights()[0].array()) as number[][];
    const ids = [[3, 0, 6], [6, 6, 1]];
    for (const dtype of ['int32', 'float32'] as const) {
      await expectFloats(layer.apply(tf.tensor2d(ids, [2, 3], dtype)) as tf.Tensor, ids.map((row) => row.map((id) => table[id])), dtype);
    }
    const states = randomTensor([2, 1, 2, H], 4);
    const logits = layer.apply(states) as tf.Tensor;
    expect(logits.shape).toEqual([2, 1, 2, V]);
    const rows = (await tf.reshape(states, [4, H]).array()) as number[][];
    const wanted = rows.map((row) => table.map((embedding) => embedding.reduce((sum, value, h) => sum + value * row[h], 0)));
    await expectWithin(logits, wanted, () => 1e-5, 'logits');
  });

  it('has gradients to embeddings of both uses', async () => {
    const layer = embeddingLayer();
    const embeddings = layer.weights[0].read() as tf.Variable;
    const ids = tf.tensor2d([[2, 2, 5]], [1, 3], 'int32');
    const loss = () => tf.sum(layer.apply(layer.apply(ids) as tf.Tensor) as tf.Tensor) as tf.Scalar;
    const {grads} = tf.variableGrads(loss, [embeddings]);
    const table = (await embeddings.array()) as number[][];
    const ofHead = table[0].map((_, h) => 2 * table[2][h] + table[5][h]);
    const ofSum = table[0].map((_, h) => table.reduce((sum, row) => sum + row[h], 0));
    const uses = [0, 0, 2, 0, 0, 1, 0];
    await expectWithin(grads[embeddings.name], uses.map((n) => ofHead.map((value, h) => value + n * ofSum[h])), () => 1e-4, 'embeddings');
  });
});

describeWithFlags('layers of language models, on the host', cpu, () => {
  const tiedModel = (args: Partial<ReversibleEmbeddingArgs> = {}) => {
    const embedding = tf.layers.reversibleEmbedding({vocabSize: V, units: H, name: 'embedding', ...args});
    const ids = tf.input({shape: [null], dtype: 'int32'});
    const states = tf.layers.rmsNormalization().apply(embedding.apply(ids)) as tf.SymbolicTensor;
    const model = tf.model({inputs: ids, outputs: embedding.apply(states) as tf.SymbolicTensor});
    randomizeWeights(model);
    return model;
  };

  it('make a model with a tied head, which is saved, loaded and disposed of', async () => {
    const {numTensors} = tf.memory();
    const model = tiedModel({padTokenId: 1});
    expect(model.outputs[0].shape).toEqual([null, null, V]);
    expect(model.weights.length).toBe(2);
    const ids = tf.tensor2d([[3, 0, 1]], [1, 3], 'int32');
    const wanted = model.predict(ids) as tf.Tensor;
    const loaded = await loadedModel(await savedModel(model));
    await expectFloats(loaded.predict(ids) as tf.Tensor, (await wanted.data()) as Float32Array, 'loaded');
    const [config, wantedConfig] = [loaded, model].map((each) => each.getLayer('embedding').getConfig());
    expect(config).toEqual({...wantedConfig, embeddingsInitializer: config.embeddingsInitializer});
    [model, loaded].forEach((each) => each.dispose());
    // The ids, two predictions, and the two weights as they were set.
    expect(tf.memory().numTensors).toBe(numTensors + 5);
  });

  it('give masks of padding', () => {
    const layer = embeddingLayer({padTokenId: 2});
    const ids = tf.tensor2d([[2, 0], [2, 2]], [2, 2], 'int32');
    expect((layer.computeMask(ids) as tf.Tensor).arraySync()).toEqual([[0, 1], [0, 0]]);
    const mask = tf.ones([2, 2]);
    expect(layer.computeMask(tf.ones([2, 2, H]), mask)).toBe(mask);
    expect(embeddingLayer().computeMask(ids) as unknown).toBeNull();
  });

  it('can begin a sequential model', () => {
    const model = tf.sequential({layers: [tf.layers.reversibleEmbedding({vocabSize: V, units: H}), tf.layers.rmsNormalization()]});
    expect(model.outputs[0].shape).toEqual([null, null, H]);
  });

  it('say what does not fit', () => {
    const ofNorm: Array<[RmsNormalizationArgs, string]> = [
      [{epsilon: 0}, 'epsilon must be a positive number that fits float32, but is 0.'],
      [{epsilon: 1e-60}, 'epsilon must be a positive number that fits float32, but is 1e-60.'],
      [{gammaInitializer: '' as never}, "gammaInitializer must be a name, a config or an object of this copy of tf.layers, but is the string ''."],
    ];
    for (const [args, message] of ofNorm) {
      expect(() => tf.layers.rmsNormalization(args)).toThrowError(`Error in rmsNormalization: ${message}`);
    }
    expect(() => tf.layers.rmsNormalization({eps: 1} as never)).toThrowError(/Error in rmsNormalization: unknown option 'eps'/);
    const ofEmbedding: Array<[ReversibleEmbeddingArgs, string]> = [
      [undefined as never, 'args must have vocabSize and units, but are not given.'],
      [{vocabSize: 0, units: 1}, 'vocabSize must be a positive integer, but is 0.'],
      [{vocabSize: 1, units: 1.5}, 'units must be a positive integer, but is 1.5.'],
      [{vocabSize: 2, units: 1, padTokenId: -1}, 'padTokenId must be an integer of at least 0, but is -1.'],
      [{vocabSize: 2, units: 1, padTokenId: 2}, 'padTokenId must be less than vocabSize (2), but is 2.'],
    ];
    for (const [args, message] of ofEmbedding) {
      expect(() => tf.layers.reversibleEmbedding(args)).toThrowError(`Error in reversibleEmbedding: ${message}`);
    }
    const layer = tf.layers.reversibleEmbedding({vocabSize: V, units: H, name: 'embedding'});
    expect(() => layer.apply(tf.ones([1, 2, 3]))).toThrowError(
      "Error in reversibleEmbedding: the input of layer 'embedding' must be ids of rank 2 or hidden states [..., 5] of rank 3 or " +
        'more, but is [1,2,3].',
    );
  });
});
