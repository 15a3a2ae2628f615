/** Attention in calls, in steps with a cache, in training, and in files. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import type {CausalSelfAttention, CausalSelfAttentionArgs} from '../../src/layers/index';
import {rotaryFrequencies} from '../../src/layers/rotary_embedding';
import * as tf from '../../src/tf';
import {attentionCases, attentionLayer, expectRows, maskTensor, naiveOutput, rotaryCases} from '../support/attention_cases';
import {expectWithin} from '../support/expect';
import {loadedModel, onCpu, randomizeWeights, randomTensor, savedModel, weightsOf} from '../support/layers';

const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};

describeWithFlags('causalSelfAttention', ALL_ENVS, (env) => {
  // webgl compiles tfjs's programs for seconds a case, and has no program of ours here.
  const cases = attentionCases.filter(({isForWebgl}) => isForWebgl === true || env.backendName !== 'webgl');
  cases.forEach((attentionCase) => {
    const {name, batchSize, numPositions, hiddenSize, mask} = attentionCase;

    it(`computes ${name}, at once and step by step`, async () => {
      const layer = attentionLayer(attentionCase);
      const x = randomTensor([batchSize, numPositions, hiddenSize], 5) as tf.Tensor3D;
      const wanted = await naiveOutput(layer, x, attentionCase);
      const maskOfAll = maskTensor(mask);
      await expectRows(layer.apply(x, {mask: maskOfAll}) as tf.Tensor, wanted, 'at once');

      const first = Math.ceil(numPositions / 2);
      const cache = layer.makeCache(batchSize, numPositions + 2);
      const outputs: tf.Tensor3D[] = [];
      for (let start = 0; start < numPositions; start += start === 0 ? first : 1) {
        const numNew = start === 0 ? first : 1;
        const ofMask = maskOfAll && tf.slice(maskOfAll, [0, start], [-1, numNew]);
        outputs.push(layer.attend(tf.slice(x, [0, start, 0], [-1, numNew, -1]), cache, ofMask));
      }
      expect(cache.length).toBe(numPositions);
      await expectRows(tf.concat(outputs, 1), wanted, 'step by step');
      cache.dispose();
    });
  });

  it('lets nothing of padding through, not even NaN', async () => {
    const attentionCase = attentionCases.find(({mask}) => mask != null)!;
    const {batchSize, numPositions, hiddenSize, mask} = attentionCase;
    const layer = attentionLayer(attentionCase);
    const x = randomTensor([batchSize, numPositions, hiddenSize], 5);
    const wanted = await naiveOutput(layer, x, attentionCase);
    const isToken = tf.expandDims(tf.cast(maskTensor(mask)!, 'bool'), 2);
    const poisoned = tf.where(isToken, x, tf.fill(x.shape, NaN));
    await expectRows(layer.apply(poisoned, {mask: maskTensor(mask)}) as tf.Tensor, wanted, 'poisoned');
  });

  it('keeps numTensors flat over steps, and leaves none', async () => {
    const layer = attentionLayer({hiddenSize: 4, args: {numHeads: 2}});
    const {numTensors} = tf.memory();
    const cache = layer.makeCache(1, 20);
    const x = tf.ones<tf.Rank.R3>([1, 1, 4]);
    layer.attend(x, cache).dispose();
    const before = tf.memory();
    for (let step = 1; step < 20; step++) {
      layer.attend(x, cache).dispose();
    }
    expect(tf.memory().numTensors).toBe(before.numTensors);
    expect(tf.memory().numBytes).toBe(before.numBytes);
    cache.dispose();
    cache.dispose();
    x.dispose();
    expect(tf.memory().numTensors).toBe(numTensors);
  });

  it('has the gradients of the cpu backend', async () => {
    const gradients = async () => {
      const layer = attentionLayer(attentionCases[6]);
      const {batchSize, numPositions, hiddenSize, mask} = attentionCases[6];
      const x = randomTensor([batchSize, numPositions, hiddenSize], 5);
      const all = tf.tidy(() => tf.stack(gradientsOf(layer, x, mask).map((gradient) => tf.sum(tf.abs(gradient)))));
      return (await all.data()) as Float32Array;
    };
    const wanted = await onCpu(gradients);
    await expectWithin(tf.tensor1d(await gradients()), wanted, (_, value) => 1e-4 * Math.abs(value) + 1e-5, 'gradients');
  });
});

/** The gradients of a sum of products with the output, to x and to every weight. */
function gradientsOf(layer: CausalSelfAttention, x: tf.Tensor, mask: number[][] | undefined): tf.Tensor[] {
  const variables = layer.trainableWeights.map((weight) => weight.read() as tf.Variable);
  const loss = (input: tf.Tensor) => lossOf(layer, input, mask);
  const {grads} = tf.variableGrads(() => loss(x), variables);
  return [tf.grad(loss)(x), ...variables.map(({name}) => grads[name])];
}

function lossOf(layer: CausalSelfAttention, x: tf.Tensor, mask: number[][] | undefined): tf.Scalar {
  const output = layer.apply(x, {training: true, mask: maskTensor(mask)}) as tf.Tensor;
  const isToken = mask == null ? tf.scalar(1) : tf.expandDims(maskTensor(mask)!, 2);
  return tf.sum(tf.mul(tf.mul(output, isToken), randomTensor(output.shape, 77)));
}

describeWithFlags('causalSelfAttention on the host', cpu, () => {
  [2, 4, 5, 6].forEach((index) => {
    const attentionCase = attentionCases[index];
    it(`has the gradients of finite differences: ${attentionCase.name}`, async () => {
      const {batchSize, numPositions, hiddenSize, mask} = attentionCase;
      const layer = attentionLayer(attentionCase);
      const x = randomTensor([batchSize, numPositions, hiddenSize], 5);
      const [ofX, ...ofWeights] = gradientsOf(layer, x, mask);
      const step = 1 / 256;
      const differences = (values: Float32Array, lossAt: (moved: Float32Array) => number) =>
        Array.from(values, (_, i) => {
          const at = (shift: number) => lossAt(values.map((value, j) => (j === i ? value + shift : value)));
          return (at(step) - at(-step)) / (2 * step);
        });
      const bound = (_: number, value: number) => 5e-3 * Math.abs(value) + 5e-3;
      const lossNow = (input: tf.Tensor) => tf.tidy(() => lossOf(layer, input, mask).dataSync()[0]);
      const xValues = (await x.data()) as Float32Array;
      await expectWithin(ofX, differences(xValues, (moved) => lossNow(tf.tensor(moved, x.shape))), bound, 'x');
      for (const [i, weight] of layer.trainableWeights.entries()) {
        const values = Float32Array.from(await weight.read().data());
        const shape = weight.shape as number[];
        const wanted = differences(values, (moved) => {
          weight.write(tf.tensor(moved, shape));
          return lossNow(x);
        });
        weight.write(tf.tensor(values, shape));
        await expectWithin(ofWeights[i], wanted, bound, weight.name);
      }
    });
  });

  it('has the frequencies of transformers', () => {
    for (const {headDim, rotaryBase, rotaryScaling, frequencies} of rotaryCases) {
      const given = rotaryFrequencies({headDim, rotaryBase, rotaryScaling: configOf(rotaryScaling)});
      given.forEach((frequency, i) =>
        expect(Math.abs(frequency / frequencies[i] - 1)).withContext(`${rotaryScaling.type} ${i}`).toBeLessThan(5e-7));
      expect(given.length).toBe(frequencies.length);
    }
  });

  it('has the attention factor of transformers', () => {
    for (const {rotaryScaling, attentionFactor} of rotaryCases) {
      const scaling = configOf(rotaryScaling);
      expect(scaling?.type === 'yarn' ? scaling.attentionFactor : 1).toBeCloseTo(attentionFactor, 12);
    }
  });

  it('keeps the capacity of a cache over 200 steps', () => {
    const layer = attentionLayer({hiddenSize: 4, args: {numHeads: 2, slidingWindow: 3}});
    const cache = layer.makeCache(1, 201);
    const x = tf.ones<tf.Rank.R3>([1, 1, 4]);
    layer.attend(x, cache).dispose();
    const before = tf.memory();
    for (let step = 1; step < 201; step++) {
      layer.attend(x, cache).dispose();
    }
    expect([tf.memory().numTensors, tf.memory().numBytes]).toEqual([before.numTensors, before.numBytes]);
    expect(cache.length).toBe(cache.capacity);
    expect(() => layer.attend(x, cache)).toThrowError(
      'Error in causalSelfAttention: cache must have room for 1 more positions, but has 0 of 201 left.',
    );
    expect(cache.length).toBe(201);
    cache.dispose();
    expect(() => layer.attend(x, cache)).toThrowError('Error in causalSelfAttention: cache is disposed.');
  });

  it('takes empty batches, and ignores masks of other shapes', () => {
    const layer = attentionLayer({hiddenSize: 4, args: {numHeads: 2}});
    expect((layer.apply(tf.zeros([0, 3, 4])) as tf.Tensor).shape).toEqual([0, 3, 4]);
    expect((layer.apply(tf.zeros([2, 0, 4])) as tf.Tensor).shape).toEqual([2, 0, 4]);
    expect((layer.apply(tf.ones([2, 3, 4]), {mask: tf.ones([2, 4])}) as tf.Tensor).shape).toEqual([2, 3, 4]);
  });

  it('trains in a model with masks, and leaves no tensor behind', async () => {
    const ids = tf.tensor2d([[0, 1, 2], [3, 1, 0]], [2, 3], 'int32');
    const embedding = tf.layers.reversibleEmbedding({vocabSize: 4, units: 6, padTokenId: 0});
    const input = tf.input({shape: [null], dtype: 'int32'});
    const layers = [embedding, tf.layers.rmsNormalization(), tf.layers.causalSelfAttention({numHeads: 3}), embedding];
    const output = layers.reduce((x, layer) => layer.apply(x) as tf.SymbolicTensor, input);
    const model = tf.model({inputs: input, outputs: output});
    model.compile({optimizer: tf.train.sgd(0.1), loss: 'meanSquaredError'});
    const target = tf.ones([2, 3, 4]);
    const before = (await model.trainOnBatch(ids, target)) as number;
    const {numTensors} = tf.memory();
    for (let step = 0; step < 5; step++) {
      await model.trainOnBatch(ids, target);
    }
    expect(tf.memory().numTensors).toBe(numTensors);
    expect(await model.trainOnBatch(ids, target)).toBeLessThan(before);
    const predicted = model.predict(ids) as tf.Tensor;
    const loaded = await loadedModel(await savedModel(model));
    await expectWithin(loaded.predict(ids) as tf.Tensor, (await predicted.data()) as Float32Array, () => 0, 'loaded');
    tf.dispose(predicted);
    const left = tf.memory().numTensors;
    const numWeights = model.weights.length;
    model.dispose();
    expect(left - tf.memory().numTensors).toBe(numWeights + 2);
  });

  it('is a new layer with the same config', () => {
    const args: CausalSelfAttentionArgs = {
      name: 'attention', trainable: false, inputShape: [3, 6], numHeads: 6, numKeyValueHeads: 2, headDim: 4, rotaryBase: 500,
      rotaryScaling: {type: 'yarn', factor: 4, originalMaxPositions: 32, betaFast: 16, betaSlow: 2, attentionFactor: 1.5, truncate: false},
      useBias: true, useOutputBias: true, queryKeyNormalization: 'all', normalizationEpsilon: 1e-3, slidingWindow: 5, useSinks: true,
      scale: 0.25, kernelInitializer: 'heNormal', biasInitializer: 'ones', kernelRegularizer: 'l1l2', biasRegularizer: 'l1l2',
      kernelConstraint: 'nonNeg', biasConstraint: 'nonNeg',
    };
    const layer = tf.layers.causalSelfAttention(args);
    const config = layer.getConfig();
    expect(config).toEqual(jasmine.objectContaining(
      Object.fromEntries(Object.entries(args).filter(([name]) => !/Initializer|Regularizer|Constraint|Shape/.test(name)))));
    const LayerClass = layer.constructor as unknown as {fromConfig: (cls: unknown, config: unknown) => CausalSelfAttention};
    const copy = LayerClass.fromConfig(layer.constructor, JSON.parse(JSON.stringify(config)));
    expect(copy.getConfig()).toEqual(config);
    copy.build([null, 3, 6]);
    expect(Object.fromEntries(Object.entries(weightsOf(copy)).map(([name, {shape}]) => [name, shape]))).toEqual({
      query_kernel: [6, 24], query_bias: [24], query_norm: [24], key_kernel: [6, 8], key_bias: [8], key_norm: [8],
      value_kernel: [6, 8], value_bias: [8], output_kernel: [24, 6], output_bias: [6], sinks: [6],
    });
  });

  it('says which argument does not fit', () => {
    const messages: Array<[CausalSelfAttentionArgs | undefined, string]> = [
      [undefined, 'args must have numHeads, but are not given.'],
      [{numHeads: 0}, 'numHeads must be a positive integer, but is 0.'],
      [{numHeads: 4, numKeyValueHeads: 3}, 'numHeads must be a multiple of numKeyValueHeads (3), but is 4.'],
      [{numHeads: 2, headDim: 3}, 'headDim must be even, as the rotary embedding turns pairs, but is 3.'],
      [{numHeads: 2, rotaryBase: 1}, 'rotaryBase must be more than 1, but is 1.'],
      [{numHeads: 2, slidingWindow: 0}, 'slidingWindow must be a positive integer, but is 0.'],
      [{numHeads: 2, scale: 0}, 'scale must be a positive number that fits float32, but is 0.'],
      [{numHeads: 2, queryKeyNormalization: 'none' as 'all'}, "queryKeyNormalization must be 'head' or 'all', but is 'none'."],
      [{numHeads: 2, rotaryScaling: {type: 'ntk'} as never}, "rotaryScaling.type must be one of linear, llama3, yarn, but is 'ntk'."],
      [{numHeads: 2, rotaryScaling: 'yarn' as never}, "rotaryScaling must be an object with type and factor, but is the string 'yarn'."],
      [{numHeads: 2, rotaryScaling: {type: 'linear'} as never}, 'rotaryScaling.factor must be a positive number that fits float32, but is undefined.'],
      [
        {numHeads: 2, rotaryScaling: {type: 'linear', factor: 2, betaFast: 3} as never},
        "unknown option 'rotaryScaling.betaFast'. The options of rotaryScaling are type, factor.",
      ],
      [
        {numHeads: 2, rotaryScaling: {type: 'llama3', factor: 2, lowFreqFactor: 4, highFreqFactor: 4, originalMaxPositions: 8}},
        'rotaryScaling.highFreqFactor must be more than lowFreqFactor (4), but is 4.',
      ],
    ];
    for (const [args, message] of messages) {
      expect(() => tf.layers.causalSelfAttention(args!)).toThrowError(`Error in causalSelfAttention: ${message}`);
    }
    expect(() => tf.layers.causalSelfAttention({numHeads: 2, heads: 3} as never)).toThrowError(/unknown option 'heads'/);
  });

  it('says what does not fit in a call or a step', () => {
    const layer = tf.layers.causalSelfAttention({numHeads: 2, name: 'attention'});
    const error = (message: string) => `Error in causalSelfAttention: ${message}`;
    expect(() => layer.makeCache(1, 2)).toThrowError(
      error("makeCache() needs weights, but layer 'attention' is not built. Call it, or its model, once first."),
    );
    expect(() => layer.apply(tf.ones([1, 2, 5]))).toThrowError(
      error('the last axis of the input (H) must be a multiple of numHeads (2) without headDim, but is 5.'),
    );
    expect(() => layer.apply(tf.ones([1, 2, 6]))).toThrowError(
      error('headDim, by default H / numHeads, must be even, as the rotary embedding turns pairs, but is 3.'),
    );
    layer.build([null, null, 4]);
    const cache = layer.makeCache(2, 3);
    const other = attentionLayer({hiddenSize: 4, args: {numHeads: 1}});
    const x = tf.ones<tf.Rank.R3>([2, 1, 4]);
    const {numTensors} = tf.memory();
    for (const [step, message] of [
      [() => layer.attend(null as never, cache), 'x must be a tensor, but is null.'],
      [() => layer.attend(tf.ones([2, 4]) as never, cache), 'x must be rank 3 [B, T, H], but got rank 2 [2,4].'],
      [() => layer.attend(tf.ones([2, 1, 5]), cache), 'x must be [B, T, 4] with T of at least 1, but is [2,1,5].'],
      [() => layer.attend(x, {} as never), 'cache must be a result of makeCache(), but is the object {}.'],
      [() => layer.attend(tf.ones([1, 1, 4]), cache), "cache must be [1,2,3,2] for layer 'attention' and this x, but is [2,2,3,2]."],
      [() => other.attend(x, cache), `cache must be [2,1,3,4] for layer '${other.name}' and this x, but is [2,2,3,2].`],
      [() => layer.attend(tf.ones([2, 4, 4]), cache), 'cache must have room for 4 more positions, but has 3 of 3 left.'],
      [() => layer.attend(x, cache, tf.ones([2, 2])), 'mask must be a tensor [2, 1], but is a float32 tensor [2,2].'],
    ] as Array<[() => unknown, string]>) {
      expect(() => tf.tidy(() => void step())).toThrowError(error(message));
    }
    expect([cache.length, tf.memory().numTensors]).toEqual([0, numTensors]);
    randomizeWeights(layer);
  });
});

/** The scaling with its defaults, as the layer has it. */
const configOf = (rotaryScaling: CausalSelfAttentionArgs['rotaryScaling']) =>
  tf.layers.causalSelfAttention({numHeads: 1, rotaryScaling}).getConfig().rotaryScaling as unknown as Exclude<typeof rotaryScaling, undefined>;
