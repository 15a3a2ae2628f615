/**
 * MoeRouterProbabilities on WebGPU, 1 launch: the lanes of a token find its largest logit by keys, sum the scores over
 * that of it, and divide.
 */
import {MoeRouterProbabilities} from '../../contract/kernel_names';
import {SCORES_WGSL, SCORING_CODES} from '../router_scores/scorings';
import {assertBindable, entryPoint, newTensor, runWgsl, webgpuKernel} from '../shared/webgpu';
import {LANE_THREADS, LANES_WGSL, laneConstants, type LaneSum, laneSumOf, lanesOf} from '../router_scores/webgpu';

const probabilitiesWgsl = (laneSum: LaneSum): string => /* wgsl */ `
  ${SCORES_WGSL}
  ${LANES_WGSL}
  ${laneSum.wgsl}
  fn summand(at : u32, largest : f32) -> f32 { return relativeScore(orderedBits(logits[at]), largest); }

  ${entryPoint(
    /* wgsl */ `
    if (group * TOKENS >= uniforms.numTokens) { return; }
    let lane = thread % LANES;
    let token = group * TOKENS + thread / LANES;
    let firstLogit = min(token, uniforms.numTokens - 1) * uniforms.numExperts;
    var best = vec2<u32>(0u, NONE);
    for (var e = lane; e < uniforms.numExperts; e += LANES) {
      best.x = max(best.x, badOr(orderedBits(logits[firstLogit + e])));
    }
    let largestKey = bestOfLanes(thread, best).x;
    let largest = logScore(finiteFloatOfKey(largestKey));
    let sum = sumOfLanes(thread, vec2<f32>(sumOfLane(lane, firstLogit, largest), 0)).x;
    if (token >= uniforms.numTokens) { return; }
    let isNan = largestKey == BAD_KEY;
    let hasSum = largestKey != NEGATIVE_INFINITY_KEY;
    for (var e = lane; e < uniforms.numExperts; e += LANES) {
      var probability = 0.0;
      if (hasSum) { probability = summand(firstLogit + e, largest) / sum; }
      probabilities[firstLogit + e] = select(bitcast<u32>(probability), NAN_BITS, isNan);
    }
    if (lane == 0) {
      var logSum = 0.0;
      if (hasSum) { logSum = largest + log(sum); }
      logSums[token] = select(bitcast<u32>(logSum), NAN_BITS, isNan);
    }`,
    LANE_THREADS,
  )}`;

export const moeRouterProbabilitiesWebGPU = webgpuKernel(
  MoeRouterProbabilities,
  (backend, {routerLogits}, {scoring}) => {
    const [numTokens, numExperts] = routerLogits.shape;
    assertBindable(backend, MoeRouterProbabilities, {routerLogits: routerLogits.shape});
    const probabilities = newTensor(backend, [numTokens, numExperts], 'float32');
    const logSums = newTensor(backend, [numTokens], 'float32');
    if (numTokens === 0) {
      return {probabilities, logSums};
    }
    const laneSum = laneSumOf(numExperts);
    runWgsl(backend, {
      name: `MoeRouterProbabilities${laneSum.suffix}`,
      buffers: [
        {name: 'probabilities', type: 'u32', access: 'read_write', tensor: probabilities},
        {name: 'logSums', type: 'u32', access: 'read_write', tensor: logSums},
        {name: 'logits', type: 'u32', access: 'read', tensor: routerLogits},
      ],
      uniforms: {numTokens, numExperts, scoring: SCORING_CODES[scoring], ...laneSum.uniforms},
      constants: laneConstants(numExperts),
      numWorkgroups: Math.ceil((numTokens * lanesOf(numExperts)) / LANE_THREADS),
      code: () => probabilitiesWgsl(laneSum),
    });
    return {probabilities, logSums};
  },
);
