import type {TfjsLayers} from './expert_weights';
import {makeMixtureOfExperts, type MixtureOfExperts, type MixtureOfExpertsClass} from './mixture_of_experts';
import type {MixtureOfExpertsArgs} from './mixture_of_experts_options';

/** The layers of this package, made for one copy of tfjs. */
export type MoeLayers = {
  /** A mixture-of-experts layer for tf.layers, input [..., H] to output of the same shape: {@link MixtureOfExperts}. */
  mixtureOfExperts: (args: MixtureOfExpertsArgs) => MixtureOfExperts;
  /** The class of that layer, for `instanceof` and `new`. */
  MixtureOfExperts: MixtureOfExpertsClass;
};

/** By the Layer class that they are built on, so that every entry has the same ones. */
const layersOf = new WeakMap<object, MoeLayers>();

/** The layers for this copy of tfjs, their class registered there, unless one of its name is: then that one stays. */
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

/**
 * Brings the layers to a copy of tfjs that is not the one `tfjs-moe/layers` imports, such as a second version on a
 * page: layer classes and what loading knows of them are each copy's own. Registers MixtureOfExperts, built on that
 * copy's Layer, and adds `tf.layers.mixtureOfExperts`. Both look first: calling it again changes nothing.
 *
 * Where `tf.layers` is frozen, it is replaced by a copy; where `tf` is fixed too, as the namespace of an ES module is,
 * use what is returned.
 *
 * @param tf  All of tfjs, or its `layers` and `serialization`.
 * @returns `mixtureOfExperts` and `MixtureOfExperts` of that copy.
 * @throws if it has no `layers.Layer` or no `serialization`; nothing is registered then.
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
