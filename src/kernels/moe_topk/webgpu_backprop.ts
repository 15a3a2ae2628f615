/**
 * MoeTopKBackprop on WebGPU, 1 launch. A workgroup takes its tokens' rows: the softmax of what was chosen from, 0 or
 * the softmax's part to every expert, a barrier, and then what belongs to the chosen.
 */
import {MoeTopKBackprop} from '../../contract/kernel_names';
import {bitsOf, SCORES_WGSL, SCORING_CODES} from '../router_scores/scorings';
import {LANE_THREADS, LANES_WGSL, laneConstants, type LaneSum, laneSumOf, lanesOf} from '../router_scores/webgpu';
import {assertBindable, entryPoint, newTensor, runWgsl, webgpuKernel} from '../shared/webgpu';

const topkBackpropWgsl = (laneSum: LaneSum): string => /* wgsl */ `
  ${SCORES_WGSL}
  ${LANES_WGSL}
  ${laneSum.wgsl}
  fn summand(at : u32, largest : f32) -> f32 { return relativeScore(orderedBits(logits[at]), largest); }

  ${entryPoint(
    /* wgsl */ `
    if (group * TOKENS >= uniforms.numTokens) { return; }
    let lane = thread % LANES;
    let token = group * TOKENS + thread / LANES;
    let isToken = token < uniforms.numTokens;
    let row = min(token, uniforms.numTokens - 1);
    let firstLogit = row * uniforms.numExperts;
    let firstSlot = row * uniforms.topk;
    let isOfRow = uniforms.scoring == SOFTMAX;
    let isSoftmaxOfAll = uniforms.isSoftmaxOfAll != 0;
    let isSoftmax = isSoftmaxOfAll || uniforms.isSoftmaxOfChosen != 0;
    let scaling = bitcast<f32>(uniforms.scalingBits);

    var best = vec2<u32>(0u, NONE);
    if (isOfRow) {
      for (var e = lane; e < uniforms.numExperts; e += LANES) {
        let key = badOr(orderedBits(logits[firstLogit + e]));
        if (isSoftmaxOfAll || key == BAD_KEY) { best.x = max(best.x, key); }
      }
    }
    if (!isSoftmaxOfAll) {
      for (var k = lane; k < uniforms.topk; k += LANES) {
        best.x = max(best.x, badOr(orderedBits(logits[firstLogit + topkIds[firstSlot + k]])));
      }
    }
    let largestKey = bestOfLanes(thread, best).x;
    let largest = logScore(finiteFloatOfKey(largestKey));
    // Weights are NaN then, and so is the gradient of all that they are made of.
    let isNan = isSoftmax && largestKey == BAD_KEY;

    // The sum of the relative scores, and the sum of the chosen ones times their dy.
    var sums = vec2<f32>();
    for (var k = lane; k < uniforms.topk; k += LANES) {
      let relative = relativeScore(orderedBits(logits[firstLogit + topkIds[firstSlot + k]]), largest);
      sums += vec2<f32>(relative, relative * dTopkWeights[firstSlot + k]);
    }
    if (isSoftmaxOfAll) { sums.x = sumOfLane(lane, firstLogit, largest); }
    sums = sumOfLanes(thread, sums);
    let mean = select(0.0, sums.y / sums.x, isSoftmax && sums.x != 0);

    for (var e = lane; e < uniforms.numExperts && isToken; e += LANES) {
      let key = orderedBits(logits[firstLogit + e]);
      var dLogit = 0.0;
      if (isSoftmaxOfAll && key != NEGATIVE_INFINITY_KEY) {
        dLogit = -(relativeScore(key, largest) / sums.x) * mean * scaling;
      }
      dLogits[firstLogit + e] = select(bitcast<u32>(dLogit), NAN_BITS, isNan && isOfRow);
    }
    storageBarrier();
    for (var k = lane; k < uniforms.topk && isToken; k += LANES) {
      let e = firstLogit + topkIds[firstSlot + k];
      let key = orderedBits(logits[e]);
      var dLogit = 0.0;
      if (key != NEGATIVE_INFINITY_KEY) {
        let x = finiteFloatOfKey(key);
        let dWeight = dTopkWeights[firstSlot + k];
        if (isSoftmax) {
          dLogit = relativeScore(key, largest) / sums.x * (dWeight - mean) * slope(x);
        } else if (key != INFINITY_KEY) {
          dLogit = dWeight * scoreSlope(x);
        }
        // Last: scaled before, what is added could overflow where the result does not.
        dLogit *= scaling;
      }
      dLogits[e] = select(bitcast<u32>(dLogit), NAN_BITS, isNan || key == NAN_KEY);
    }`,
    LANE_THREADS,
  )}`;

export const moeTopKBackpropWebGPU = webgpuKernel(
  MoeTopKBackprop,
  (backend, {dTopkWeights, routerLogits, topkIds}, {scoring, renormalize, routedScalingFactor}) => {
    const [numTokens, numExperts] = routerLogits.shape;
    assertBindable(backend, MoeTopKBackprop, {routerLogits: routerLogits.shape, topkIds: topkIds.shape});
    const dLogits = newTensor(backend, [numTokens, numExperts], 'float32');
    if (numTokens === 0) {
      return {dRouterLogits: dLogits};
    }
    const laneSum = laneSumOf(numExperts);
    runWgsl(backend, {
      name: `MoeTopKBackprop${laneSum.suffix}`,
      buffers: [
        {name: 'dLogits', type: 'u32', access: 'read_write', tensor: dLogits},
        {name: 'dTopkWeights', type: 'f32', access: 'read', tensor: dTopkWeights},
        {name: 'logits', type: 'u32', access: 'read', tensor: routerLogits},
        {name: 'topkIds', type: 'u32', access: 'read', tensor: topkIds},
      ],
      uniforms: {
        numTokens,
        numExperts,
        topk: topkIds.shape[1],
        scoring: SCORING_CODES[scoring],
        isSoftmaxOfAll: Number(scoring === 'softmax' && !renormalize),
        isSoftmaxOfChosen: Number(renormalize || scoring === 'softmaxAfterTopk'),
        scalingBits: bitsOf(routedScalingFactor),
        ...laneSum.uniforms,
      },
      constants: laneConstants(numExperts),
      numWorkgroups: Math.ceil((numTokens * lanesOf(numExperts)) / LANE_THREADS),
      code: () => topkBackpropWgsl(laneSum),
    });
    return {dRouterLogits: dLogits};
  },
);
