/**
 * The experts of a training step, which keep x of the tokens and z of the rows. With t the token of row r, w the weight
 * of its slot, and dy the gradient of the result:
 *
 *   MoeExpertsUp     z[r] = w1[e] . x[t] + b1[e]
 *   MoeExpertsDown   out[t] = the sum over its rows of w * (w2[e] . h[r] + b2[e]), h[r] = act(z[r])
 *
 *   g[r] = w2[e]^T . dy[t]
 *   dz[r] = w * g[r] * act'(z[r])            dw = h[r] . g[r] + b2[e] . dy[t]
 *   dw2[e] = the sum of w * dy[t] h[r]^T     db2[e] = the sum of w * dy[t]
 *   dw1[e] = the sum of dz[r] x[t]^T         db1[e] = the sum of dz[r]         dx[t] = the sum of w1[e]^T . dz[r]
 *
 * So the outputs of experts are not needed, and rows and h are computed again from what is kept. Gradients are computed
 * from inputs alone, of kernels and core ops that have derivatives of any order where one is wanted.
 */
import {
  add,
  engine,
  expandDims,
  getBackend,
  getKernel,
  type GradConfig,
  mul,
  ones,
  sum,
  type Tensor,
  tidy,
} from '@tensorflow/tfjs-core';
import {groupedMatMulInputNames, isLinear, linear, partsOf} from '../contract/expert_weights';
import {
  MoeActivate,
  type MoeActivationAttrs,
  MoeExpertsDown,
  type MoeExpertsDownAttrs,
  MoeExpertsDownBackprop,
  MoeExpertsUp,
  type MoeExpertsUpAttrs,
  MoeGroupedMatMulBackpropActivation,
  MoeUnpermute,
  MoeUnpermuteBackpropRows,
  MoeUnpermuteBackpropWeights,
} from '../contract/kernel_names';
import {byName, runMoeKernel} from '../contract/run_kernel';
import {float32Layout, product, type SavedMatMul, transposed, weightGradients} from './moe_grouped_mat_mul_grad';
import {zerosFor} from './zero_gradient';

type SavedRows = SavedMatMul & {permutedIdx: Tensor; invPermutedIdx: Tensor};

/** rows[r] = w * ofTokens[t] */
function weightedRows(ofTokens: Tensor, topkWeights: Tensor, saved: SavedRows): Tensor {
  const {permutedIdx, invPermutedIdx, expertFirstTokenOffset} = saved;
  const inputs = {dy: ofTokens, topkWeights, invPermutedIdx, expertFirstTokenOffset, permutedIdx};
  return runMoeKernel(MoeUnpermuteBackpropRows, inputs, {numRows: permutedIdx.shape[0]}).dRows;
}

const rowsOf = (ofTokens: Tensor, saved: SavedRows): Tensor =>
  weightedRows(ofTokens, ones(saved.invPermutedIdx.shape), saved);

/** [T, K] from a value for each row, [R, 1]; 0 for a slot without a row. */
function slotsOf(permutedHiddenStates: Tensor, {invPermutedIdx, expertFirstTokenOffset}: SavedRows): Tensor {
  const dy = ones([invPermutedIdx.shape[0], 1]);
  const inputs = {dy, permutedHiddenStates, invPermutedIdx, expertFirstTokenOffset};
  return runMoeKernel(MoeUnpermuteBackpropWeights, inputs, {}).dWeights;
}

/**
 * dz, and h . g of each slot. The kernel of both has no gradient, and webgl lacks it. So where a gradient of this
 * gradient is wanted, both are made of kernels and core ops that have gradients.
 */
function backpropActivation(
  g: Tensor,
  z: Tensor,
  topkWeights: Tensor,
  saved: SavedRows,
  activation: MoeActivationAttrs,
): {dz: Tensor; dTopkWeights: Tensor} {
  if (engine().state.gradientDepth === 0 && getKernel(MoeExpertsDownBackprop, getBackend()) != null) {
    const {invPermutedIdx, expertFirstTokenOffset} = saved;
    const inputs = {g, z, topkWeights, invPermutedIdx, expertFirstTokenOffset};
    return runMoeKernel(MoeExpertsDownBackprop, inputs, activation);
  }
  const rowWeights = weightedRows(ones([topkWeights.shape[0], 1]), topkWeights, saved);
  const h = runMoeKernel(MoeActivate, {z}, activation).out;
  return {
    dz: runMoeKernel(MoeGroupedMatMulBackpropActivation, {dy: mul(g, rowWeights), z}, activation).dz,
    dTopkWeights: slotsOf(sum(mul(h, g), 1, true), saved),
  };
}

const indexGradients = ({permutedIdx, invPermutedIdx, expertFirstTokenOffset}: SavedRows) => ({
  permutedIdx: zerosFor(permutedIdx.shape),
  invPermutedIdx: zerosFor(invPermutedIdx.shape),
  expertFirstTokenOffset: zerosFor(expertFirstTokenOffset.shape),
});

/** Saves all inputs, because their number depends on the number of parts. */
export const moeExpertsUpGradConfig: GradConfig = {
  kernelName: MoeExpertsUp,
  saveAllInputs: true,
  gradFunc: (dOut, savedInputs, attrs) => {
    const {weightFormat, encoding, numParts, ...activation} = attrs as unknown as MoeExpertsUpAttrs;
    const layout = {weightFormat, encoding, numParts};
    const names = ['permutedIdx', 'invPermutedIdx', ...groupedMatMulInputNames(layout)];
    const saved = byName(names, savedInputs as Tensor[]) as SavedRows;
    const {x, invPermutedIdx, expertFirstTokenOffset: offset} = saved;
    const dy = dOut as Tensor;
    const z = () => runMoeKernel(MoeExpertsUp, saved, {...linear, ...layout}).out;
    const dz = isLinear(activation)
      ? dy
      : tidy(() => runMoeKernel(MoeGroupedMatMulBackpropActivation, {dy, z: z()}, activation).dz);
    return {
      x: () =>
        runMoeKernel(
          MoeUnpermute,
          {
            permutedHiddenStates: product(dz, partsOf<Tensor>(saved, layout), offset, transposed(layout)),
            topkWeights: ones(invPermutedIdx.shape),
            invPermutedIdx,
            expertFirstTokenOffset: offset,
          },
          {},
        ).out,
      ...weightGradients(layout, saved, {x: () => rowsOf(x, saved), dz: () => dz}),
      ...indexGradients(saved),
    };
  },
};

export const moeExpertsDownGradConfig: GradConfig = {
  kernelName: MoeExpertsDown,
  saveAllInputs: true,
  gradFunc: (dOut, savedInputs, attrs) => {
    const {weightFormat, encoding, numParts, ...activation} = attrs as unknown as MoeExpertsDownAttrs;
    const layout = {weightFormat, encoding, numParts};
    const names = ['topkWeights', 'permutedIdx', 'invPermutedIdx', ...groupedMatMulInputNames(layout)];
    const saved = byName(names, savedInputs as Tensor[]) as SavedRows & {topkWeights: Tensor};
    const {x: z, topkWeights, expertFirstTokenOffset: offset, bias} = saved;
    const dy = dOut as Tensor;
    const activated = () => runMoeKernel(MoeActivate, {z}, activation).out;
    // Both gradients need g. It is disposed here, since tfjs would keep it until all gradients are computed.
    const {dz, dTopkWeights} = tidy(() => {
      const dyRows = rowsOf(dy, saved);
      const g = product(dyRows, partsOf<Tensor>(saved, layout), offset, transposed(layout));
      const ofActivation = backpropActivation(g, z, topkWeights, saved, activation);
      if (bias == null) {
        return ofActivation;
      }
      const ofBias = product(dyRows, [{weights: expandDims(bias, 1)}], offset, float32Layout('outIn'));
      return {dz: ofActivation.dz, dTopkWeights: add(ofActivation.dTopkWeights, slotsOf(ofBias, saved))};
    });
    return {
      x: () => dz,
      topkWeights: () => dTopkWeights,
      ...weightGradients(layout, saved, {
        x: activated,
        dz: () => weightedRows(dy, topkWeights, saved),
      }),
      ...indexGradients(saved),
    };
  },
};
