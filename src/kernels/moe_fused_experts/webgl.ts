/**
 * MoeFusedExperts on WebGL: the experts of few tokens without a sort. A draw copies the token of each slot, two draws
 * multiply, and one draw adds up the slots of a token. Where texels have 2 x 2 elements, a draw before finds the
 * experts of pairs of slots. A slot whose expert is not here has the expert -1.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {columnsOf, type FusedProduct, fusedProducts} from '../../contract/expert_weights';
import {MoeFusedExperts} from '../../contract/kernel_names';
import {isQuantizedEncoding} from '../../contract/quantized_weights';
import {type ExpertsOfRows, expertsOfPairs, multiply, multiplyPacked} from '../moe_grouped_mat_mul/webgl';
import {weightTerms} from '../moe_grouped_mat_mul/webgl_weights';
import {assertExact, assertFits, disposeAll, fillTensor, runGlsl, webglKernel} from '../shared/webgl';

export const moeFusedExpertsWebGL = webglKernel(MoeFusedExperts, (backend, inputs, attrs) => {
  const {x, topkWeights, topkIds, expertMap, w1, w2} = inputs;
  const [numTokens, hiddenSize] = x.shape;
  const numSlots = numTokens * topkIds.shape[1];
  const {first, second} = fusedProducts<TensorInfo>(inputs, attrs);
  const {numColumns, numOutputs} = columnsOf(w1, first.attrs);
  const packed = [hiddenSize, numColumns, numOutputs].every((size) => size % 2 === 0);
  assertExact(MoeFusedExperts, {'the number of slots (T*K)': numSlots});
  // Codes have textures of their own.
  const floats = {
    ...(isQuantizedEncoding(attrs.w1Encoding) ? {} : {w1: w1.shape}),
    ...(isQuantizedEncoding(attrs.w2Encoding) ? {} : {w2: w2.shape}),
  };
  assertFits(MoeFusedExperts, {...floats, hiddenStates: x.shape}, packed);
  if (numSlots === 0) {
    return {out: fillTensor(backend, x.shape, 'float32', 0)};
  }
  const experts = expertsOfSlots(topkIds, expertMap, w1.shape[0]);
  const ofPairs = packed ? expertsOfPairs(backend, experts, numSlots) : undefined;
  const product = (rows: TensorInfo, name: string, {bias, attrs: of, ...tensors}: FusedProduct<TensorInfo>) => {
    const part = {...tensors, firstExpert: 0, numExperts: w1.shape[0]};
    const weights = weightTerms(backend, MoeFusedExperts, name, part, of, packed);
    const shape = [numSlots, columnsOf(tensors.weights, of).numOutputs];
    return ofPairs == null
      ? multiply(backend, {x: rows, bias}, experts, weights, 0, of, shape)
      : multiplyPacked(backend, {x: rows, bias}, ofPairs, weights, 0, of, shape);
  };
  const rows = tokensOfSlots(backend, x, numSlots, packed);
  const hidden = product(rows, 'w1', first);
  const outputs = product(hidden, 'w2', second);
  const out = merge(backend, outputs, topkWeights, experts, x.shape);
  disposeAll(backend, [...(ofPairs == null ? [] : [ofPairs]), rows, hidden, outputs]);
  return {out};
});

/** The local expert of a slot, by the map where there is one. */
function expertsOfSlots(
  topkIds: TensorInfo,
  expertMap: TensorInfo | undefined,
  numLocalExperts: number,
): ExpertsOfRows {
  const local = expertMap == null ? 'id' : 'id >= 0 && id < numExperts ? indexOf(getExpertMap(id)) : -1';
  return {
    inputs: {topkIds, ...(expertMap == null ? {} : {expertMap})},
    uniforms: {
      topk: topkIds.shape[1],
      numLocalExperts,
      ...(expertMap == null ? {} : {numExperts: expertMap.shape[0]}),
    },
    glsl: `
      int expertOfRow(int slot) {
        int id = indexOf(getTopkIds(slot / topk, imod(slot, topk)));
        int local = ${local};
        return local >= 0 && local < numLocalExperts ? local : -1;
      }`,
  };
}

/** float32 [N, H]: the row of the token of each slot. */
function tokensOfSlots(backend: MathBackendWebGL, x: TensorInfo, numSlots: number, packed: boolean): TensorInfo {
  return runGlsl(backend, {
    name: 'MoeFusedExpertsTokens',
    inputs: {x},
    uniforms: {topk: numSlots / x.shape[0]},
    output: {shape: [numSlots, x.shape[1]], dtype: 'float32'},
    ...(packed ? {packed: 'inputs and output'} : {}),
    code: packed
      ? `
      vec2 columnsOf(int slot, int column) {
        int token = slot / topk;
        vec4 texel = getX(token, column);
        return imod(token, 2) == 0 ? texel.xy : texel.zw;
      }
      void main() {
        ivec2 coords = getOutputCoords();
        setOutput(vec4(columnsOf(coords.x, coords.y), columnsOf(coords.x + 1, coords.y)));
      }`
      : `
      void main() {
        ivec2 coords = getOutputCoords();
        setOutput(getX(coords.x / topk, coords.y));
      }`,
  });
}

/** float32 [T, H]: the slots of each token, added in their order. */
function merge(
  backend: MathBackendWebGL,
  rows: TensorInfo,
  topkWeights: TensorInfo,
  experts: ExpertsOfRows,
  shape: number[],
): TensorInfo {
  return runGlsl(backend, {
    name: 'MoeFusedExpertsMerge',
    inputs: {rows, topkWeights, ...experts.inputs},
    uniforms: experts.uniforms,
    output: {shape, dtype: 'float32'},
    code: `
      ${experts.glsl}
      void main() {
        ivec2 coords = getOutputCoords();
        float sum = 0.0;
        for (int k = 0; k < topk; k++) {
          int slot = coords.x * topk + k;
          if (expertOfRow(slot) >= 0) { sum += getTopkWeights(coords.x, k) * getRows(slot, coords.y); }
        }
        setOutput(sum);
      }`,
  });
}
