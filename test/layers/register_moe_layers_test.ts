/** Other copies of tfjs, which have their own layers and their own registry of classes. */
import {describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {mixtureOfExperts, MixtureOfExperts, registerMoeLayers, type TfjsLayers} from '../../src/layers/index';
import * as tfjs from '@tensorflow/tfjs';

type Classes = ReturnType<TfjsLayers['serialization']['SerializationMap']['getMap']>['classNameMap'];
type Copy = TfjsLayers & {classes: Classes};

function copyOfTfjs(): Copy {
  const classes: Classes = {};
  const {layers} = tfjs;
  return {
    classes,
    layers: {Layer: class extends layers.Layer {} as typeof layers.Layer, dense: layers.dense},
    serialization: {
      registerClass: ((cls: tf.serialization.SerializableConstructor<tf.serialization.Serializable>) => {
        expect(classes[cls.className]).withContext('registered once').toBeUndefined();
        classes[cls.className] = [cls, cls.fromConfig];
      }) as unknown as TfjsLayers['serialization']['registerClass'],
      SerializationMap: {getMap: () => ({classNameMap: classes})} as unknown as TfjsLayers['serialization']['SerializationMap'],
    },
  };
}
const added = ({layers}: TfjsLayers) => (layers as Partial<typeof tf.layers>).mixtureOfExperts;
const sizes = {numExperts: 2, intermediateSize: 2};

describe('registerMoeLayers', () => {
  it('builds the class on the Layer of that copy, registers it there and adds it to its layers', () => {
    const copy = copyOfTfjs();
    const made = registerMoeLayers(copy);
    const layer = added(copy)!(sizes);
    expect(layer).toBeInstanceOf(copy.layers.Layer);
    expect(layer).toBeInstanceOf(made.MixtureOfExperts);
    expect(layer).not.toBeInstanceOf(MixtureOfExperts);
    expect(copy.classes.MixtureOfExperts[0] as unknown).toBe(made.MixtureOfExperts);
    expect(layer.getClassName()).toBe('MixtureOfExperts');
    const names = ['CausalSelfAttention', 'MixtureOfExperts', 'ReversibleEmbedding', 'RmsNormalization', 'ScaledSum'];
    expect(Object.keys(copy.classes).sort()).toEqual(names);
    const functions = names.map((name) => name[0].toLowerCase() + name.slice(1)) as Array<keyof typeof made>;
    functions.forEach((name) => expect(copy.layers[name as 'Layer'] as unknown).withContext(name).toBe(made[name]));
  });

  it('changes nothing the second time, nor where the names are taken', () => {
    const copy = copyOfTfjs();
    const made = registerMoeLayers(copy);
    const before = [added(copy), copy.classes.MixtureOfExperts];
    expect(registerMoeLayers(copy)).toBe(made);
    expect([added(copy), copy.classes.MixtureOfExperts]).toEqual(before);

    const taken = copyOfTfjs();
    const theirs = () => undefined;
    Object.assign(taken.layers, {mixtureOfExperts: theirs});
    registerMoeLayers(taken);
    expect(added(taken) as unknown).toBe(theirs);
  });

  it('makes layers that quantizeMixtureOfExperts knows', async () => {
    await tf.setBackend('cpu');
    const {MixtureOfExperts: OfCopy} = registerMoeLayers(copyOfTfjs());
    const layer = new OfCopy({numExperts: 2, intermediateSize: 8});
    layer.build([null, 8]);
    const quantized = tf.quantizeMixtureOfExperts(layer);
    expect(quantized).toBeInstanceOf(OfCopy);
    expect(quantized.weights.map(({originalName}) => originalName)[1]).toBe(`${layer.name}/w1_codes`);
    tf.dispose([layer.getWeights(), quantized.getWeights()]);
  });

  it('replaces frozen layers by a copy, and leaves a tf that cannot be changed', () => {
    const frozen = copyOfTfjs();
    const {layers} = frozen;
    Object.freeze(layers);
    registerMoeLayers(frozen);
    expect(frozen.layers).not.toBe(layers);
    expect(frozen.layers).toEqual(jasmine.objectContaining(layers));
    expect(added(frozen)!(sizes)).toBeInstanceOf(layers.Layer);

    const fixed = Object.freeze({...copyOfTfjs(), layers});
    expect(registerMoeLayers(fixed).mixtureOfExperts(sizes)).toBeInstanceOf(layers.Layer);
    expect(fixed.layers).toBe(layers);
    expect(fixed.classes.MixtureOfExperts).toBeDefined();
  });

  it('says what is missing, and registers nothing', () => {
    const message = 'Error in registerMoeLayers: tf must have layers and serialization, as @tensorflow/tfjs has.';
    const {serialization, classes} = copyOfTfjs();
    for (const given of [undefined, {}, {serialization, layers: {}}, {layers: tfjs.layers}]) {
      expect(() => registerMoeLayers(given as TfjsLayers)).toThrowError(message);
    }
    expect(classes).toEqual({});
  });

  it('has one class for each copy, whatever the entry', () => {
    expect(tf.layers.mixtureOfExperts).toBe(mixtureOfExperts);
    expect(mixtureOfExperts(sizes)).toBeInstanceOf(tf.layers.Layer);
    expect(new MixtureOfExperts(sizes)).toBeInstanceOf(tfjs.layers.Layer);
    expect(Object.keys(tfjs.layers).filter((name) => !(name in tf.layers))).toEqual([]);
    const {classNameMap} = tfjs.serialization.SerializationMap.getMap();
    expect(classNameMap.MixtureOfExperts[0] as unknown).toBe(MixtureOfExperts);
  });
});

const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};

describeWithFlags('registerMoeLayers', cpu, () => {
  it('is named by a layer that meets a model of another copy, before any weight is drawn', () => {
    const message =
      "Error in mixtureOfExperts: layer 'mixture' must come from the same copy of tfjs as its input, but comes from another. " +
      'Call registerMoeLayers(tf) with the tf of the model, and make the layer with the result.';
    const copy = copyOfTfjs();
    const layer = registerMoeLayers(copy).mixtureOfExperts({...sizes, name: 'mixture', inputShape: [3]});
    const {numTensors} = tf.memory();
    expect(() => tf.sequential({layers: [layer]})).toThrowError(message);
    expect(() => tf.sequential({layers: [tf.layers.inputLayer({inputShape: [3]}), layer]})).toThrowError(message);
    expect(() => layer.apply(tf.input({shape: [3]}))).toThrowError(message);
    expect(() => layer.apply([tf.input({shape: [3]})])).toThrowError(message);
    expect([layer.built, tf.memory().numTensors]).toEqual([false, numTensors]);
    // All copies share tensors.
    expect((layer.apply(tf.ones([2, 3])) as tf.Tensor).shape).toEqual([2, 3]);
  });
});
