/** Layers for tf.layers, registered for models to load: `tfjs-moe/layers`. */
import {serialization} from '@tensorflow/tfjs-core';
import {layers} from '@tensorflow/tfjs-layers';
import '../index';
import type {MixtureOfExperts as MixtureOfExpertsLayer, MixtureOfExpertsClass} from './mixture_of_experts';
import {type MoeLayers, registerLayerClasses} from './register_layers';

export type {MixtureOfExpertsClass} from './mixture_of_experts';
export type {MixtureOfExpertsArgs, MixtureOfExpertsWeightArgs, MoeDropPolicy} from './mixture_of_experts_options';
export {quantizeMixtureOfExperts} from './quantize_mixture_of_experts';
export type {ExpertFormatArgs} from './expert_format';
export type {TfjsLayers} from './expert_weights';
export {type MoeLayers, registerMoeLayers} from './register_layers';

const moeLayers = registerLayerClasses({layers, serialization});

/**
 * A mixture-of-experts layer for tf.layers, from input [..., H] to output of the same shape: {@link MixtureOfExperts}.
 */
export const mixtureOfExperts: MoeLayers['mixtureOfExperts'] = moeLayers.mixtureOfExperts;
export const MixtureOfExperts: MixtureOfExpertsClass = moeLayers.MixtureOfExperts;
export type MixtureOfExperts = MixtureOfExpertsLayer;
