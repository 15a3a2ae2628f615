/** The layer in training: gradients, auxiliary losses, the bias that balances, jitter, memory. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import routerLosses from '../golden/router_losses.json';
import {expectFloats, expectInts, expectWithin} from '../support/expect';
import {type LayerArgs, layerOf, type MoeLayer, onCpu, randomizeWeights, randomTensor, valueOf, weightsOf} from '../support/layers';

const sizes = {numExperts: 4, intermediateSize: 3};
const H = 5;
const shape = [2, 3, H];
const everyWeight: LayerArgs = {
  ...sizes, useBias: true, useRouterBias: true, numSharedExperts: 1, sharedExpertGate: true, useScoreCorrectionBias: true,
  loadBalancingLossWeight: 0.3, routerZLossWeight: 0.2, capacityFactor: 0.8,
};

/** The loss of one step, auxiliary losses included. */
function lossOf(layer: MoeLayer, input: tf.Tensor): tf.Scalar {
  const output = layer.apply(input, {training: true}) as tf.Tensor;
  const loss = tf.sum(tf.mul(output, randomTensor(output.shape, 77)));
  return tf.addN([loss, ...layer.calculateLosses()]) as tf.Scalar;
}

async function gradientsOf(layer: MoeLayer): Promise<Record<string, Float32Array>> {
  const input = randomTensor(shape, 9);
  const variables = layer.trainableWeights.map((weight) => weight.read() as tf.Variable);
  const {grads} = tf.variableGrads(() => lossOf(layer, input), variables);
  const values = await Promise.all(variables.map(({name}) => grads[name].data()));
  return Object.fromEntries(layer.trainableWeights.map(({originalName}, i) => [originalName, values[i] as Float32Array]));
}

function modelOf(layer: MoeLayer, learningRate = 0.01): tf.Sequential {
  const model = tf.sequential({layers: [layer]});
  model.compile({optimizer: tf.train.sgd(learningRate), loss: 'meanSquaredError'});
  return model;
}
const randomizedModel = (args: Partial<LayerArgs>): {layer: MoeLayer; model: tf.Sequential} => {
  const layer = tf.layers.mixtureOfExperts({...sizes, inputShape: [3, H], ...args});
  const model = modelOf(layer);
  randomizeWeights(layer);
  return {layer, model};
};
/** The sum of the layer's outputs for two inputs. */
function modelOfTwoCalls(layer: MoeLayer): tf.LayersModel {
  const inputs = [tf.input({shape: [H]}), tf.input({shape: [H]})];
  const outputs = tf.layers.add().apply(inputs.map((input) => layer.apply(input) as tf.SymbolicTensor)) as tf.SymbolicTensor;
  return tf.model({inputs, outputs});
}
const zeros = tf.zeros;

describeWithFlags('mixtureOfExperts in training', ALL_ENVS, (env) => {
  it('has the gradients of the cpu backend, to every weight', async () => {
    const wanted = await onCpu(() => gradientsOf(layerOf(everyWeight, H)));
    const given = await gradientsOf(layerOf(everyWeight, H));
    expect(Object.keys(given)).toEqual(Object.keys(wanted));
    for (const [name, values] of Object.entries(given)) {
      expect(wanted[name].some((value) => value !== 0)).withContext(name).toBeTrue();
      await expectWithin(tf.tensor1d(values), wanted[name], (_, value) => 1e-4 * Math.abs(value) + 1e-5, name);
    }
  });

  it('adds its losses to the losses of trainOnBatch and fit, but not of evaluate', async () => {
    const args = {loadBalancingLossWeight: 0.5, routerZLossWeight: 0.25};
    const [input, target] = [randomTensor(shape, 9), randomTensor(shape, 10)];
    const {layer, model} = randomizedModel(args);
    const logits = tf.matMul(input.reshape<tf.Tensor2D>([6, H]), weightsOf(layer).router_kernel as tf.Tensor2D);
    const balance = await valueOf(tf.moeLoadBalancingLoss(logits, tf.moeTopk(logits, 2).topkIds));
    const z = await valueOf(tf.moeRouterZLoss(logits));
    const evaluated = await valueOf(model.evaluate(input, target) as tf.Scalar);
    expect(await valueOf(model.calculateLosses()[0])).withContext('before training').toBe(0);

    const trained = (await model.trainOnBatch(input, target)) as number;
    expect(trained).toBeCloseTo(evaluated + 0.5 * balance + 0.25 * z, 4);
    expect(await valueOf(model.calculateLosses()[0])).withContext('after training').toBeCloseTo(0.5 * balance + 0.25 * z, 4);

    randomizeWeights(layer);
    const {history} = await model.fit(input, target, {epochs: 1, verbose: 0});
    expect(history.loss[0]).toBeCloseTo(trained, 4);
  });

  it('moves its bias towards experts of little load, in training only', async () => {
    const {layer, model} = randomizedModel({topk: 1, loadBalancingLossWeight: 0, scoreCorrectionBiasUpdateRate: 0.125});
    const [input, target] = [randomTensor(shape, 9), randomTensor(shape, 10)];
    const biasOf = async () => Array.from(await weightsOf(layer).score_correction_bias.data());
    const before = await biasOf();
    (model.predict(input) as tf.Tensor).dispose();
    expect(await biasOf()).toEqual(before);
    const load = await layer.expertLoad().array();

    await model.trainOnBatch(input, target);
    const wanted = before.map((bias, e) => Math.fround(bias + 0.125 * Math.sign(1.5 - load[e])));
    await expectWithin(weightsOf(layer).score_correction_bias, wanted, () => 1e-6, 'bias');
    expect(model.calculateLosses()).toEqual([]);
  });

  it('leaves no tensor behind', async () => {
    const {layer, model} = randomizedModel({
      numSharedExperts: 1, capacityFactor: 0.8, routerJitter: 0.1, routerZLossWeight: 0.1, scoreCorrectionBiasUpdateRate: 0.1,
    });
    const [input, target] = [randomTensor(shape, 9), randomTensor(shape, 10)];
    const step = () => model.trainOnBatch(input, target);
    await step();
    const {numTensors} = tf.memory();
    for (let i = 1; i < (env.backendName === 'cpu' ? 200 : 10); i++) {
      await step();
    }
    expect(tf.memory().numTensors).toBe(numTensors);
    const numWeights = layer.weights.length;
    const before = tf.memory().numTensors;
    tf.dispose([layer.expertLoad(), layer.expertLoadEntropy(), layer.droppedShare(), model.calculateLosses()]);
    expect(tf.memory().numTensors).toBe(before);
    model.dispose();
    // The two id tensors of the last batch, its loss, its load and the bias before it are disposed with the weights.
    expect(tf.memory().numTensors).toBe(before - numWeights - 5);
  });
});

const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};

describeWithFlags('mixtureOfExperts in training, on the host', cpu, () => {
  it('has the gradients of finite differences, to every weight', async () => {
    // Nothing here is near an edge: no choice changes within a step.
    const layer = layerOf({...everyWeight, capacityFactor: 1.1}, H);
    const gradients = await gradientsOf(layer);
    const input = randomTensor(shape, 9);
    const step = 1 / 256;
    for (const weight of layer.trainableWeights) {
      const values = Float32Array.from(await weight.read().data());
      const lossAt = (i: number, shift: number) => {
        const moved = values.slice();
        moved[i] += shift;
        weight.write(tf.tensor(moved, weight.shape as number[]));
        return tf.tidy(() => lossOf(layer, input).dataSync()[0]);
      };
      const differences = Array.from(values, (_, i) => (lossAt(i, step) - lossAt(i, -step)) / (2 * step));
      weight.write(tf.tensor(values, weight.shape as number[]));
      await expectWithin(tf.tensor1d(gradients[weight.originalName]), differences, (_, value) => 5e-3 * Math.abs(value) + 5e-3, weight.name);
    }
  });

  it('has second gradients, such as the gradient of a penalty on the gradient to its input', async () => {
    const layer = layerOf({...everyWeight, capacityFactor: 1.1}, H);
    const input = randomTensor(shape, 9);
    const penalty = () => tf.sum(tf.square(tf.grad((x: tf.Tensor) => lossOf(layer, x))(input))) as tf.Scalar;
    const variables = layer.trainableWeights.map((weight) => weight.read() as tf.Variable);
    const {grads} = tf.variableGrads(penalty, variables);
    const step = 1 / 256;
    for (const variable of variables) {
      const values = Float32Array.from(await variable.data());
      const penaltyAt = (i: number, shift: number) => {
        const moved = values.slice();
        moved[i] += shift;
        variable.assign(tf.tensor(moved, variable.shape));
        return tf.tidy(() => penalty().dataSync()[0]);
      };
      const indices = [0, 1, 2].map((i) => Math.floor((i * (values.length - 1)) / 2));
      const differences = indices.map((i) => (penaltyAt(i, step) - penaltyAt(i, -step)) / (2 * step));
      variable.assign(tf.tensor(values, variable.shape));
      const given = tf.gather(tf.reshape(grads[variable.name], [-1]), tf.tensor1d(indices, 'int32'));
      await expectWithin(given, differences, (_, value) => 1e-2 * Math.abs(value) + 1e-2, variable.name);
    }
  });

  it('has the losses of Megatron and TransformerEngine', async () => {
    const {inputs, expected} = routerLosses.cases[0] as unknown as {
      inputs: {logits: {data: number[]}};
      expected: {switch_megatron_te: number; z_loss_mean_square_logsumexp: number};
    };
    for (const [name, wanted] of [
      ['loadBalancingLossWeight', expected.switch_megatron_te],
      ['routerZLossWeight', expected.z_loss_mean_square_logsumexp],
    ] as const) {
      const layer = layerOf({numExperts: 8, intermediateSize: 2, loadBalancingLossWeight: 0, [name]: 1}, 8);
      const [, ...others] = layer.getWeights();
      // The router returns its input.
      layer.setWeights([tf.eye(8), ...others]);
      layer.apply(tf.tensor2d(inputs.logits.data, [4, 8]), {training: true});
      expect(await valueOf(layer.calculateLosses()[0])).withContext(name).toBeCloseTo(wanted, 5);
    }
  });

  it('has the load of one batch, in training and after another batch in prediction', async () => {
    const {inputs, expected} = routerLosses.cases[2] as unknown as {
      inputs: {tokens: number; k: number; E: number};
      expected: {after_train_forward: number[]; after_extra_eval_forward: number[]};
    };
    const layer = layerOf({numExperts: inputs.E, topk: inputs.k, intermediateSize: 2, scoreCorrectionBiasUpdateRate: 0.125}, 2);
    const {score_correction_bias: bias} = weightsOf(layer);
    const [, w1, w2] = layer.getWeights();
    // Every token to expert 0.
    layer.setWeights([tf.tensor2d([[8, 0], [8, 0]]), w1, w2, tf.zeros([2])]);
    const tokens = tf.ones([inputs.tokens, 2]);
    layer.apply(tokens, {training: true});
    await expectInts(layer.expertLoad(), expected.after_train_forward, 'after training');
    const moved = [-0.125, 0.125];
    await expectWithin(bias, moved, () => 1e-6, 'bias after training');
    layer.apply(tokens);
    await expectInts(layer.expertLoad(), expected.after_extra_eval_forward, 'after prediction');
    await expectWithin(bias, moved, () => 1e-6, 'bias after prediction');
  });

  it('counts no masked token in a loss', async () => {
    const layer = layerOf({...sizes, loadBalancingLossWeight: 1, routerZLossWeight: 1}, H);
    const input = randomTensor(shape, 9);
    layer.apply(tf.slice(input, [0, 0, 0], [1, 3, H]), {training: true});
    const wanted = await valueOf(layer.calculateLosses()[0]);
    layer.apply(input, {training: true, mask: tf.tensor2d([[1, 1, 1], [0, 0, 0]], [2, 3], 'bool')});
    expect(await valueOf(layer.calculateLosses()[0])).toBeCloseTo(wanted, 5);
  });

  it('balances each sequence by itself, its masked tokens left out', async () => {
    const args = {...sizes, loadBalancingLossWeight: 1, loadBalancingLossPer: 'sequence'} as const;
    const layer = layerOf(args, H);
    const input = randomTensor([2, 2, 2, H], 9);
    const mask = tf.tensor3d([[[1, 1], [1, 0]], [[1, 0], [1, 1]]], [2, 2, 2], 'bool');
    const lossOfInput = (x: tf.Tensor, tokens: tf.Tensor) => {
      layer.apply(x, {training: true, mask: tokens});
      return layer.calculateLosses()[0];
    };
    const [all, ...ofEach] = await Promise.all([
      lossOfInput(input, mask),
      ...[0, 1].map((b) => lossOfInput(tf.slice(input, b, 1), tf.slice(mask, b, 1))),
    ].map(valueOf));
    expect(all).toBeCloseTo((ofEach[0] + ofEach[1]) / 2, 5);
    const together = layerOf({...args, loadBalancingLossPer: 'batch'}, H);
    together.apply(input, {training: true, mask});
    expect(Math.abs((await valueOf(together.calculateLosses()[0])) - all)).toBeGreaterThan(1e-3);
    expect(() => layer.apply(tf.ones([2, H]))).toThrowError(/expected min_ndim=3, found ndim=2/);

    const empty = layer.apply(tf.zeros([2, 0, H]), {training: true}) as tf.Tensor;
    expect([empty.shape, await valueOf(layer.calculateLosses()[0])]).toEqual([[2, 0, H], 0]);
  });

  it('works in a custom training loop, in which the model ends a scope before the losses are asked for', async () => {
    const {layer, model} = randomizedModel({loadBalancingLossWeight: 1});
    const input = randomTensor(shape, 9);
    const variables = model.trainableWeights.map((weight) => weight.read() as tf.Variable);
    const ofLosses = () => {
      model.apply(input, {training: true});
      return tf.addN(model.calculateLosses()) as tf.Scalar;
    };
    const {value, grads} = tf.variableGrads(ofLosses, variables);
    const router = weightsOf(layer).router_kernel as tf.Variable;
    const logits = (kernel: tf.Tensor) => tf.matMul(input.reshape<tf.Tensor2D>([6, H]), kernel as tf.Tensor2D);
    const loss = (kernel: tf.Tensor) => tf.moeLoadBalancingLoss(logits(kernel), tf.moeTopk(logits(kernel), 2).topkIds);
    expect(await valueOf(value)).toBeCloseTo(await valueOf(loss(router)), 5);
    await expectWithin(grads[router.name], (await tf.grad(loss)(router).data()) as Float32Array, () => 1e-6, 'gradient');
    // Nothing of that step is in another step.
    const {value: ofAnother} = tf.variableGrads(() => tf.add(tf.sum(router), model.calculateLosses()[0]) as tf.Scalar, [router]);
    expect(await valueOf(ofAnother)).toBeCloseTo(await valueOf(tf.sum(router)), 5);
  });

  it('adds up the losses of a layer that a model uses twice', async () => {
    const layer = tf.layers.mixtureOfExperts({...sizes, loadBalancingLossWeight: 1});
    const model = modelOfTwoCalls(layer);
    model.compile({optimizer: tf.train.sgd(0.01), loss: 'meanSquaredError'});
    randomizeWeights(layer);
    const inputs = [randomTensor([6, H], 9), randomTensor([6, H], 10)];
    const lossOfInput = (x: tf.Tensor) => {
      layer.apply(x, {training: true});
      return valueOf(layer.calculateLosses()[0]);
    };
    const wanted = (await lossOfInput(inputs[0])) + (await lossOfInput(inputs[1]));
    const evaluated = await valueOf(model.evaluate(inputs, zeros([6, H])) as tf.Scalar);
    expect(await model.trainOnBatch(inputs, zeros([6, H]))).toBeCloseTo(evaluated + wanted, 4);
  });

  it('moves its bias once for a step in which a model uses it twice, by the load of both calls', async () => {
    const layer = tf.layers.mixtureOfExperts({...sizes, topk: 1, loadBalancingLossWeight: 0, scoreCorrectionBiasUpdateRate: 0.125});
    const model = modelOfTwoCalls(layer);
    model.compile({optimizer: tf.train.sgd(0), loss: 'meanSquaredError'});
    randomizeWeights(layer);
    const inputs = [randomTensor([6, H], 9), randomTensor([6, H], 10)];
    for (let step = 0; step < 2; step++) {
      const before = await weightsOf(layer).score_correction_bias.data();
      layer.apply(tf.concat(inputs));
      const load = await layer.expertLoad().array();
      await model.trainOnBatch(inputs, zeros([6, H]));
      const wanted = load.map((count, e) => Math.fround(before[e] + 0.125 * Math.sign(3 - count)));
      await expectWithin(weightsOf(layer).score_correction_bias, wanted, () => 1e-6, `bias after step ${step}`);
    }
  });

  it('leaves no tensor of a layer that is disposed of within another', async () => {
    const trainAndDispose = async () => {
      const layer = tf.layers.mixtureOfExperts({...sizes, loadBalancingLossWeight: 1, scoreCorrectionBiasUpdateRate: 0.1});
      const model = tf.sequential({layers: [tf.layers.timeDistributed({layer, inputShape: [3, H]})]});
      const optimizer = tf.train.sgd(0.01);
      model.compile({optimizer, loss: 'meanSquaredError'});
      const [input, target] = [randomTensor(shape, 9), zeros(shape)];
      await model.trainOnBatch(input, target);
      tf.dispose([input, target]);
      model.dispose();
      optimizer.dispose();
    };
    await trainAndDispose();
    const {numTensors} = tf.memory();
    await trainAndDispose();
    expect(tf.memory().numTensors).toBe(numTensors);
  });

  it('joins the losses of a model around its model', async () => {
    const layer = tf.layers.mixtureOfExperts({...sizes, loadBalancingLossWeight: 1, inputShape: [H]});
    const model = tf.sequential({layers: [tf.sequential({layers: [layer]})]});
    model.compile({optimizer: tf.train.sgd(0.01), loss: 'meanSquaredError'});
    randomizeWeights(layer);
    const input = randomTensor([6, H], 9);
    layer.apply(input, {training: true});
    const wanted = await valueOf(layer.calculateLosses()[0]);
    const evaluated = await valueOf(model.evaluate(input, zeros([6, H])) as tf.Scalar);
    expect(await model.trainOnBatch(input, zeros([6, H]))).toBeCloseTo(evaluated + wanted, 4);
  });

  it('stays as it is if it is not trainable', async () => {
    const {layer, model} = randomizedModel({loadBalancingLossWeight: 1, scoreCorrectionBiasUpdateRate: 0.1});
    model.add(tf.layers.dense({units: 2}));
    layer.trainable = false;
    model.compile({optimizer: tf.train.sgd(0.1), loss: 'meanSquaredError'});
    const valuesOf = async () => Promise.all(layer.weights.map(async (weight) => Array.from(await weight.read().data())));
    const before = await valuesOf();
    const [input, target] = [randomTensor(shape, 9), tf.ones([2, 3, 2])];
    const evaluated = await valueOf(model.evaluate(input, target) as tf.Scalar);
    expect(await model.trainOnBatch(input, target)).toBeCloseTo(evaluated, 5);
    expect(await valuesOf()).toEqual(before);
  });

  it('stays as it is in a model that is frozen, as transfer learning does', async () => {
    const {layer, model: base} = randomizedModel({loadBalancingLossWeight: 1, scoreCorrectionBiasUpdateRate: 0.1});
    base.trainable = false;
    // Not sequential: compile of a sequential model unfreezes the weights of a model within.
    const inputs = tf.input({shape: [3, H]});
    const outputs = tf.layers.dense({units: 2}).apply(base.apply(inputs)) as tf.SymbolicTensor;
    const model = tf.model({inputs, outputs});
    model.compile({optimizer: tf.train.sgd(0.1), loss: 'meanSquaredError'});
    const valuesOf = async () => Promise.all(layer.weights.map(async (weight) => Array.from(await weight.read().data())));
    const before = await valuesOf();
    const [input, target] = [randomTensor(shape, 9), tf.ones([2, 3, 2])];
    const evaluated = await valueOf(model.evaluate(input, target) as tf.Scalar);
    expect(await model.trainOnBatch(input, target)).toBeCloseTo(evaluated, 5);
    expect(await valuesOf()).toEqual(before);
  });

  it('forgets the losses of a gradient that threw', async () => {
    const layer = layerOf({...sizes, loadBalancingLossWeight: 1}, H);
    const step = () => tf.dispose(layer.apply(randomTensor(shape, 10), {training: true}) as tf.Tensor);
    tf.tidy(step);
    const wanted = await valueOf(tf.tidy(() => layer.calculateLosses()[0]));
    expect(() => tf.variableGrads(() => {
      layer.apply(randomTensor(shape, 9), {training: true});
      throw new Error('a failed step');
    })).toThrowError('a failed step');
    tf.tidy(step);
    const {numTensors} = tf.memory();
    for (let call = 0; call < 3; call++) {
      tf.tidy(step);
      const loss = tf.tidy(() => layer.calculateLosses()[0]);
      expect(await valueOf(loss)).toBeCloseTo(wanted, 6);
      loss.dispose();
    }
    expect(tf.memory().numTensors).toBe(numTensors);
    // tfjs keeps the tape of the failed gradient until the next gradient.
    tf.grad((x: tf.Tensor) => tf.square(x))(tf.scalar(1));
  });

  it('jitters the router by its seed: alike in a new layer, unlike in the next step, not at all in prediction', async () => {
    const make = (seed: number | null) => layerOf({...sizes, topk: 4, routerJitter: 0.5, seed}, H);
    const input = randomTensor(shape, 9);
    const outputOf = async (layer: MoeLayer, training: boolean) =>
      Array.from(await (layer.apply(input, {training}) as tf.Tensor).data());
    const [first, second] = [make(7), make(7)];
    const steps = [await outputOf(first, true), await outputOf(first, true)];
    expect([await outputOf(second, true), await outputOf(second, true)]).toEqual(steps);
    expect(steps[0]).not.toEqual(steps[1]);
    expect(await outputOf(make(8), true)).not.toEqual(steps[0]);
    expect(await outputOf(make(8), true)).not.toEqual(steps[1]);
    expect(await outputOf(make(null), true)).not.toEqual(await outputOf(make(null), true));
    expect(await outputOf(first, false)).toEqual(await outputOf(layerOf({...sizes, topk: 4}, H), false));
  });

  it('learns a function that its experts can express, in fit and in fitDataset, with callbacks and batches of any size', async () => {
    const layer = tf.layers.mixtureOfExperts({...sizes, inputShape: [3, H], intermediateSize: 8});
    const model = tf.sequential({layers: [layer, tf.layers.dropout({rate: 0.01, seed: 1}), tf.layers.flatten(), tf.layers.dense({units: 1})]});
    model.compile({optimizer: tf.train.adam(0.01), loss: 'meanSquaredError'});
    randomizeWeights(model);
    const x = randomTensor([10, 3, H], 9);
    const y: tf.Tensor2D = tf.sum(x, [1, 2]).reshape([10, 1]);
    let numBatches = 0;
    const callbacks = {onBatchEnd: () => void numBatches++};
    const {history} = await model.fit(x, y, {epochs: 40, batchSize: 4, verbose: 0, callbacks});
    expect(numBatches).toBe(40 * 3);
    const losses = history.loss as number[];
    expect(losses[39]).toBeLessThan(losses[0] / 2);

    const {numTensors} = tf.memory();
    const rows = (values: tf.Tensor) => tf.data.array(tf.unstack(values));
    const dataset = tf.data.zip({xs: rows(x), ys: rows(y)}).batch(4);
    const held = tf.memory().numTensors - numTensors;
    const {history: ofDataset} = await model.fitDataset(dataset, {epochs: 2, verbose: 0});
    expect((ofDataset.loss[1] as number) < losses[0]).toBeTrue();
    expect(tf.memory().numTensors).toBe(numTensors + held);
  });

  it('takes the mask of an embedding, and no mask for other layers', async () => {
    const layer = tf.layers.mixtureOfExperts({...sizes, numSharedExperts: 1});
    const other = tf.layers.mixtureOfExperts(sizes);
    const embedding = tf.layers.embedding({inputDim: 6, outputDim: H, maskZero: true, inputLength: 3});
    const model = tf.sequential({layers: [embedding, layer, tf.layers.globalAveragePooling1d({}), other]});
    model.compile({optimizer: 'sgd', loss: 'meanSquaredError'});
    const tokens = tf.tensor2d([[1, 2, 0], [5, 0, 0]]);
    const output = model.predict(tokens) as tf.Tensor;
    expect(await valueOf(tf.sum(layer.expertLoad()))).toBe(3 * 2);
    expect(await valueOf(tf.sum(other.expertLoad()))).toBe(2 * 2);
    expect(output.shape).toEqual([2, H]);

    const rows = tf.sequential({layers: [embedding, layer]}).predict(tokens) as tf.Tensor;
    const [padded, token] = [tf.slice(rows, [1, 1, 0], [1, 2, H]), tf.slice(rows, [1, 0, 0], [1, 1, H])];
    await expectFloats(padded, new Array<number>(2 * H).fill(0), 'padding');
    expect(await valueOf(tf.max(tf.abs(token)))).toBeGreaterThan(0);
    expect(Number.isFinite((await model.trainOnBatch(tokens, zeros([2, H]))) as number)).toBeTrue();
  });
});
