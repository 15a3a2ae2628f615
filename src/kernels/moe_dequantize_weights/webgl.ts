/** MoeDequantizeWeights on WebGL: 1 draw, a fragment decodes the four weights of which it is one. */
import {MoeDequantizeWeights} from '../../contract/kernel_names';
import {encodingKey, numInOf, quantizedShapes} from '../../contract/quantized_weights';
import {assertFits, runGlsl, webglKernel} from '../shared/webgl';
import {weightReaderGlsl, weightTextures} from '../weight_formats/webgl';

export const moeDequantizeWeightsWebGL = webglKernel(
  MoeDequantizeWeights,
  (backend, tensors, {encoding, firstExpert, numExperts}) => {
    const numOut = tensors.codes.shape[1];
    const shape = [numExperts, numOut, numInOf(tensors.codes, encoding)];
    assertFits(MoeDequantizeWeights, {result: shape});
    const {numGroups} = quantizedShapes(shape, encoding);
    const {raw, uniforms} = weightTextures(backend, MoeDequantizeWeights, 'weights', tensors, encoding, numGroups);
    const weights = runGlsl(backend, {
      name: `MoeDequantizeWeights_${encodingKey(encoding)}`,
      inputs: {},
      raw,
      uniforms: {...uniforms, firstRow: firstExpert * numOut},
      output: {shape: [numExperts * numOut, shape[2]], dtype: 'float32'},
      code: `
        ${weightReaderGlsl(encoding)}
        void main() {
          ivec2 coords = getOutputCoords();
          int k = coords.y / 4 * 4;
          setOutput(weightsAt(firstRow + coords.x, k)[coords.y - k]);
        }`,
    });
    return {weights: {...weights, shape}};
  },
);
