/**
 * MoeDequantizeWeights and MoeDequantizeRows on WebGL: 1 draw, a fragment decodes the four weights of which it is one.
 */
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {TensorInfo} from '@tensorflow/tfjs-core';
import {MoeDequantizeRows, MoeDequantizeWeights} from '../../contract/kernel_names';
import {
  encodingKey,
  numInOf,
  type QuantizedEncoding,
  quantizedShapes,
  type QuantizedTensors,
} from '../../contract/quantized_weights';
import {assertFits, fillTensor, runGlsl, webglKernel} from '../shared/webgl';
import {weightReaderGlsl, weightTextures} from '../weight_formats/webgl';

export const moeDequantizeWeightsWebGL = webglKernel(
  MoeDequantizeWeights,
  (backend, tensors, {encoding, firstExpert, numExperts}) => {
    const numOut = tensors.codes.shape[1];
    const shape = [numExperts, numOut, numInOf(tensors.codes, encoding)];
    const weights = dequantize(backend, MoeDequantizeWeights, tensors, encoding, numExperts * numOut, {
      inputs: {},
      uniforms: {firstRow: firstExpert * numOut},
      rowOf: 'int rowOf(int i) { return firstRow + i; }',
    });
    return {weights: {...weights, shape}};
  },
);

export const moeDequantizeRowsWebGL = webglKernel(MoeDequantizeRows, (backend, {rows, ...tensors}, {encoding}) => {
  const [numRows] = rows.shape;
  if (numRows === 0) {
    return {out: fillTensor(backend, [0, numInOf(tensors.codes, encoding)], 'float32', 0)};
  }
  const [numExperts, numOut] = tensors.codes.shape;
  const out = dequantize(backend, MoeDequantizeRows, tensors, encoding, numRows, {
    inputs: {rows},
    uniforms: {lastRow: numExperts * numOut - 1},
    rowOf: 'int rowOf(int i) { return clamp(indexOf(getRows(i)), 0, lastRow); }',
  });
  return {out};
});

/** How a program finds the row of weights for row i of the result. */
type Rows = {
  inputs: Record<string, TensorInfo>;
  uniforms: Record<string, number>;
  /** GLSL: rowOf(i). */
  rowOf: string;
};

function dequantize(
  backend: MathBackendWebGL,
  kernelName: string,
  tensors: QuantizedTensors,
  encoding: QuantizedEncoding,
  numRows: number,
  {inputs, uniforms: ofRows, rowOf}: Rows,
): TensorInfo {
  const numIn = numInOf(tensors.codes, encoding);
  assertFits(kernelName, {result: [numRows, numIn]});
  const {numGroups} = quantizedShapes([1, 1, numIn], encoding);
  const {raw, uniforms} = weightTextures(backend, kernelName, 'weights', tensors, encoding, numGroups);
  return runGlsl(backend, {
    name: `${kernelName}_${encodingKey(encoding)}`,
    inputs,
    raw,
    uniforms: {...uniforms, ...ofRows},
    output: {shape: [numRows, numIn], dtype: 'float32'},
    code: `
      ${weightReaderGlsl(encoding)}
      ${rowOf}
      void main() {
        ivec2 coords = getOutputCoords();
        int k = coords.y / 4 * 4;
        setOutput(weightsAt(rowOf(coords.x), k)[coords.y - k]);
      }`,
  });
}
