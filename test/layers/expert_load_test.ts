/** expertLoad, expertLoadEntropy, droppedShare and the losses count all calls of the last batch, and no other call. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectInts, expectWithin} from '../support/expect';
import {type LayerArgs, type MoeLayer, valueOf, weightsOf} from '../support/layers';

const E = 4;
const sizes = {numExperts: E, intermediateSize: 2, topk: 1};

/** A layer of H = E whose router sends a one-hot row of `e` to expert e. */
function routedByInput(args: Partial<LayerArgs> = {}): MoeLayer {
  const layer = tf.layers.mixtureOfExperts({...sizes, ...args});
  layer.build([null, E]);
  layer.built = true;
  const [router, ...others] = layer.getWeights();
  layer.setWeights([tf.reshape(tf.mul(tf.eye(E), 8), router.shape), ...others]);
  return layer;
}

const rowsOf = (experts: number[]): tf.Tensor2D => tf.reshape(tf.cast(tf.oneHot(tf.tensor1d(experts, 'int32'), E), 'float32'), [-1, E]);
const entropyOf = (load: number[]): number => {
  const total = load.reduce((sum, count) => sum + count);
  return load.reduce((sum, count) => (count === 0 ? sum : sum - (count / total) * Math.log(count / total)), 0);
};

/** The outputs of the layer for each input by itself, one after the other. */
function modelOfTwoCalls(layer: MoeLayer): tf.LayersModel {
  const inputs = [tf.input({shape: [3, E]}), tf.input({shape: [5, E]})];
  const outputs = tf.layers.concatenate({axis: 1}).apply(inputs.map((input) => layer.apply(input) as tf.SymbolicTensor));
  const model = tf.model({inputs, outputs: outputs as tf.SymbolicTensor});
  model.compile({optimizer: tf.train.sgd(0), loss: 'meanSquaredError'});
  return model;
}
const firstInput = () => tf.reshape(rowsOf([0, 0, 1]), [1, 3, E]);
const secondInput = () => tf.reshape(rowsOf([0, 1, 2, 3, 0]), [1, 5, E]);
const loadOfBoth = [4, 2, 1, 1];

describeWithFlags('the load of a layer that a model uses twice', ALL_ENVS, () => {
  it('counts both calls, and so does the dropped share', async () => {
    const layer = routedByInput({capacityFactor: 1});
    const model = modelOfTwoCalls(layer);
    const inputs = [firstInput(), secondInput()];
    model.predict(inputs);
    const [load, entropy] = [layer.expertLoad(), layer.expertLoadEntropy()];
    // Capacity 1 of 3 rows, 2 of 5.
    model.apply(inputs, {training: true});
    const [kept, dropped] = [layer.expertLoad(), layer.droppedShare()];
    await expectInts(load, loadOfBoth, 'predicted');
    await expectWithin(entropy, [entropyOf(loadOfBoth)], () => 1e-5, 'entropy');
    await expectInts(kept, [3, 2, 1, 1], 'trained');
    await expectWithin(dropped, [1 / 8], () => 1e-6, 'dropped');
  });
});

const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};

describeWithFlags('a batch of mixtureOfExperts', cpu, () => {
  const loadOf = async (layer: MoeLayer) => Array.from(await layer.expertLoad().data());

  it('is all rows of a predict and of an evaluate, whatever their batchSize', async () => {
    const layer = routedByInput();
    const model = modelOfTwoCalls(layer);
    const inputs = [firstInput(), secondInput()].map((input) => tf.tile(input, [5, 1, 1]));
    model.predict(inputs, {batchSize: 2});
    expect(await loadOf(layer)).toEqual(loadOfBoth.map((count) => 5 * count));
    model.evaluate(inputs, tf.zeros([5, 8, E]), {batchSize: 2});
    expect(await loadOf(layer)).toEqual(loadOfBoth.map((count) => 5 * count));
    model.predictOnBatch([firstInput(), secondInput()]);
    expect(await loadOf(layer)).toEqual(loadOfBoth);
  });

  it('is the last step of fit, or all rows of its validation', async () => {
    const layer = routedByInput();
    const model = modelOfTwoCalls(layer);
    const inputs = [firstInput(), secondInput()].map((input) => tf.tile(input, [5, 1, 1]));
    const target = tf.zeros([5, 8, E]);
    const loads: number[][] = [];
    const onBatchEnd = async () => void loads.push(await loadOf(layer));
    await model.fit(inputs, target, {batchSize: 2, epochs: 1, verbose: 0, callbacks: {onBatchEnd}});
    const rows = (count: number) => loadOfBoth.map((load) => count * load);
    expect(loads).toEqual([rows(2), rows(2), rows(1)]);
    const validationData: [tf.Tensor[], tf.Tensor] = [inputs.map((input) => tf.tile(input, [2, 1, 1])), tf.tile(target, [2, 1, 1])];
    await model.fit(inputs, target, {batchSize: 2, epochs: 2, verbose: 0, validationData});
    expect(await loadOf(layer)).toEqual(rows(10));
  });

  it('is every step of timeDistributed', async () => {
    const layer = routedByInput({capacityFactor: 1});
    const model = tf.sequential({layers: [tf.layers.timeDistributed({layer, inputShape: [3, E]})]});
    model.compile({optimizer: tf.train.sgd(0), loss: 'meanSquaredError'});
    const steps = [[0, 1, 0], [0, 1, 1], [2, 1, 2], [3, 1, 3]];
    const input = tf.reshape(rowsOf(steps.flat()), [4, 3, E]);
    model.predict(input);
    expect(await loadOf(layer)).toEqual([3, 5, 2, 2]);
    // Capacity is 1 in each step. The steps have the experts 0 0 2 3, 1 1 1 1 and 0 1 2 3.
    await model.trainOnBatch(input, tf.zeros([4, 3, E]));
    expect(await loadOf(layer)).toEqual([2, 2, 2, 2]);
    expect(await valueOf(layer.droppedShare())).toBeCloseTo(4 / 12, 6);
  });

  it('includes both uses of a model that holds the layer', async () => {
    const layer = routedByInput();
    const tower = tf.sequential({layers: [tf.layers.inputLayer({inputShape: [E]}), layer]});
    const inputs = [tf.input({shape: [E]}), tf.input({shape: [E]})];
    const outputs = tf.layers.add().apply(inputs.map((input) => tower.apply(input) as tf.SymbolicTensor)) as tf.SymbolicTensor;
    const model = tf.model({inputs, outputs});
    model.compile({optimizer: tf.train.sgd(0), loss: 'meanSquaredError'});
    const given = [rowsOf([0, 1, 2]), rowsOf([0, 0, 0])];
    model.predict(given);
    expect(await loadOf(layer)).toEqual([4, 1, 1, 0]);
    await model.trainOnBatch(given, tf.zeros([3, E]));
    expect(await loadOf(layer)).toEqual([4, 1, 1, 0]);
    model.apply(given);
    expect(await loadOf(layer)).toEqual([4, 1, 1, 0]);
  });

  it('is one call outside scopes, and all calls of one outermost scope until the program awaits or asks', async () => {
    const layer = routedByInput();
    const [a, b] = [rowsOf([0, 1]), rowsOf([3])];
    const {state} = tf.engine();
    const {scopeStack, activeScope} = state;
    // A spec runs in a scope.
    Object.assign(state, {scopeStack: [], activeScope: null});
    let alone: tf.Tensor1D;
    let together: tf.Tensor1D;
    try {
      [a, b].forEach((rows) => (layer.apply(rows) as tf.Tensor).dispose());
      alone = layer.expertLoad();
      tf.tidy(() => [a, b].forEach((rows) => void tf.tidy(() => layer.apply(rows) as tf.Tensor)));
      together = layer.expertLoad();
    } finally {
      Object.assign(state, {scopeStack, activeScope});
    }
    await expectInts(alone, [0, 0, 0, 1], 'alone');
    await expectInts(together, [1, 1, 0, 1], 'together');
    tf.dispose([alone, together]);

    layer.apply(a);
    expect(await loadOf(layer)).toEqual([1, 1, 0, 0]);
    layer.apply(b);
    expect(await loadOf(layer)).withContext('after a question').toEqual([0, 0, 0, 1]);
    layer.apply(a);
    await Promise.resolve();
    layer.apply(b);
    expect(await loadOf(layer)).withContext('after a wait').toEqual([0, 0, 0, 1]);
    layer.apply(a);
    layer.apply(b, {training: true});
    expect(await loadOf(layer)).withContext('training after prediction').toEqual([0, 0, 0, 1]);
  });

  it('of a gradient goes on after a question, and after a prediction within it', async () => {
    const layer = routedByInput({loadBalancingLossWeight: 1});
    const [a, b] = [rowsOf([0, 1]), rowsOf([3])];
    const loads: tf.Tensor1D[] = [];
    const router = weightsOf(layer).router_kernel as tf.Variable;
    const {value} = tf.variableGrads(() => {
      const first = layer.apply(a, {training: true}) as tf.Tensor;
      loads.push(tf.keep(layer.expertLoad()));
      const second = layer.apply(b, {training: true}) as tf.Tensor;
      loads.push(tf.keep(layer.expertLoad()));
      layer.apply(b);
      loads.push(tf.keep(layer.expertLoad()));
      return tf.addN([tf.mul(tf.sum(first), 0), tf.mul(tf.sum(second), 0), ...layer.calculateLosses()]) as tf.Scalar;
    }, [router]);
    expect(await Promise.all(loads.map((load) => load.array()))).toEqual([[1, 1, 0, 0], [1, 1, 0, 1], [0, 0, 0, 1]]);
    const losses = [a, b].map((rows) => {
      layer.apply(rows, {training: true});
      return layer.calculateLosses()[0];
    });
    expect(await valueOf(value)).toBeCloseTo(await valueOf(tf.mean(tf.stack(losses))), 5);
  });

  it('has one loss for all of its calls, also without a gradient', async () => {
    const layer = routedByInput({loadBalancingLossWeight: 1});
    const model = modelOfTwoCalls(layer);
    const inputs = [firstInput(), secondInput()];
    const losses = inputs.map((input) => {
      layer.apply(input, {training: true});
      return layer.calculateLosses()[0];
    });
    model.apply(inputs, {training: true});
    expect(await valueOf(tf.addN(model.calculateLosses()))).toBeCloseTo(await valueOf(tf.addN(losses)), 5);
  });

  it('keeps equally many tensors for any number of calls, and none once the layer is disposed', async () => {
    const layer = routedByInput({capacityFactor: 1});
    const model = tf.sequential({layers: [tf.layers.timeDistributed({layer, inputShape: [6, E]})]});
    model.compile({optimizer: tf.train.sgd(0), loss: 'meanSquaredError'});
    const input = tf.reshape(rowsOf(Array.from({length: 24}, (_, i) => i % E)), [4, 6, E]);
    const target = tf.zeros([4, 6, E]);
    await model.trainOnBatch(input, target);
    const {numTensors} = tf.memory();
    for (let i = 0; i < 3; i++) {
      await model.trainOnBatch(input, target);
      tf.dispose(model.predict(input));
    }
    await model.trainOnBatch(input, target);
    expect(tf.memory().numTensors).toBe(numTensors);
    // Two tensors of ids, two of counts, and one loss for each step.
    model.dispose();
    expect(tf.memory().numTensors).toBe(numTensors - 3 - 4 - 6);
  });
});
