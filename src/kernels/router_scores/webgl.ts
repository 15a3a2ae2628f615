import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {MoeKernelScoring} from '../../contract/kernel_names';
import {chainTermsOf, LONG_SUM_GLSL, LONG_SUM_UNIFORMS} from '../shared/long_sums';
import {runGlsl} from '../shared/webgl';
import {KEYS_GLSL, SCORES_GLSL, SCORING_CODES} from './scorings';

/**
 * float32 [T, 3]: of each row of logits the largest, the sum of score / score of the largest, both without NaN, and the
 * number of NaN.
 */
export function scoreStatistics(backend: MathBackendWebGL, logits: TensorInfo, scoring: MoeKernelScoring): TensorInfo {
  const [numTokens, numExperts] = logits.shape;
  return runGlsl(backend, {
    name: 'MoeScoreStatistics',
    inputs: {logits},
    uniforms: {
      numExperts,
      scoring: SCORING_CODES[scoring],
      chainTerms: chainTermsOf(numExperts),
      ...LONG_SUM_UNIFORMS,
    },
    output: {shape: [numTokens, 3], dtype: 'float32'},
    code: `
      ${KEYS_GLSL}
      ${SCORES_GLSL}
      ${LONG_SUM_GLSL}
      void main() {
        ivec2 coords = getOutputCoords();
        uint largestKey = NAN_KEY;
        float numNan = 0.0;
        for (int e = 0; e < numExperts; e++) {
          uint key = orderedBits(getLogits(coords.x, e));
          largestKey = max(largestKey, key);
          if (key == NAN_KEY) { numNan++; }
        }
        float result = coords.y == 0 ? floatOfKey(largestKey) : numNan;
        if (coords.y == 1) {
          result = 0.0;
          float rest = 0.0;
          float largest = logScore(finiteFloatOfKey(largestKey));
          for (int first = 0; first < numExperts; first += chainTerms) {
            float chain = 0.0;
            for (int e = first; e < min(first + chainTerms, numExperts); e++) {
              uint key = orderedBits(getLogits(coords.x, e));
              if (key != NAN_KEY) { chain += relativeScore(key, largest); }
            }
            addChain(result, rest, chain);
          }
        }
        setOutput(result);
      }`,
  });
}
