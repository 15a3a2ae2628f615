import type {serialization} from '@tensorflow/tfjs-core';
import {makeBaseLayer} from './base_layer';
import {
  type CausalSelfAttention,
  type CausalSelfAttentionClass,
  makeCausalSelfAttention,
} from './causal_self_attention';
import type {CausalSelfAttentionArgs} from './causal_self_attention_options';
import {makeMixtureOfExperts, type MixtureOfExperts, type MixtureOfExpertsClass} from './mixture_of_experts';
import type {MixtureOfExpertsArgs} from './mixture_of_experts_options';
import {
  makeReversibleEmbedding,
  type ReversibleEmbedding,
  type ReversibleEmbeddingArgs,
  type ReversibleEmbeddingClass,
} from './reversible_embedding';
import {
  makeRmsNormalization,
  type RmsNormalization,
  type RmsNormalizationArgs,
  type RmsNormalizationClass,
} from './rms_normalization';
import {makeScaledSum, type ScaledSum, type ScaledSumArgs, type ScaledSumClass} from './scaled_sum';
import type {TfjsLayers} from './weight_parts';

/** What this package adds to tf.layers. */
export type MoeLayerFunctions = {
  /**
   * A mixture-of-experts layer for tf.layers, from input [..., H] to output of the same shape: {@link
   * MixtureOfExperts}.
   */
  mixtureOfExperts: (args: MixtureOfExpertsArgs) => MixtureOfExperts;
  /**
   * Causal self-attention for tf.layers, from input [B, S, H] to output of the same shape: {@link
   * CausalSelfAttention}.
   */
  causalSelfAttention: (args: CausalSelfAttentionArgs) => CausalSelfAttention;
  /** RMS normalization for tf.layers, from input [..., H] to output of the same shape: {@link RmsNormalization}. */
  rmsNormalization: (args?: RmsNormalizationArgs | null) => RmsNormalization;
  /**
   * Token embeddings for tf.layers, from ids [B, S] to [B, S, H], and from hidden states [..., H] to logits [..., V]:
   * {@link ReversibleEmbedding}.
   */
  reversibleEmbedding: (args: ReversibleEmbeddingArgs) => ReversibleEmbedding;
  /** A sum of inputs of one shape for tf.layers, each times a factor: {@link ScaledSum}. */
  scaledSum: (args: ScaledSumArgs) => ScaledSum;
};

/** The classes of the layers, for `instanceof` and `new`. */
type MoeLayerClasses = {
  /** The class of mixtureOfExperts. */
  MixtureOfExperts: MixtureOfExpertsClass;
  /** The class of causalSelfAttention. */
  CausalSelfAttention: CausalSelfAttentionClass;
  /** The class of rmsNormalization. */
  RmsNormalization: RmsNormalizationClass;
  /** The class of reversibleEmbedding. */
  ReversibleEmbedding: ReversibleEmbeddingClass;
  /** The class of scaledSum. */
  ScaledSum: ScaledSumClass;
};

/** The layers of this package, made for one copy of tfjs. */
export type MoeLayers = MoeLayerFunctions & MoeLayerClasses;

type Made = {functions: MoeLayerFunctions; classes: MoeLayerClasses; all: MoeLayers};

/** The layers of each Layer class that they are built on, so that every entry has the same layers. */
const madeFor = new WeakMap<object, Made>();

function makeLayers(tf: TfjsLayers): Made {
  const BaseLayer = makeBaseLayer(tf);
  const classes: MoeLayerClasses = {
    MixtureOfExperts: makeMixtureOfExperts(tf, BaseLayer),
    CausalSelfAttention: makeCausalSelfAttention(tf, BaseLayer),
    RmsNormalization: makeRmsNormalization(tf, BaseLayer),
    ReversibleEmbedding: makeReversibleEmbedding(tf, BaseLayer),
    ScaledSum: makeScaledSum(BaseLayer),
  };
  const functions: MoeLayerFunctions = {
    mixtureOfExperts: (args) => new classes.MixtureOfExperts(args),
    causalSelfAttention: (args) => new classes.CausalSelfAttention(args),
    rmsNormalization: (args) => new classes.RmsNormalization(args),
    reversibleEmbedding: (args) => new classes.ReversibleEmbedding(args),
    scaledSum: (args) => new classes.ScaledSum(args),
  };
  return {functions, classes, all: {...functions, ...classes}};
}

/** The layers for this copy of tfjs. Their classes are registered there, unless a class of that name already is. */
export function registerLayerClasses(tf: TfjsLayers): Made {
  const {Layer} = tf.layers;
  const made = madeFor.get(Layer) ?? makeLayers(tf);
  madeFor.set(Layer, made);
  for (const LayerClass of Object.values(made.classes)) {
    if (tf.serialization.SerializationMap.getMap().classNameMap[LayerClass.className] == null) {
      tf.serialization.registerClass(LayerClass as unknown as serialization.SerializableConstructor<never>);
    }
  }
  return made;
}

/** The Layer class on which a MixtureOfExperts is built; undefined for anything else. */
export function baseClassOf(layer: MixtureOfExperts): TfjsLayers['layers']['Layer'] | undefined {
  let ofChain: unknown = layer?.constructor;
  while (typeof ofChain === 'function' && !madeFor.has(ofChain)) {
    ofChain = Object.getPrototypeOf(ofChain);
  }
  const Layer = ofChain as TfjsLayers['layers']['Layer'] | null | undefined;
  const ofPackage = Layer == null ? undefined : madeFor.get(Layer)?.classes;
  return ofPackage != null && layer instanceof ofPackage.MixtureOfExperts ? Layer! : undefined;
}

/**
 * Adds the layers to a copy of tfjs other than the one that `tfjs-moe/layers` imports, such as a second version on a
 * page. Each copy has its own layer classes and its own registry for loading. Registers the classes, built on that
 * copy's Layer, and adds `tf.layers.mixtureOfExperts` and the other layers. Calling it again changes nothing.
 *
 * If `tf.layers` is frozen, it is replaced by a copy. If `tf` is frozen too, like the namespace of an ES module, use
 * the result.
 *
 * @param tf  All of tfjs, or its `layers` and `serialization`.
 * @returns `mixtureOfExperts`, `MixtureOfExperts` and so on, of that copy.
 * @throws if `tf` has no `layers.Layer` or no `serialization`; nothing is registered then.
 */
export function registerMoeLayers(tf: TfjsLayers): MoeLayers {
  if (typeof tf?.layers?.Layer !== 'function' || typeof tf.serialization?.registerClass !== 'function') {
    throw new Error('Error in registerMoeLayers: tf must have layers and serialization, as @tensorflow/tfjs has.');
  }
  const {functions, all} = registerLayerClasses(tf);
  const missing = Object.fromEntries(Object.entries(functions).filter(([name]) => !(name in tf.layers)));
  if (Object.keys(missing).length > 0) {
    if (Object.isExtensible(tf.layers)) {
      Object.assign(tf.layers, missing);
    } else if (Object.getOwnPropertyDescriptor(tf, 'layers')?.writable === true) {
      tf.layers = {...tf.layers, ...missing} as typeof tf.layers;
    }
  }
  return all;
}
