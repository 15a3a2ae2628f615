/**
 * MoeExpertsUp and MoeExpertsDown, made of other kernels. What passes between these is disposed at once, and a gradient
 * keeps the inputs alone.
 */
import {ones} from '@tensorflow/tfjs-core';
import {groupedMatMulInputs, linear, partsOf} from '../../contract/expert_weights';
import {
  MoeActivate,
  MoeExpertsDown,
  MoeExpertsUp,
  MoeGroupedMatMul,
  type MoeGroupedMatMulAttrs,
  type MoeGroupedMatMulInputs,
  MoeUnpermute,
  MoeUnpermuteBackpropRows,
} from '../../contract/kernel_names';
import {runMoeKernel} from '../../contract/run_kernel';
import {composedKernel} from '../shared/composed_kernel';

export const moeExpertsUp = composedKernel(MoeExpertsUp, (inputs, attrs) => {
  const {x, permutedIdx, invPermutedIdx, expertFirstTokenOffset} = inputs;
  const {dRows: rows} = runMoeKernel(
    MoeUnpermuteBackpropRows,
    {dy: x, topkWeights: ones(invPermutedIdx.shape), invPermutedIdx, expertFirstTokenOffset, permutedIdx},
    {numRows: permutedIdx.shape[0]},
  );
  return product({...inputs, x: rows}, attrs);
});

export const moeExpertsDown = composedKernel(
  MoeExpertsDown,
  (inputs, {weightFormat, encoding, numParts, ...activation}) => {
    const {x: z, topkWeights, invPermutedIdx, expertFirstTokenOffset} = inputs;
    const {out: x} = runMoeKernel(MoeActivate, {z}, activation);
    const {out: permutedHiddenStates} = product({...inputs, x}, {...linear, weightFormat, encoding, numParts});
    const slots = {topkWeights, invPermutedIdx, expertFirstTokenOffset};
    return runMoeKernel(MoeUnpermute, {permutedHiddenStates, ...slots}, {});
  },
);

function product(inputs: MoeGroupedMatMulInputs, attrs: MoeGroupedMatMulAttrs) {
  const {x, expertFirstTokenOffset, bias} = inputs;
  const parts = partsOf(inputs, attrs);
  return runMoeKernel(MoeGroupedMatMul, groupedMatMulInputs(x, expertFirstTokenOffset, parts, bias), attrs);
}
