/** A batch without tokens is an ordinary batch of the layer, on every backend. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectInts} from '../support/expect';
import {layerOf, weightsOf} from '../support/layers';

const H = 3;

describeWithFlags('mixtureOfExperts of no tokens', ALL_ENVS, () => {
  const layerOfAll = () =>
    layerOf({
      numExperts: 4, intermediateSize: 2, useBias: true, useRouterBias: true, numSharedExperts: 1, sharedExpertGate: true,
      capacityFactor: 0.5, scoreCorrectionBiasUpdateRate: 0.1, loadBalancingLossWeight: 1, routerZLossWeight: 1, routerJitter: 0.1,
    }, H);

  it('has an empty output, no load and no dropped assignments', async () => {
    const layer = layerOfAll();
    for (const shape of [[0, H], [2, 0, H]]) {
      for (const training of [false, true]) {
        const output = layer.apply(tf.zeros(shape), {training}) as tf.Tensor;
        const context = `${shape}, training: ${training}`;
        const numbers = [layer.expertLoadEntropy(), layer.droppedShare(), ...layer.calculateLosses()];
        expect(output.shape).withContext(context).toEqual(shape);
        await expectInts(layer.expertLoad(), [0, 0, 0, 0], context);
        const values = await Promise.all([output, ...numbers].map(async (tensor) => Array.from(await tensor.data())));
        expect(values).withContext(context).toEqual([[], [0], [0], [0]]);
      }
    }
  });

  it('gives no weight a gradient, and leaves its bias', async () => {
    const layer = layerOfAll();
    const before = await weightsOf(layer).score_correction_bias.data();
    const variables = layer.trainableWeights.map((weight) => weight.read() as tf.Variable);
    const {grads, value} = tf.variableGrads(() => {
      const output = layer.apply(tf.zeros([0, H]), {training: true}) as tf.Tensor2D;
      // Not every backend has sums over nothing.
      return tf.addN([tf.sum(tf.concat([output, tf.zeros([1, H])])), ...layer.calculateLosses()]) as tf.Scalar;
    }, variables);
    const [values, after, loss] = await Promise.all([
      Promise.all(variables.map(({name}) => grads[name].data())),
      weightsOf(layer).score_correction_bias.data(),
      value.data(),
    ]);
    expect(values.flatMap((gradient) => Array.from(gradient)).every((x) => x === 0)).toBeTrue();
    expect(values.map(({length}) => length)).toEqual(variables.map(({size}) => size));
    expect(after).toEqual(before);
    expect(loss[0]).toBe(0);
  });

  it('passes an empty gradient on to its input', () => {
    const layer = layerOf({numExperts: 2, intermediateSize: 2}, H);
    const sumOf = (x: tf.Tensor) => tf.sum(tf.concat([layer.apply(x) as tf.Tensor2D, tf.zeros([1, H])]));
    expect(tf.grad(sumOf)(tf.zeros([0, H])).shape).toEqual([0, H]);
  });
});
