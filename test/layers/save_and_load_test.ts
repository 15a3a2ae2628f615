/** What a file keeps of the layer, for the same backend and for other backends. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import type {ExpertFormatArgs} from '../../src/layers/index';
import * as tf from '../../src/tf';
import {expectFloats, expectWithin} from '../support/expect';
import {type LayerArgs, loadedModel, type MoeLayer, onCpu, randomizeWeights, randomTensor, savedModel} from '../support/layers';

const sizes = {numExperts: 4, intermediateSize: 3};
const H = 5;
const shape = [2, 3, H];
type LayersOwn = 'batchInputShape' | 'batchSize' | 'dtype' | 'inputDType' | 'weights';
/** Every option but those of quantized experts, each with a value other than its default. */
const everyOption: Omit<Required<LayerArgs>, LayersOwn | keyof ExpertFormatArgs> = {
  ...sizes,
  name: 'mixture',
  trainable: false,
  inputShape: [3, H],
  topk: 3,
  scoring: 'sqrtSoftplus',
  renormalize: false,
  numExpertGroups: 2,
  topkGroups: 2,
  sparsemixerJitter: 0.25,
  routedScalingFactor: 2.5,
  activation: 'geluTanh',
  gated: false,
  swigluAlpha: 1.5,
  swigluLimit: 3,
  numZeroExperts: 2,
  applyRouterWeightOnInput: true,
  useBias: true,
  useRouterBias: true,
  numSharedExperts: 2,
  sharedIntermediateSize: 7,
  sharedExpertGate: true,
  loadBalancingLossWeight: 0.5,
  loadBalancingLossPer: 'sequence',
  routerZLossWeight: 0.25,
  useScoreCorrectionBias: true,
  scoreCorrectionBiasUpdateRate: 0.125,
  routerJitter: 0.5,
  seed: 3,
  capacityFactor: 1.5,
  dropPolicy: 'position',
  kernelInitializer: 'heNormal',
  routerInitializer: 'randomUniform',
  biasInitializer: 'ones',
  kernelRegularizer: 'l1l2',
  biasRegularizer: 'l1l2',
  kernelConstraint: 'nonNeg',
  biasConstraint: 'nonNeg',
};

function modelOf(args: Partial<LayerArgs>): tf.LayersModel {
  const input = tf.input({shape: [3, H]});
  const experts = tf.layers.mixtureOfExperts({...sizes, ...args}).apply(input) as tf.SymbolicTensor;
  const model = tf.model({inputs: input, outputs: tf.layers.dense({units: 2}).apply(experts) as tf.SymbolicTensor});
  randomizeWeights(model);
  return model;
}

const predicted = (model: tf.LayersModel) => (model.predict(randomTensor(shape, 9)) as tf.Tensor).data() as Promise<Float32Array>;

describeWithFlags('mixtureOfExperts in a file', ALL_ENVS, () => {
  const args = {useBias: true, numSharedExperts: 1, scoreCorrectionBiasUpdateRate: 0.1};

  it('is loaded without drawing weights first', async () => {
    const model = modelOf(args);
    const artifacts = await savedModel(model);
    const loading = await tf.profile(async () => {
      await loadedModel(artifacts);
      return [];
    });
    expect(loading.kernelNames).toEqual([]);
  });

  it('keeps its weights to the bit, and the predictions of a model', async () => {
    const model = modelOf(args);
    const [wanted, loaded] = [await predicted(model), await loadedModel(await savedModel(model))];
    await expectFloats(tf.tensor1d(await predicted(loaded)), wanted, 'predicted');
    const values = await Promise.all(model.getWeights().map((weight) => weight.data()));
    await Promise.all(loaded.getWeights().map((weight, i) => expectFloats(weight, values[i] as Float32Array, `weight ${i}`)));
  });

  it('predicts alike on the cpu and on this backend, wherever it was saved', async () => {
    const [fromCpu, wanted] = await onCpu(async () => {
      const model = modelOf(args);
      return [await savedModel(model), await predicted(model)];
    });
    const loaded = await loadedModel(fromCpu);
    await expectWithin(tf.tensor1d(await predicted(loaded)), wanted, () => 1e-5, 'loaded from the cpu');
    const fromHere = await savedModel(loaded);
    const onceMore = await onCpu(async () => predicted(await loadedModel(fromHere)));
    await expectFloats(tf.tensor1d(onceMore), wanted, 'back on the cpu');
  });
});

const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};

describeWithFlags('mixtureOfExperts that a file is about to fill', cpu, () => {
  it('draws nothing, also within timeDistributed and within a model', async () => {
    const layer = () => tf.layers.mixtureOfExperts({...sizes, numSharedExperts: 1, inputShape: [3, H]});
    const wrapped = tf.layers.timeDistributed({layer: tf.layers.mixtureOfExperts(sizes), inputShape: [3, H]});
    // Each draw of tfjs begins with a random seed.
    const draws = spyOn(Math, 'random').and.callThrough();
    for (const makeLayer of [layer, () => wrapped, () => tf.sequential({layers: [layer()]})]) {
      const model = tf.sequential({layers: [makeLayer()]});
      expect(draws).toHaveBeenCalled();
      const saved = await savedModel(model);
      draws.calls.reset();
      await loadedModel(saved);
      expect(draws).withContext(model.layers[0].name).not.toHaveBeenCalled();
    }
  });
});

describeWithFlags('the config of mixtureOfExperts', cpu, () => {
  /** A copy with null for undefined, as in a file. tfjs writes into the configs that it is given. */
  const copyOf = (config: tf.serialization.ConfigDict): tf.serialization.ConfigDict =>
    JSON.parse(JSON.stringify(config, (_, value: unknown) => value ?? null)) as tf.serialization.ConfigDict;
  const ofModel = (model: tf.LayersModel) => copyOf(model.layers[1].getConfig());

  it('has every option, and makes a layer of the same config', () => {
    const config = tf.layers.mixtureOfExperts(everyOption).getConfig();
    expect(Object.keys(everyOption).filter((name) => name !== 'inputShape' && config[name] == null)).toEqual([]);
    for (const [name, value] of Object.entries(everyOption)) {
      if (!/Initializer|Regularizer|Constraint|inputShape/.test(name)) {
        expect(config[name]).withContext(name).toEqual(value as string);
      }
    }
    const MixtureOfExperts = tf.layers.mixtureOfExperts(sizes).constructor as unknown as {
      fromConfig: (cls: unknown, config: tf.serialization.ConfigDict) => MoeLayer;
    };
    const again = MixtureOfExperts.fromConfig(MixtureOfExperts, copyOf(config)).getConfig();
    expect(copyOf(again)).toEqual(copyOf(config));
  });

  it('is a new object each time', () => {
    const layer = tf.layers.mixtureOfExperts(everyOption);
    const before = copyOf(layer.getConfig());
    const {kernelInitializer, kernelRegularizer} = layer.getConfig() as {[name: string]: {config: {[key: string]: unknown}}};
    kernelInitializer.config.seed = 99;
    kernelRegularizer.config.l2 = 99;
    expect(copyOf(layer.getConfig())).toEqual(before);
  });

  it('is the same after a file', async () => {
    const {name: _name, inputShape: _inputShape, ...args} = everyOption;
    for (const scoring of ['softmax', 'softmaxAfterTopk', 'sigmoid', 'sqrtSoftplus', 'sparsemixer'] as const) {
      const hasScores = scoring !== 'softmaxAfterTopk' && scoring !== 'sparsemixer';
      const rateOf = hasScores ? {} : {useScoreCorrectionBias: false, scoreCorrectionBiasUpdateRate: 0};
      const groupsOf = scoring === 'sparsemixer' ? {numExpertGroups: null, topkGroups: null} : {};
      const model = modelOf({...args, scoring, ...rateOf, ...groupsOf});
      const loaded = await loadedModel(await savedModel(model));
      expect(ofModel(loaded)).withContext(scoring).toEqual(ofModel(model));
    }
    for (const activation of ['linear', 'relu', 'relu2', 'silu', 'swish', 'gelu', 'geluTanh', 'geluNew', 'swigluOai'] as const) {
      const loaded = await loadedModel(await savedModel(modelOf({activation})));
      expect(ofModel(loaded).activation).toBe(activation);
    }
  });

  it('may have options in snake_case', () => {
    const snakeCase = {scoring: 'softmax_after_topk', activation: 'gelu_tanh', kernelInitializer: 'he_normal'} as unknown as LayerArgs;
    const {scoring, activation} = tf.layers.mixtureOfExperts({...snakeCase, ...sizes}).getConfig();
    expect([scoring, activation]).toEqual(['softmaxAfterTopk', 'geluTanh']);
  });

  it('may have undefined and null for options that are not given', () => {
    const nothing = Object.fromEntries(Object.keys(everyOption).map((name) => [name, null]));
    const config = tf.layers.mixtureOfExperts({...nothing, ...sizes, name: 'a', trainable: true}).getConfig();
    expect(config).toEqual(tf.layers.mixtureOfExperts({...sizes, name: 'a', topk: undefined}).getConfig());
  });
});
