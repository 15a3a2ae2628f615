/** MoeSum on WebGL: 1 draw, a fragment sums the K values of one element of the result, in slot order. */
import {MoeSum} from '../../contract/kernel_names';
import {chainTermsOf, LONG_SUM_GLSL, LONG_SUM_UNIFORMS} from '../shared/long_sums';
import {assertFits, fillTensor, runGlsl, webglKernel} from '../shared/webgl';

export const moeSumWebGL = webglKernel(MoeSum, (backend, {x}) => {
  const [numTokens, topk, hiddenSize] = x.shape;
  assertFits(MoeSum, {x: x.shape});
  if (numTokens === 0) {
    return {out: fillTensor(backend, [numTokens, hiddenSize], 'float32', 0)};
  }
  const sums = runGlsl(backend, {
    name: 'MoeSum',
    inputs: {x: {...x, shape: [numTokens * topk, hiddenSize]}},
    uniforms: {topk, chainTerms: chainTermsOf(topk), ...LONG_SUM_UNIFORMS},
    output: {shape: [numTokens, hiddenSize], dtype: 'float32'},
    code: `
      ${LONG_SUM_GLSL}
      void main() {
        ivec2 coords = getOutputCoords();
        float sum = 0.0;
        float rest = 0.0;
        for (int first = 0; first < topk; first += chainTerms) {
          float chain = 0.0;
          for (int k = first; k < min(first + chainTerms, topk); k++) { chain += getX(coords.x * topk + k, coords.y); }
          addChain(sum, rest, chain);
        }
        setOutput(sum);
      }`,
  });
  return {out: sums};
});
