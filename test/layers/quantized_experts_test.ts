/** The layer with quantized experts, beside one whose float32 experts have the values of the codes. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectFloats, expectWithin} from '../support/expect';
import {lcg} from '../support/routings';
import {type LayerArgs, loadedModel, type MoeLayer, onCpu, randomTensor, savedModel, valueOf, weightsOf} from '../support/layers';

const sizes = {numExperts: 4, intermediateSize: 8};
const H = 24;
const shape = [2, 3, H];
const bound = (_: number, wanted: number) => 1e-5 * Math.abs(wanted) + 1e-5;
const everyPart: LayerArgs = {...sizes, useBias: true, useRouterBias: true, numSharedExperts: 1, sharedExpertGate: true, useScoreCorrectionBias: true, applyRouterWeightOnInput: true};

type Options = NonNullable<Parameters<typeof tf.quantizeMixtureOfExperts>[1]>;
const everyFormat: Record<string, Options> = {
  int4: {groupSize: 16},
  'int4 with offsets': {groupSize: 16, symmetric: false, scaleFormat: 'bfloat16'},
  int8: {format: 'int8', scaleFormat: 'float16'},
  fp4: {format: 'fp4', groupSize: 16},
  float8: {format: 'float8', groupSize: 1024},
  bfloat16: {format: 'bfloat16'},
};

/** A float32 layer in a model that gives it its names, with random weights. */
function floatLayer(args: LayerArgs, inputShape: number[] = [3, H]): MoeLayer {
  const layer = tf.layers.mixtureOfExperts({...args, inputShape});
  tf.sequential({layers: [layer]});
  layer.setWeights(layer.weights.map((weight, i) => randomTensor(weight.shape as number[], i + 1)));
  return layer;
}

/** w1 or w2 of a layer of quantized experts, as the ops take it. */
function quantizedOf(layer: MoeLayer, name: 'w1' | 'w2'): tf.QuantizedWeights {
  const {expertFormat, expertGroupSize, expertScaleFormat, expertZeroPoint} = layer.getConfig();
  const weights = weightsOf(layer);
  const numIn = name === 'w1' ? H : sizes.intermediateSize;
  const [numExperts, numOut] = weights[`${name}_codes`].shape;
  return {
    format: expertFormat as tf.QuantizedFormat, shape: [numExperts, numOut, numIn], codes: weights[`${name}_codes`],
    groupSize: (expertGroupSize as number | null) ?? undefined, scales: weights[`${name}_scales`],
    scaleFormat: (expertScaleFormat as tf.ScaleFormat | null) ?? undefined,
    zeroPoint: (expertZeroPoint as number | null) ?? undefined, offsets: weights[`${name}_offsets`],
  };
}

/** The quantized layer, and a float32 layer with the same values, which stands for it. */
function pairOf(args: LayerArgs, options: Options): {quantized: MoeLayer; standIn: MoeLayer} {
  const float = floatLayer(args);
  const quantized = tf.quantizeMixtureOfExperts(float, options);
  const values = weightsOf(float);
  for (const name of ['w1', 'w2'] as const) {
    values[name] = tf.moeDequantizeWeights(quantizedOf(quantized, name));
  }
  const standIn = floatLayer(args);
  standIn.setWeights(Object.keys(weightsOf(standIn)).map((name) => values[name]));
  return {quantized, standIn};
}

const wordsOf = async (tensor: tf.Tensor) => Array.from(await tensor.data());
/** All 32 bits of a word are in use. */
function randomWords(wordShape: number[], seed: number): tf.Tensor {
  const next = lcg(seed);
  return tf.tensor(Int32Array.from({length: tf.util.sizeFromShape(wordShape)}, () => Math.floor(next() * 2 ** 32) | 0), wordShape, 'int32');
}

describeWithFlags('mixtureOfExperts of quantized experts', ALL_ENVS, () => {
  for (const [name, options] of Object.entries(everyFormat)) {
    it(`computes with the values of its codes: ${name}`, async () => {
      const {quantized, standIn} = pairOf(everyPart, options);
      const x = randomTensor(shape, 9);
      const wanted = await (standIn.apply(x) as tf.Tensor).data();
      await expectWithin(quantized.apply(x) as tf.Tensor, wanted as Float32Array, bound, 'output');
    });
  }

  it('has the gradients, losses and loads of float32 experts in training', async () => {
    const args: LayerArgs = {...everyPart, loadBalancingLossWeight: 0.3, routerZLossWeight: 0.2, capacityFactor: 0.8};
    const {quantized, standIn} = pairOf(args, {groupSize: 16});
    const resultsOf = async (layer: MoeLayer) => {
      const train = (x: tf.Tensor) => {
        const output = layer.apply(x, {training: true}) as tf.Tensor;
        return tf.addN([tf.sum(tf.mul(output, randomTensor(shape, 77))), ...layer.calculateLosses()]) as tf.Scalar;
      };
      const x = tf.variable(randomTensor(shape, 9));
      const variables = layer.trainableWeights.map((weight) => [weight.originalName.split('/').pop()!, weight.read() as tf.Variable] as const);
      const {value, grads} = tf.variableGrads(() => train(x), [x, ...variables.map(([, variable]) => variable)]);
      const named: Array<[string, tf.Tensor]> = variables.map(([weightName, variable]) => [weightName, grads[variable.name]]);
      return {loss: await valueOf(value), load: await layer.expertLoad().array(), grads: {input: grads[x.name], ...Object.fromEntries(named)}};
    };
    const [given, wanted] = [await resultsOf(quantized), await resultsOf(standIn)];
    expect(given.loss).toBeCloseTo(wanted.loss, 3);
    expect(given.load).toEqual(wanted.load);
    expect(Object.keys(given.grads)).toEqual([
      'input', 'router_kernel', 'router_bias', 'w1_bias', 'w2_bias', 'shared_w1', 'shared_w2', 'shared_gate',
    ]);
    for (const [name, gradient] of Object.entries(given.grads)) {
      const values = (await (wanted.grads as Record<string, tf.Tensor>)[name].data()) as Float32Array;
      expect(values.some((value) => value !== 0)).withContext(name).toBeTrue();
      await expectWithin(gradient, values, (_, value) => 1e-4 * Math.abs(value) + 1e-4, name);
    }
  });

  it('ignores masked tokens', async () => {
    const layer = tf.quantizeMixtureOfExperts(floatLayer(sizes), {groupSize: 16});
    const output = layer.apply(randomTensor([1, 3, H], 9), {mask: tf.tensor2d([[true, false, true]], [1, 3], 'bool')}) as tf.Tensor;
    expect((await valueOf(tf.sum(tf.abs(tf.slice(output, [0, 1], [1, 1]))))) === 0).toBeTrue();
    expect((await layer.expertLoad().array()).reduce((sum, count) => sum + count)).toBe(4);
  });

  it('trains its router and leaves its codes', async () => {
    const layer = tf.quantizeMixtureOfExperts(floatLayer(sizes), {groupSize: 16});
    const model = tf.sequential({layers: [layer]});
    model.compile({optimizer: tf.train.sgd(0.1), loss: 'meanSquaredError'});
    const [x, y] = [randomTensor(shape, 9), randomTensor(shape, 10)];
    const valuesOf = async () => Object.fromEntries(
      await Promise.all(Object.entries(weightsOf(layer)).map(async ([name, weight]) => [name, await wordsOf(weight)] as const)),
    );
    const before = await valuesOf();
    await model.trainOnBatch(x, y);
    const {numTensors} = tf.memory();
    for (let step = 0; step < 3; step++) {
      await model.trainOnBatch(x, y);
    }
    expect(tf.memory().numTensors).toBe(numTensors);
    const {router_kernel: router, ...codes} = await valuesOf();
    const {router_kernel: routerBefore, ...codesBefore} = before;
    expect(codes).toEqual(codesBefore);
    expect(router).not.toEqual(routerBefore);
  });
});

/** A model of a layer whose codes have arbitrary bits, and scales too. */
function modelOfWords(args: Partial<LayerArgs> = {}): {model: tf.LayersModel; layer: MoeLayer} {
  const layer = tf.layers.mixtureOfExperts({...sizes, expertFormat: 'int4', expertGroupSize: 16, inputShape: [3, H], ...args});
  const model = tf.sequential({layers: [layer, tf.layers.dense({units: 2})]});
  model.setWeights(model.weights.map(({shape: weightShape, dtype}, i) =>
    dtype === 'int32' ? randomWords(weightShape as number[], i + 1) : randomTensor(weightShape as number[], i + 1)));
  return {model, layer};
}

describeWithFlags('the weights of quantized experts', ALL_ENVS, () => {
  it('keep all bits of their words from setWeights to getWeights, and through a file', async () => {
    const {model} = modelOfWords({expertScaleFormat: 'float16', useExpertOffsets: true});
    const wanted = await Promise.all(model.getWeights().map(wordsOf));
    expect(wanted.flat().some((word) => Math.abs(word) > 2 ** 30)).toBeTrue();
    const words = model.getWeights().map(({shape: weightShape, dtype}, i) => dtype === 'int32' ? randomWords(weightShape, i + 1) : undefined);
    for (const [i, tensor] of words.entries()) {
      if (tensor != null) {
        expect(wanted[i]).withContext(`weight ${i}`).toEqual(await wordsOf(tensor));
      }
    }
    const loaded = await loadedModel(await savedModel(model));
    const again = await loadedModel(await savedModel(loaded));
    for (const each of [loaded, again]) {
      expect(await Promise.all(each.getWeights().map(wordsOf))).toEqual(wanted);
    }
    loaded.setWeights(again.getWeights());
    again.dispose();
    expect(await Promise.all(loaded.getWeights().map(wordsOf))).toEqual(wanted);
  });

  it('keep all bits after a prediction, and predict the same through a file and from the cpu', async () => {
    const x = () => randomTensor(shape, 9);
    const [fromCpu, wanted] = await onCpu(async () => {
      const {model} = modelOfWords();
      return [await savedModel(model), await (model.predict(x()) as tf.Tensor).data()];
    });
    const model = await loadedModel(fromCpu);
    const size = Math.max(...(wanted as Float32Array).map(Math.abs));
    await expectWithin(model.predict(x()) as tf.Tensor, wanted as Float32Array, () => 1e-5 * size, 'from the cpu');
    const saved = await savedModel(model);
    expect(new Uint8Array(saved.weightData as ArrayBuffer)).toEqual(new Uint8Array(fromCpu.weightData as ArrayBuffer));
    const predicted = (await (model.predict(x()) as tf.Tensor).data()) as Float32Array;
    await expectFloats((await loadedModel(saved)).predict(x()) as tf.Tensor, predicted, 'from a file');
  });
});

const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};

describeWithFlags('mixtureOfExperts with an expertFormat', cpu, () => {
  const specsOf = (layer: tf.layers.Layer) => layer.weights.map(({originalName, dtype, shape: weightShape}) =>
    [originalName, dtype, ...weightShape] as unknown[]);
  const build = (args: Partial<LayerArgs>) => {
    const layer = tf.layers.mixtureOfExperts({...everyPart, name: 'experts', inputShape: [3, H], ...args});
    tf.sequential({layers: [layer]});
    return layer;
  };

  it('has codes, scales and offsets in place of w1 and w2', () => {
    const trainable = [
      ['experts/router_kernel', 'float32', H, 4], ['experts/router_bias', 'float32', 4], ['experts/w1_bias', 'float32', 4, 16],
      ['experts/w2_bias', 'float32', 4, H], ['experts/shared_w1', 'float32', 16, H], ['experts/shared_w2', 'float32', H, 8],
      ['experts/shared_gate', 'float32', H, 1],
    ];
    const last = ['experts/score_correction_bias', 'float32', 4];
    expect(specsOf(build({expertFormat: 'int4', useExpertOffsets: true}))).toEqual([
      ...trainable,
      ['experts/w1_codes', 'int32', 4, 16, 3], ['experts/w1_scales', 'float32', 4, 16, 1], ['experts/w1_offsets', 'float32', 4, 16, 1],
      ['experts/w2_codes', 'int32', 4, H, 1], ['experts/w2_scales', 'float32', 4, H, 1], ['experts/w2_offsets', 'float32', 4, H, 1],
      last,
    ]);
    expect(specsOf(build({expertFormat: 'fp4', expertGroupSize: 16}))).toEqual([
      ...trainable,
      ['experts/w1_codes', 'int32', 4, 16, 3], ['experts/w1_scales', 'int32', 32],
      ['experts/w2_codes', 'int32', 4, H, 1], ['experts/w2_scales', 'int32', 24],
      last,
    ]);
    expect(specsOf(build({expertFormat: 'float16'}))).toEqual([
      ...trainable, ['experts/w1_codes', 'int32', 4, 16, 12], ['experts/w2_codes', 'int32', 4, H, 4], last,
    ]);
    expect(build({expertFormat: 'int8'}).nonTrainableWeights.length).toBe(5);
  });

  it('is 0 until it is filled, and computes nothing to be built', async () => {
    const profile = await tf.profile(async () => {
      const layer = tf.layers.mixtureOfExperts({...sizes, expertFormat: 'int4', routerInitializer: 'zeros'});
      layer.build([null, H]);
      return [];
    });
    expect(profile.kernelNames).toEqual([]);
    for (const expertFormat of ['int4', 'fp4', 'float8', 'float16'] as const) {
      const layer = tf.layers.mixtureOfExperts({...sizes, expertFormat});
      await expectFloats(layer.apply(randomTensor([2, H], 1)) as tf.Tensor, new Float32Array(2 * H), expertFormat);
    }
  });

  it('has a config that says how codes are made, also after a file', async () => {
    const configOf = ({layers}: tf.LayersModel) => {
      const {expertFormat, expertGroupSize, expertScaleFormat, expertZeroPoint, useExpertOffsets} = layers[0].getConfig();
      return [expertFormat, expertGroupSize, expertScaleFormat, expertZeroPoint, useExpertOffsets];
    };
    const cases: Array<[args: Partial<LayerArgs>, config: tf.serialization.ConfigDictValue[]]> = [
      [{}, ['float32', null, null, null, false]],
      [{expertFormat: 'int4'}, ['int4', 32, 'float32', 8, false]],
      [{expertFormat: 'int4', expertZeroPoint: 7, expertGroupSize: 16, expertScaleFormat: 'bfloat16'}, ['int4', 16, 'bfloat16', 7, false]],
      [{expertFormat: 'int8', useExpertOffsets: true, expertScaleFormat: 'float16'}, ['int8', 32, 'float16', null, true]],
      [{expertFormat: 'fp4'}, ['fp4', 32, 'e8m0', null, false]],
      [{expertFormat: 'float8', expertGroupSize: 128}, ['float8', 128, 'float32', null, false]],
      [{expertFormat: 'bfloat16'}, ['bfloat16', null, null, null, false]],
    ];
    for (const [args, config] of cases) {
      const model = tf.sequential({layers: [tf.layers.mixtureOfExperts({...sizes, inputShape: [H], ...args})]});
      const loaded = await loadedModel(await savedModel(model));
      expect([configOf(model), configOf(loaded)]).toEqual([config, config]);
    }
  });

  it('uses its zero point', async () => {
    const weights = (zeroPoint: number) => {
      const layer = tf.layers.mixtureOfExperts({...sizes, expertFormat: 'int4', expertZeroPoint: zeroPoint, activation: 'linear', gated: false});
      layer.build([null, H]);
      // Codes of 7, and scales of 1.
      const words = layer.weights.map(({shape: weightShape, dtype}) =>
        dtype === 'int32' ? tf.fill(weightShape as number[], 0x77777777, 'int32') : tf.ones(weightShape as number[]));
      layer.setWeights(words);
      return layer;
    };
    await expectFloats(weights(7).apply(tf.ones([1, H])) as tf.Tensor, new Float32Array(H), 'zero point 7');
    // Two experts whose router weights add up to 1: (7 - 6) * (7 - 6) over H inputs and I columns.
    await expectFloats(weights(6).apply(tf.ones([1, H])) as tf.Tensor, new Float32Array(H).fill(H * 8), 'zero point 6');
  });

  const refused: Array<[args: object, message: string]> = [
    [{expertFormat: 'int3'}, "expertFormat must be one of float32, int4, int8, fp4, float8, float16, bfloat16, but is 'int3'."],
    [{expertGroupSize: 32}, "expertGroupSize must not be given for expertFormat 'float32', which has no scales."],
    [{expertFormat: 'float16', expertScaleFormat: 'float16'},
      "expertScaleFormat must not be given for expertFormat 'float16', which has no scales."],
    [{expertFormat: 'fp4', expertZeroPoint: 7}, "expertZeroPoint must not be given for expertFormat 'fp4', which has no zero point."],
    [{expertFormat: 'float8', useExpertOffsets: true}, "useExpertOffsets must not be given for expertFormat 'float8', which has no offsets."],
    [{expertFormat: 'int4', useExpertOffsets: 1}, 'useExpertOffsets must be a boolean, but is 1.'],
    [{expertFormat: 'int4', expertGroupSize: H}, 'expertGroupSize must be a multiple of 16, but is 24.'],
    [{expertFormat: 'int4', expertScaleFormat: 'int8'}, "expertScaleFormat must be one of float32, float16, bfloat16, e8m0, but is 'int8'."],
    [{expertFormat: 'int4', expertZeroPoint: 16}, 'expertZeroPoint must be an integer 0 to 15 for int4, but is 16.'],
    [{expertFormat: 'int8', expertZeroPoint: 128, useExpertOffsets: true},
      'expertZeroPoint must not be given with useExpertOffsets, but is 128.'],
    [{expertFormat: 'int4', intermediateSize: 12}, 'intermediateSize must be a multiple of 8 for int4, whole words, but is 12.'],
    [{expertFormat: 'int4', inputShape: [12]}, 'the last axis of the input (H) must be a multiple of 8 for int4, whole words, but is 12.'],
  ];
  for (const [args, message] of refused) {
    it(`refuses ${JSON.stringify(args)}`, () => {
      const before = tf.memory().numTensors;
      expect(() => tf.sequential({layers: [tf.layers.mixtureOfExperts({...sizes, ...args} as LayerArgs)]}))
        .toThrowError(`Error in mixtureOfExperts: ${message}`);
      expect(tf.memory().numTensors).toBe(before);
    });
  }
});

describeWithFlags('quantizeMixtureOfExperts', cpu, () => {
  const namesOf = (layer: tf.layers.Layer) => layer.weights.map(({originalName}) => originalName);

  it('makes a layer of the same name, config and router, and leaves the first as it was', async () => {
    const layer = floatLayer({...everyPart, name: 'mixture', kernelInitializer: 'heNormal', trainable: false});
    const before = await Promise.all(layer.getWeights().map(wordsOf));
    const {numTensors} = tf.memory();
    const quantized = tf.quantizeMixtureOfExperts(layer);
    expect(tf.memory().numTensors).toBe(numTensors + quantized.weights.length);
    expect(quantized.getConfig()).toEqual({
      ...layer.getConfig(), expertFormat: 'int4', expertGroupSize: 32, expertScaleFormat: 'float32', expertZeroPoint: 8,
    });
    expect(namesOf(quantized)).toContain('mixture/w1_codes');
    const kept = Object.entries(weightsOf(quantized)).filter(([name]) => !/^w[12]_(codes|scales)$/.test(name));
    for (const [name, weight] of kept) {
      await expectFloats(weight, (await weightsOf(layer)[name].data()) as Float32Array, name);
    }
    expect(await wordsOf(weightsOf(quantized).w1_codes)).toEqual(await wordsOf(tf.moeQuantizeWeights(weightsOf(layer).w1).codes));
    // Neither layer holds what the other has.
    tf.dispose(layer.getWeights());
    const weights = quantized.getWeights();
    const values = await Promise.all(weights.map(wordsOf));
    expect(before.length + 2).toBe(values.length);
    expect(before[0]).toEqual(values[0]);
    const model = tf.sequential({layers: [quantized]});
    model.dispose();
    expect(weights.every(({isDisposed}) => isDisposed)).toBeTrue();
  });

  it('draws no weights', () => {
    const layer = floatLayer(everyPart);
    const draws = spyOn(Math, 'random').and.callThrough();
    tf.quantizeMixtureOfExperts(layer);
    expect(draws).not.toHaveBeenCalled();
  });

  it('makes a layer whose names are those of files, so that models of several layers are saved and loaded', async () => {
    const layers = ['one', 'two'].map((name) => tf.quantizeMixtureOfExperts(floatLayer({...sizes, name})));
    const model = tf.sequential({layers});
    const loaded = await loadedModel(await savedModel(model));
    const x = randomTensor(shape, 9);
    await expectFloats(loaded.predict(x) as tf.Tensor, (await (model.predict(x) as tf.Tensor).data()) as Float32Array, 'predicted');
    expect(loaded.layers.map(({weights}) => weights.length)).toEqual([5, 5]);
  });

  it('makes a layer for timeDistributed of the same name, saved and loaded', async () => {
    const modelOf = (layer: MoeLayer) => tf.sequential({
      layers: [tf.layers.timeDistributed({layer, name: 'each', inputShape: [3, H]}), tf.layers.dense({units: 1})],
    });
    const layer = tf.layers.mixtureOfExperts(sizes);
    modelOf(layer);
    const model = modelOf(tf.quantizeMixtureOfExperts(layer));
    const loaded = await loadedModel(await savedModel(model));
    const x = randomTensor(shape, 9);
    await expectFloats(loaded.predict(x) as tf.Tensor, (await (model.predict(x) as tf.Tensor).data()) as Float32Array, 'predicted');
  });

  it('gives a file of int4 that is a seventh of the size', async () => {
    const layer = floatLayer({numExperts: 8, intermediateSize: 64}, [3, 64]);
    const bytesOf = async (each: MoeLayer) =>
      ((await savedModel(tf.sequential({layers: [each]}))).weightData as ArrayBuffer).byteLength;
    const quantized = tf.quantizeMixtureOfExperts(layer, {groupSize: 64, scaleFormat: 'float16'});
    expect((await bytesOf(layer)) / (await bytesOf(quantized))).toBeGreaterThan(7);
  });

  const unbuilt = () => tf.layers.mixtureOfExperts({...sizes, name: 'unbuilt'});
  const named = (args: Partial<LayerArgs> = {}, hiddenSize = H) => floatLayer({...sizes, name: 'moe', ...args}, [hiddenSize]);
  const refused: Array<[what: string, layer: () => unknown, options: object | undefined, message: string]> = [
    ['nothing', () => undefined, undefined, 'layer must be a MixtureOfExperts layer, but is undefined.'],
    ['a dense layer', () => tf.layers.dense({units: 1}), undefined, 'layer must be a MixtureOfExperts layer, but is a Dense.'],
    ['a layer that is not built', unbuilt, undefined,
      "layer 'unbuilt' must be built, but has no weights. Call it, or its model, once first."],
    ['quantized experts', () => tf.quantizeMixtureOfExperts(named()), undefined,
      "layer 'moe' must have experts in float32, but has them in int4."],
    ['an unknown format', named, {format: 'float32'},
      "format must be one of int4, int8, fp4, float8, float16, bfloat16, but is 'float32'."],
    ['an unknown option', named, {bits: 4}, "unknown option 'bits'. The options are format, groupSize, symmetric, scaleFormat."],
    ['a group size of no whole groups', named, {groupSize: H}, 'groupSize must be a multiple of 16, but is 24.'],
    ['scales without a sign', named, {scaleFormat: 'e8m0'}, "scaleFormat must not be 'e8m0' for int4, whose scales and offsets have a sign."],
    ['rows of no whole words', () => named({}, 12), undefined,
      "H of layer 'moe' must be a multiple of 8 for int4, whole words, but is 12."],
    ['experts of no whole words', () => named({intermediateSize: 12}), undefined,
      "intermediateSize of layer 'moe' must be a multiple of 8 for int4, whole words, but is 12."],
  ];
  for (const [what, makeLayer, options, message] of refused) {
    it(`refuses ${what}, and nothing is left`, () => {
      const layer = makeLayer() as MoeLayer;
      const {numTensors} = tf.memory();
      expect(() => tf.quantizeMixtureOfExperts(layer, options as Options)).toThrowError(`Error in quantizeMixtureOfExperts: ${message}`);
      expect(tf.memory().numTensors).toBe(numTensors);
    });
  }
});

describeWithFlags('fusedMoe of frozen int4 experts', ALL_ENVS, () => {
  it('trains a router and an adapter before them', async () => {
    const [E, I] = [3, 8];
    const numTokens = 24;
    const [w1, w2] = [[E, 2 * I, H], [E, H, I]].map((shape, i) =>
      tf.moeQuantizeWeights(tf.randomNormal(shape as [number, number, number], 0, 0.4, 'float32', i + 1), {groupSize: 16, scaleFormat: 'float16'}));
    const adapter = tf.variable(tf.eye(H));
    const router = tf.variable(tf.randomNormal<tf.Rank.R2>([H, E], 0, 0.1, 'float32', 3));
    const x = tf.randomNormal<tf.Rank.R2>([numTokens, H], 0, 1, 'float32', 4);
    const target = tf.randomNormal<tf.Rank.R2>([numTokens, H], 0, 0.5, 'float32', 5);
    const loss = () => tf.tidy(() => {
      const tokens = tf.matMul(x, adapter) as tf.Tensor2D;
      const y = tf.fusedMoe(tokens, w1, w2, tf.matMul(tokens, router) as tf.Tensor2D, 2);
      return tf.mean(tf.squaredDifference(y, target)) as tf.Scalar;
    });
    const optimizer = tf.train.adam(0.05);
    const [first] = await loss().data();
    const routerBefore = await router.data();
    for (let step = 0; step < 30; step++) {
      optimizer.minimize(loss, false, [adapter, router]);
    }
    const [last] = await loss().data();
    expect(last).toBeLessThan(0.8 * first);
    expect(await router.data()).not.toEqual(routerBefore);
    tf.dispose([w1, w2] as tf.TensorContainer);
  });
});
