/**
 * All three kernels are partial derivatives of one form, which is linear in each of w, rows and dy:
 *
 *   f(w, rows, dy) = sum over slots of w[t,k] * (rows[inv[t,k]] . dy[t])
 *   MoeUnpermute = df/d dy,   MoeUnpermuteBackpropRows = df/d rows,   MoeUnpermuteBackpropWeights = df/d w
 *
 * So the gradient of each kernel is made of the other two, and derivatives of any order exist.
 */
import type {Tensor} from '@tensorflow/tfjs-core';
import {MoeUnpermute, MoeUnpermuteBackpropRows, MoeUnpermuteBackpropWeights} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {gradConfig} from './grad_config';
import {zerosFor} from './zero_gradient';

type Slots = {invPermutedIdx: Tensor; expertFirstTokenOffset: Tensor};

const slotGradients = ({invPermutedIdx, expertFirstTokenOffset}: Slots) => ({
  invPermutedIdx: zerosFor(invPermutedIdx.shape),
  expertFirstTokenOffset: zerosFor(expertFirstTokenOffset.shape),
});

const weightedSum = (permutedHiddenStates: Tensor, topkWeights: Tensor, slots: Slots): Tensor =>
  runMoeKernel(MoeUnpermute, {permutedHiddenStates, topkWeights, ...slots}, {}).out;

const backpropRows = (dy: Tensor, topkWeights: Tensor, slots: Slots, numRows: number): Tensor =>
  runMoeKernel(MoeUnpermuteBackpropRows, {dy, topkWeights, ...slots}, {numRows}).dRows;

const backpropWeights = (dy: Tensor, permutedHiddenStates: Tensor, slots: Slots): Tensor =>
  runMoeKernel(MoeUnpermuteBackpropWeights, {dy, permutedHiddenStates, ...slots}, {}).dWeights;

export const moeUnpermuteGradConfig = gradConfig(
  MoeUnpermute,
  {inputs: ['permutedHiddenStates', 'topkWeights', 'invPermutedIdx', 'expertFirstTokenOffset']},
  ({out: dy}, {permutedHiddenStates: rows, topkWeights, ...slots}) => ({
    permutedHiddenStates: () => backpropRows(dy, topkWeights, slots, rows.shape[0]),
    topkWeights: () => backpropWeights(dy, rows, slots),
    ...slotGradients(slots),
  }),
);

export const moeUnpermuteBackpropRowsGradConfig = gradConfig(
  MoeUnpermuteBackpropRows,
  {inputs: ['dy', 'topkWeights', 'invPermutedIdx', 'expertFirstTokenOffset']},
  ({dRows: ddRows}, {dy, topkWeights, ...slots}, {numRows}) => ({
    dy: () => weightedSum(ddRows, topkWeights, slots),
    topkWeights: () => backpropWeights(dy, ddRows, slots),
    permutedIdx: zerosFor([numRows]),
    ...slotGradients(slots),
  }),
);

export const moeUnpermuteBackpropWeightsGradConfig = gradConfig(
  MoeUnpermuteBackpropWeights,
  {inputs: ['dy', 'permutedHiddenStates', 'invPermutedIdx', 'expertFirstTokenOffset']},
  ({dWeights: ddWeights}, {dy, permutedHiddenStates: rows, ...slots}) => ({
    dy: () => weightedSum(rows, ddWeights, slots),
    permutedHiddenStates: () => backpropRows(dy, ddWeights, slots, rows.shape[0]),
    ...slotGradients(slots),
  }),
);
