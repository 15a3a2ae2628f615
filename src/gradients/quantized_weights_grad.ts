/** Quantized weights are frozen: codes are steps, without a gradient of use. An error says so. */
import type {Tensor} from '@tensorflow/tfjs-core';
import {MoeDequantizeWeights, MoeQuantizeWeights} from '../contract/kernel_names';
import {gradConfig} from './grad_config';

/** A gradient that nobody may ask for. */
const noGradient = (opName: string, what: string) => (): Tensor => {
  throw new Error(`Error in ${opName}: there is no gradient to ${what}. Quantized weights are frozen.`);
};

export const moeQuantizeWeightsGradConfig = gradConfig(MoeQuantizeWeights, {inputs: []}, () => ({
  weights: noGradient('moeQuantizeWeights', 'weights'),
}));

export const moeDequantizeWeightsGradConfig = gradConfig(MoeDequantizeWeights, {inputs: []}, () => ({
  codes: noGradient('moeDequantizeWeights', 'codes'),
  scales: noGradient('moeDequantizeWeights', 'scales'),
  offsets: noGradient('moeDequantizeWeights', 'offsets'),
}));
