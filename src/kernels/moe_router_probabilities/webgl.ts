/** MoeRouterProbabilities on WebGL, 3 draws: the statistics of each token, its probabilities, and its sum. */
import {MoeRouterProbabilities} from '../../contract/kernel_names';
import {KEYS_GLSL, SCORES_GLSL, SCORING_CODES} from '../router_scores/scorings';
import {assertExact, assertFits, disposeAll, fillTensor, runGlsl, webglKernel} from '../shared/webgl';
import {scoreStatistics} from '../router_scores/webgl';

/** GLSL: what a token's statistics say of it. */
const STATISTICS = `
  uint largestKeyOf(int token) { return orderedBits(getStatistics(token, 0)); }
  bool isNan(int token) {
    bool isInfinite = largestKeyOf(token) == INFINITY_KEY && scoring != ${SCORING_CODES.sigmoid};
    return isInfinite || getStatistics(token, 2) > 0.0;
  }
`;

export const moeRouterProbabilitiesWebGL = webglKernel(
  MoeRouterProbabilities,
  (backend, {routerLogits: logits}, {scoring}) => {
    const [numTokens, numExperts] = logits.shape;
    assertExact(MoeRouterProbabilities, {'the number of experts': numExperts});
    assertFits(MoeRouterProbabilities, {routerLogits: logits.shape});
    if (numTokens === 0) {
      return {
        probabilities: fillTensor(backend, logits.shape, 'float32', 0),
        logSums: fillTensor(backend, [0], 'float32', 0),
      };
    }
    const statistics = scoreStatistics(backend, logits, scoring);
    const uniforms = {scoring: SCORING_CODES[scoring]};
    const probabilities = runGlsl(backend, {
      name: 'MoeRouterProbabilities',
      inputs: {logits, statistics},
      uniforms,
      output: {shape: logits.shape, dtype: 'float32'},
      code: `
        ${KEYS_GLSL}
        ${SCORES_GLSL}
        ${STATISTICS}
        void main() {
          ivec2 coords = getOutputCoords();
          uint largestKey = largestKeyOf(coords.x);
          float probability = 0.0;
          if (largestKey > NEGATIVE_INFINITY_KEY) {
            float relative = relativeScore(orderedBits(getLogits(coords.x, coords.y)), logScore(finiteFloatOfKey(largestKey)));
            probability = relative / getStatistics(coords.x, 1);
          }
          setOutput(isNan(coords.x) ? NAN : probability);
        }`,
    });
    const logSums = runGlsl(backend, {
      name: 'MoeRouterLogSums',
      inputs: {statistics},
      uniforms,
      output: {shape: [numTokens], dtype: 'float32'},
      code: `
        ${KEYS_GLSL}
        ${SCORES_GLSL}
        ${STATISTICS}
        void main() {
          int token = getOutputCoords();
          uint largestKey = largestKeyOf(token);
          float logSum = 0.0;
          if (largestKey > NEGATIVE_INFINITY_KEY) {
            logSum = logScore(finiteFloatOfKey(largestKey)) + log(getStatistics(token, 1));
          }
          setOutput(isNan(token) ? NAN : logSum);
        }`,
    });
    disposeAll(backend, [statistics]);
    return {probabilities, logSums};
  },
);
