/**
 * Layers for tf.layers, registered for models to load: `tfjs-moe/layers`.
 *
 * @module tfjs-moe/layers
 */
import {serialization} from '@tensorflow/tfjs-core';
import {layers} from '@tensorflow/tfjs-layers';
import '../index';
import type {CausalSelfAttention as CausalSelfAttentionLayer, CausalSelfAttentionClass} from './causal_self_attention';
import type {MixtureOfExperts as MixtureOfExpertsLayer, MixtureOfExpertsClass} from './mixture_of_experts';
import {type MoeLayers, registerLayerClasses} from './register_layers';
import type {ReversibleEmbedding as ReversibleEmbeddingLayer, ReversibleEmbeddingClass} from './reversible_embedding';
import type {RmsNormalization as RmsNormalizationLayer, RmsNormalizationClass} from './rms_normalization';
import type {ScaledSum as ScaledSumLayer, ScaledSumClass} from './scaled_sum';

export type {CausalSelfAttentionClass} from './causal_self_attention';
export type {
  CausalSelfAttentionArgs,
  ProjectionFormatArgs,
  QueryKeyNormalization,
} from './causal_self_attention_options';
export type {ExpertFormatArgs} from './expert_format';
export type {KeyValueCache} from './key_value_cache';
export type {MixtureOfExpertsClass} from './mixture_of_experts';
export type {MixtureOfExpertsArgs, MixtureOfExpertsWeightArgs, MoeDropPolicy} from './mixture_of_experts_options';
export {quantizeMixtureOfExperts} from './quantize_mixture_of_experts';
export {type MoeLayers, registerMoeLayers} from './register_layers';
export type {EmbeddingsFormatArgs, ReversibleEmbeddingArgs, ReversibleEmbeddingClass} from './reversible_embedding';
export type {RmsNormalizationArgs, RmsNormalizationClass} from './rms_normalization';
export type {LinearRotaryScaling, Llama3RotaryScaling, RotaryScaling, YarnRotaryScaling} from './rotary_embedding';
export type {ScaledSumArgs, ScaledSumClass} from './scaled_sum';
export type {TfjsLayers} from './weight_parts';

const {functions, classes} = registerLayerClasses({layers, serialization});

/**
 * A mixture-of-experts layer for tf.layers, from input [..., H] to output of the same shape: {@link MixtureOfExperts}.
 *
 * @function
 */
export const mixtureOfExperts: MoeLayers['mixtureOfExperts'] = functions.mixtureOfExperts;
export const MixtureOfExperts: MixtureOfExpertsClass = classes.MixtureOfExperts;
export type MixtureOfExperts = MixtureOfExpertsLayer;

/**
 * Causal self-attention for tf.layers, from input [B, S, H] to output of the same shape: {@link CausalSelfAttention}.
 *
 * @function
 */
export const causalSelfAttention: MoeLayers['causalSelfAttention'] = functions.causalSelfAttention;
export const CausalSelfAttention: CausalSelfAttentionClass = classes.CausalSelfAttention;
export type CausalSelfAttention = CausalSelfAttentionLayer;

/**
 * RMS normalization for tf.layers, from input [..., H] to output of the same shape: {@link RmsNormalization}.
 *
 * @function
 */
export const rmsNormalization: MoeLayers['rmsNormalization'] = functions.rmsNormalization;
export const RmsNormalization: RmsNormalizationClass = classes.RmsNormalization;
export type RmsNormalization = RmsNormalizationLayer;

/**
 * Token embeddings for tf.layers, from ids [B, S] to [B, S, H], and from hidden states [..., H] to logits [..., V]:
 * {@link ReversibleEmbedding}.
 *
 * @function
 */
export const reversibleEmbedding: MoeLayers['reversibleEmbedding'] = functions.reversibleEmbedding;
export const ReversibleEmbedding: ReversibleEmbeddingClass = classes.ReversibleEmbedding;
export type ReversibleEmbedding = ReversibleEmbeddingLayer;

/**
 * A sum of inputs of one shape for tf.layers, each times a factor: {@link ScaledSum}.
 *
 * @function
 */
export const scaledSum: MoeLayers['scaledSum'] = functions.scaledSum;
export const ScaledSum: ScaledSumClass = classes.ScaledSum;
export type ScaledSum = ScaledSumLayer;
