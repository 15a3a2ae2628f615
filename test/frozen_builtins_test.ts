/** Pages may freeze JavaScript's built-in objects, as SES does. Then names that objects inherit cannot be assigned. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {dropOverCapacity} from '../src/layers/expert_capacity';
import * as tf from '../src/tf';
import {expectFloats, expectInts} from './support/expect';
import {layerOf, loadedModel, randomTensor, savedModel} from './support/layers';

const builtIns = [Object, Function, Array, Error, Promise, Map, Set, Number, String, Boolean, Float32Array, Int32Array];
const prototypes = [...builtIns.map(({prototype}) => prototype as object), Object.getPrototypeOf(Float32Array.prototype) as object];

/** Runs with all properties of built-in prototypes read-only, as after Object.freeze. */
async function withFrozenBuiltIns(run: () => Promise<void>): Promise<void> {
  const frozen = prototypes.flatMap((prototype) =>
    Reflect.ownKeys(prototype).flatMap((name) => {
      const property = Object.getOwnPropertyDescriptor(prototype, name)!;
      return property.writable === true && property.configurable === true ? [{prototype, name}] : [];
    }),
  );
  const setWritable = (writable: boolean) =>
    frozen.forEach(({prototype, name}) => Object.defineProperty(prototype, name, {writable}));
  setWritable(false);
  try {
    await run();
  } finally {
    setWritable(true);
  }
}

const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};

describeWithFlags('frozen built-ins', cpu, () => {
  it('keep no layer from training', () =>
    withFrozenBuiltIns(async () => {
      const layer = layerOf(
        {
          numExperts: 4, intermediateSize: 3, capacityFactor: 0.5, dropPolicy: 'probability', scoreCorrectionBiasUpdateRate: 0.1,
          scoring: 'sigmoid', routerZLossWeight: 0.1, routerJitter: 0.1, numSharedExperts: 1, useBias: true, useRouterBias: true,
        },
        5,
      );
      const model = tf.sequential({layers: [tf.layers.inputLayer({inputShape: [5]}), layer]});
      model.compile({optimizer: 'sgd', loss: 'meanSquaredError'});
      const {history} = await model.fit(randomTensor([6, 5], 1), randomTensor([6, 5], 2), {epochs: 2, verbose: 0});
      expect(history.loss.every((loss) => Number.isFinite(loss))).toBeTrue();
      expect((await layer.expertLoad().data()).every((count) => count <= 2)).withContext('load').toBeTrue();
    }));

  it('keep no layer from a file', () =>
    withFrozenBuiltIns(async () => {
      const layer = tf.layers.mixtureOfExperts({numExperts: 2, intermediateSize: 2, useBias: true, kernelRegularizer: 'l1l2', inputShape: [5]});
      const model = tf.sequential({layers: [layer]});
      const loaded = await loadedModel(await savedModel(model));
      const predicted = async (by: tf.LayersModel) => (await (by.predict(randomTensor([6, 5], 1)) as tf.Tensor).data()) as Float32Array;
      expect(await predicted(loaded)).toEqual(await predicted(model));
    }));
});

describeWithFlags('frozen built-ins', ALL_ENVS, () => {
  it('keep no kernel from its result', () =>
    withFrozenBuiltIns(async () => {
      const {permutedHiddenStates, invPermutedIdx} = tf.moePermute([[1], [2]], [[1], [0]], 2, {a1qScale: [[1], [1]], expertMap: [0, 1]});
      await expectFloats(tf.moeUnpermute(permutedHiddenStates, [[1], [1]], invPermutedIdx), [1, 2], 'merged');
      await expectInts(tf.moeAlignBlockSize([[0]], 2, 1).numTokensPostPad, [2], 'numTokensPostPad');
      const {topkIds, topkWeights} = tf.moeTopk(tf.tensor2d([[1, 2], [1, 3]]), 1, {renormalize: false});
      await expectInts(dropOverCapacity(topkIds, topkWeights, 1, {numExperts: 2, numZeroExperts: 0, dropPolicy: 'probability'}), [-1, 1], 'kept');
    }));
});
