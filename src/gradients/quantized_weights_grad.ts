/** Quantized weights are frozen: codes are steps, without a gradient of use. An error says so. */
import type {Tensor} from '@tensorflow/tfjs-core';
import {MoeDequantizeRows, MoeDequantizeWeights, MoeQuantizeWeights} from '../contract/kernel_names';
import {gradConfig} from './grad_config';
import {zerosFor} from './zero_gradient';

/** A gradient that nobody may ask for. */
const noGradient = (opName: string, what: string) => (): Tensor => {
  throw new Error(`Error in ${opName}: there is no gradient to ${what}. Quantized weights are frozen.`);
};

export const moeQuantizeWeightsGradConfig = gradConfig(MoeQuantizeWeights, {inputs: []}, () => ({
  weights: noGradient('moeQuantizeWeights', 'weights'),
}));

const noGradientToCodes = (opName: string) => ({
  codes: noGradient(opName, 'codes'),
  scales: noGradient(opName, 'scales'),
  offsets: noGradient(opName, 'offsets'),
});

export const moeDequantizeWeightsGradConfig = gradConfig(MoeDequantizeWeights, {inputs: []}, () =>
  noGradientToCodes('moeDequantizeWeights'),
);

export const moeDequantizeRowsGradConfig = gradConfig(MoeDequantizeRows, {inputs: ['rows']}, (_dOutputs, {rows}) => ({
  ...noGradientToCodes('reversibleEmbedding'),
  rows: zerosFor(rows.shape),
}));
