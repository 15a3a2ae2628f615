/** MoeRouterProbabilities on the host, in double. */
import {MoeRouterProbabilities} from '../../contract/kernel_names';
import {hostKernel} from '../shared/host_kernel';
import {logSumExp, scoreFunctions, softmax} from '../router_scores/scorings';

export const moeRouterProbabilitiesCpu = hostKernel(MoeRouterProbabilities, ({routerLogits}, {scoring}) => {
  const [numTokens, numExperts] = routerLogits.shape;
  const {logScore} = scoreFunctions[scoring];
  const probabilities = new Float32Array(numTokens * numExperts);
  const logSums = new Float32Array(numTokens);
  for (let token = 0; token < numTokens; token++) {
    const logits = routerLogits.values.subarray(token * numExperts, (token + 1) * numExperts);
    const logScores = Float64Array.from(logits, logScore);
    probabilities.set(softmax(logScores), token * numExperts);
    logSums[token] = logSumExp(logScores);
  }
  return {
    probabilities: {values: probabilities, shape: [numTokens, numExperts]},
    logSums: {values: logSums, shape: [numTokens]},
  };
});
