import type {TfjsLayers} from './expert_weights';
import {makeMixtureOfExperts, type MixtureOfExperts, type MixtureOfExpertsClass} from './mixture_of_experts';
import type {MixtureOfExpertsArgs} from './mixture_of_experts_options';

/** The layers of this package, made for one copy of tfjs. */
export type MoeLayers = {
  /**
   * A mixture-of-experts layer for tf.layers, from input [..., H] to output of the same shape: {@link
   * MixtureOfExperts}.
   */
  mixtureOfExperts: (args: MixtureOfExpertsArgs) => MixtureOfExperts;
  /** The class of that layer, for `instanceof` and `new`. */
  MixtureOfExperts: MixtureOfExpertsClass;
};

/** The layers of each Layer class that they are built on, so that every entry has the same layers. */
const layersOf = new WeakMap<object, MoeLayers>();

/** The layers for this copy of tfjs. Their class is registered there, unless a class of its name already is. */
export function registerLayerClasses(tf: TfjsLayers): MoeLayers {
  const {Layer} = tf.layers;
  if (!layersOf.has(Layer)) {
    const MixtureOfExperts = makeMixtureOfExperts(tf);
    layersOf.set(Layer, {MixtureOfExperts, mixtureOfExperts: (args) => new MixtureOfExperts(args)});
  }
  const moeLayers = layersOf.get(Layer)!;
  const {MixtureOfExperts} = moeLayers;
  if (tf.serialization.SerializationMap.getMap().classNameMap[MixtureOfExperts.className] == null) {
    tf.serialization.registerClass(MixtureOfExperts);
  }
  return moeLayers;
}

/** The Layer class on which a MixtureOfExperts is built; undefined for anything else. */
export function baseClassOf(layer: MixtureOfExperts): TfjsLayers['layers']['Layer'] | undefined {
  let ofChain: unknown = layer?.constructor;
  while (typeof ofChain === 'function' && !layersOf.has(ofChain)) {
    ofChain = Object.getPrototypeOf(ofChain);
  }
  const Layer = ofChain as TfjsLayers['layers']['Layer'] | null | undefined;
  const ofPackage = Layer == null ? undefined : layersOf.get(Layer);
  return ofPackage != null && layer instanceof ofPackage.MixtureOfExperts ? Layer! : undefined;
}

/**
 * Adds the layers to a copy of tfjs other than the one that `tfjs-moe/layers` imports, such as a second version on a
 * page. Each copy has its own layer classes and its own registry for loading. Registers MixtureOfExperts, built on that
 * copy's Layer, and adds `tf.layers.mixtureOfExperts`. Calling it again changes nothing.
 *
 * If `tf.layers` is frozen, it is replaced by a copy. If `tf` is frozen too, like the namespace of an ES module, use
 * the result.
 *
 * @param tf  All of tfjs, or its `layers` and `serialization`.
 * @returns `mixtureOfExperts` and `MixtureOfExperts` of that copy.
 * @throws if `tf` has no `layers.Layer` or no `serialization`; nothing is registered then.
 */
export function registerMoeLayers(tf: TfjsLayers): MoeLayers {
  if (typeof tf?.layers?.Layer !== 'function' || typeof tf.serialization?.registerClass !== 'function') {
    throw new Error('Error in registerMoeLayers: tf must have layers and serialization, as @tensorflow/tfjs has.');
  }
  const moeLayers = registerLayerClasses(tf);
  const {mixtureOfExperts} = moeLayers;
  if (!('mixtureOfExperts' in tf.layers)) {
    if (Object.isExtensible(tf.layers)) {
      Object.assign(tf.layers, {mixtureOfExperts});
    } else if (Object.getOwnPropertyDescriptor(tf, 'layers')?.writable === true) {
      tf.layers = {...tf.layers, mixtureOfExperts} as typeof tf.layers;
    }
  }
  return moeLayers;
}
