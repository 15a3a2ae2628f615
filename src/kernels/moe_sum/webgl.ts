/** MoeSum on WebGL: 1 draw, a fragment sums the K values of one element of the result, in slot order. */
import {MoeSum} from '../../kernel_names';
import {assertFits, fillTensor, runGlsl, webglKernel} from '../shared/webgl';

export const moeSumWebGL = webglKernel(MoeSum, (backend, {x}) => {
  const [numTokens, topk, hiddenSize] = x.shape;
  assertFits(MoeSum, {x: x.shape});
  if (numTokens === 0) {
    return [fillTensor(backend, [numTokens, hiddenSize], 'float32', 0)];
  }
  const sums = runGlsl(backend, {
    name: 'MoeSum',
    inputs: {x: {...x, shape: [numTokens * topk, hiddenSize]}},
    uniforms: {topk},
    output: {shape: [numTokens, hiddenSize], dtype: 'float32'},
    code: `
      void main() {
        ivec2 coords = getOutputCoords();
        float sum = 0.0;
        for (int k = 0; k < topk; k++) { sum += getX(coords.x * topk + k, coords.y); }
        setOutput(sum);
      }`,
  });
  return [sums];
});
