/**
 * All three kernels are the partial derivatives of one form that is linear in each of w, rows and dy,
 *
 *   f(w, rows, dy) = sum over slots of w[t,k] * (rows[inv[t,k]] . dy[t])
 *   MoeUnpermute = df/d dy,   MoeUnpermuteBackpropRows = df/d rows,   MoeUnpermuteBackpropWeights = df/d w
 *
 * so the gradient of each is made of the other two, and derivatives of any order exist.
 */
import type {GradConfig, Tensor} from '@tensorflow/tfjs-core';
import {MoeUnpermute, MoeUnpermuteBackpropRows, MoeUnpermuteBackpropWeights} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {zerosFor} from './zero_gradient';

type Slots = {invPermutedIdx: Tensor; expertFirstTokenOffset: Tensor};

const slotGradients = ({invPermutedIdx, expertFirstTokenOffset}: Slots) => ({
  invPermutedIdx: zerosFor(invPermutedIdx.shape),
  expertFirstTokenOffset: zerosFor(expertFirstTokenOffset.shape),
});

const weightedSum = (rows: Tensor, weights: Tensor, slots: Slots): Tensor =>
  runMoeKernel(MoeUnpermute, {permutedHiddenStates: rows, topkWeights: weights, ...slots}, {})[0];

const backpropRows = (dy: Tensor, weights: Tensor, slots: Slots, numRows: number): Tensor =>
  runMoeKernel(MoeUnpermuteBackpropRows, {dy, topkWeights: weights, ...slots}, {numRows})[0];

const backpropWeights = (dy: Tensor, rows: Tensor, slots: Slots): Tensor =>
  runMoeKernel(MoeUnpermuteBackpropWeights, {dy, permutedHiddenStates: rows, ...slots}, {})[0];

export const moeUnpermuteGradConfig: GradConfig = {
  kernelName: MoeUnpermute,
  inputsToSave: ['permutedHiddenStates', 'topkWeights', 'invPermutedIdx', 'expertFirstTokenOffset'],
  gradFunc: (dy, saved) => {
    const [rows, weights, invPermutedIdx, expertFirstTokenOffset] = saved as Tensor[];
    const slots = {invPermutedIdx, expertFirstTokenOffset};
    return {
      permutedHiddenStates: () => backpropRows(dy as Tensor, weights, slots, rows.shape[0]),
      topkWeights: () => backpropWeights(dy as Tensor, rows, slots),
      ...slotGradients(slots),
    };
  },
};

export const moeUnpermuteBackpropRowsGradConfig: GradConfig = {
  kernelName: MoeUnpermuteBackpropRows,
  inputsToSave: ['dy', 'topkWeights', 'invPermutedIdx', 'expertFirstTokenOffset'],
  gradFunc: (ddRows, saved) => {
    const [dy, weights, invPermutedIdx, expertFirstTokenOffset] = saved as Tensor[];
    const slots = {invPermutedIdx, expertFirstTokenOffset};
    return {
      dy: () => weightedSum(ddRows as Tensor, weights, slots),
      topkWeights: () => backpropWeights(dy, ddRows as Tensor, slots),
      ...slotGradients(slots),
    };
  },
};

export const moeUnpermuteBackpropWeightsGradConfig: GradConfig = {
  kernelName: MoeUnpermuteBackpropWeights,
  inputsToSave: ['dy', 'permutedHiddenStates', 'invPermutedIdx', 'expertFirstTokenOffset'],
  gradFunc: (ddWeights, saved) => {
    const [dy, rows, invPermutedIdx, expertFirstTokenOffset] = saved as Tensor[];
    const slots = {invPermutedIdx, expertFirstTokenOffset};
    return {
      dy: () => weightedSum(rows, ddWeights as Tensor, slots),
      permutedHiddenStates: () => backpropRows(dy, ddWeights as Tensor, slots, rows.shape[0]),
      ...slotGradients(slots),
    };
  },
};
