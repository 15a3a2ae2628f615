/**
 * MoeTopK on WebGPU, 1 launch, nothing read back. webgpu_few_tokens.ts is for few tokens. Here a few threads, the
 * lanes, take a token, and a workgroup as many tokens as it has threads for. Keys are compared, u32 in the order of the
 * floats with NaN below all: ties, infinities and NaN are then exact whatever a device's floats do.
 *
 *   1. the keys of the logits go to workgroup memory, or where a row does not fit, to a buffer
 *   2. for a bias or the softmax over all experts: the largest logit of the row, the NaN, and the sum of exp
 *   3. with a bias the keys become those of score + bias
 *   4. the lanes find the best groups, and the keys of all others become 0
 *   5. K times: each lane names the best of its experts that has not been chosen, a barrier, and every lane finds the
 *      best of these. Only the lane that had it looks through its experts again.
 *
 * Renormalized weights are the softmax of log(score) over the chosen, summed as they come with the largest so far taken
 * out; so none is lost where scores underflow.
 */
import {MoeTopK} from '../../contract/kernel_names';
import {bitsOf, SCORES_WGSL, SCORING_CODES} from '../router_scores/scorings';
import {LANE_THREADS, LANES_WGSL, laneConstants, type LaneSum, laneSumOf, lanesOf} from '../router_scores/webgpu';
import {WEIGHTS_WGSL} from './webgpu_weights';
import {chooseForFewTokens, isFewTokens} from './webgpu_few_tokens';
import {
  assertBindable,
  disposeAll,
  entryPoint,
  newTensor,
  runWgsl,
  type StorageBinding,
  webgpuKernel,
} from '../shared/webgpu';

/** Keys that fit beside what lanes exchange in the 16 KiB of workgroup memory that every device has. */
const MAX_KEYS_IN_WORKGROUP = 3584;

const KEYS_IN_WORKGROUP = /* wgsl */ `
  var<workgroup> keys : array<u32, NUM_KEYS>;
  fn firstKeyOf(group : u32) -> u32 { return 0; }
  fn barrierOfKeys() { workgroupBarrier(); }
`;

/** Keys in a buffer, where the logits are. There is one token a workgroup. */
const KEYS_IN_BUFFER = /* wgsl */ `
  fn firstKeyOf(group : u32) -> u32 { return group * TOKENS * uniforms.numExperts; }
  fn barrierOfKeys() {
    storageBarrier();
    workgroupBarrier();
  }
`;

/** The logits are compared, and the largest of a group is its value. */
const WITHOUT_BIAS = /* wgsl */ `
  fn needsRow() -> bool { return uniforms.scoring == SOFTMAX; }
  fn needsSumOfRow() -> bool { return uniforms.scoring == SOFTMAX && uniforms.isSoftmaxOfChosen == 0; }
  fn compareScores(lane : u32, firstKey : u32, row : Row) {}
  fn groupKey(largestTwo : vec2<u32>, groupSize : u32) -> u32 { return largestTwo.x; }
  fn logitKey(chosen : vec2<u32>, firstLogit : u32) -> u32 { return chosen.x; }
`;

/** Scores + bias are compared, and the sum of the two largest of a group is its value. */
const WITH_BIAS = /* wgsl */ `
  fn needsRow() -> bool { return true; }
  fn needsSumOfRow() -> bool { return uniforms.scoring == SOFTMAX; }
  fn biasedKey(key : u32, bias : u32, row : Row) -> u32 {
    if (row.isNan || key == NAN_KEY || orderedBits(bias) == NAN_KEY) { return NAN_KEY; }
    var compared = bitcast<f32>(bias);
    if (uniforms.scoring == SOFTMAX) {
      compared += expOfLogit(key, row.largest) / row.sum;
    } else {
      compared += score(floatOfKey(max(key, FIRST_FINITE_KEY)));
    }
    return orderedBits(bitcast<u32>(compared));
  }
  fn compareScores(lane : u32, firstKey : u32, row : Row) {
    // Scores of nothing but -Infinity are all alike; such a row is not routed by its bias.
    if (row.largestKey > NEGATIVE_INFINITY_KEY || row.numNan > 0) {
      for (var e = lane; e < uniforms.numExperts; e += LANES) {
        keys[firstKey + e] = biasedKey(keys[firstKey + e], bias[e], row);
      }
    }
    barrierOfKeys();
  }
  fn groupKey(largestTwo : vec2<u32>, groupSize : u32) -> u32 {
    if (groupSize == 1) { return largestTwo.x; }
    if (largestTwo.y == NAN_KEY) { return NAN_KEY; }
    return orderedBits(bitcast<u32>(floatOfKey(largestTwo.x) + floatOfKey(largestTwo.y)));
  }
  fn logitKey(chosen : vec2<u32>, firstLogit : u32) -> u32 { return orderedBits(logits[firstLogit + chosen.y]); }
`;

const topkWgsl = (keys: string, bias: string, laneSum: LaneSum): string => /* wgsl */ `
  ${SCORES_WGSL}
  ${LANES_WGSL}
  ${laneSum.wgsl}
  ${keys}
  ${bias}

  ${WEIGHTS_WGSL}

  // Whether weights are the softmax over all experts.
  fn needsSumOfWeights() -> bool { return uniforms.scoring == SOFTMAX && uniforms.isSoftmaxOfChosen == 0; }

  // What all experts of a token have in common.
  struct Row { largestKey : u32, largest : f32, sum : f32, numNan : f32, isNan : bool }

  // exp(logit - largest), 0 for NaN.
  fn expOfLogit(key : u32, largest : f32) -> f32 {
    if (key > NEGATIVE_INFINITY_KEY) { return exp(floatOfKey(key) - largest); }
    return 0.0;
  }

  fn summand(at : u32, largest : f32) -> f32 { return expOfLogit(keys[at], largest); }

  fn rowOf(thread : u32, lane : u32, firstKey : u32) -> Row {
    if (!needsRow()) { return Row(); }
    var largest = vec2<u32>(0u, NONE);
    var numNan = 0.0;
    for (var e = lane; e < uniforms.numExperts; e += LANES) {
      let key = keys[firstKey + e];
      largest.x = max(largest.x, key);
      if (key == NAN_KEY) { numNan += 1; }
    }
    let largestKey = bestOfLanes(thread, largest).x;
    var sum = 0.0;
    if (needsSumOfRow()) { sum = sumOfLane(lane, firstKey, floatOfKey(largestKey)); }
    let sums = sumOfLanes(thread, vec2<f32>(sum, numNan));
    let isNan = uniforms.scoring == SOFTMAX && (sums.y > 0 || largestKey == INFINITY_KEY);
    return Row(largestKey, floatOfKey(largestKey), sums.x, sums.y, isNan);
  }

  // The value of a group, and its number.
  fn valuedGroup(firstKey : u32, g : u32) -> vec2<u32> {
    let groupSize = uniforms.numExperts / uniforms.numGroups;
    var largestTwo = vec2<u32>();
    for (var i = 0u; i < groupSize; i++) {
      let key = keys[firstKey + g * groupSize + i];
      largestTwo = vec2<u32>(max(largestTwo.x, key), max(largestTwo.y, min(key, largestTwo.x)));
    }
    return vec2<u32>(groupKey(largestTwo, groupSize), g);
  }

  fn dropGroups(thread : u32, lane : u32, firstKey : u32) {
    let groupSize = uniforms.numExperts / uniforms.numGroups;
    var mine = vec2<u32>(NONE, 0u);
    var best = vec2<u32>(0u, lane);
    for (var kept = 0u; kept < uniforms.topkGroups; kept++) {
      if (best.y % LANES == lane) {
        let last = mine;
        mine = vec2<u32>(0u, NONE);
        for (var g = lane; g < uniforms.numGroups; g += LANES) {
          let other = valuedGroup(firstKey, g);
          if (isBefore(last, other) && isBefore(other, mine)) { mine = other; }
        }
      }
      best = bestOfLanes(thread, mine);
    }
    // Now the best is the last group that stays.
    for (var g = lane; g < uniforms.numGroups; g += LANES) {
      if (isBefore(best, valuedGroup(firstKey, g))) {
        for (var i = 0u; i < groupSize; i++) { keys[firstKey + g * groupSize + i] = 0; }
      }
    }
    barrierOfKeys();
  }

  ${entryPoint(
    /* wgsl */ `
    if (group * TOKENS >= uniforms.numTokens) { return; }
    let lane = thread % LANES;
    let token = group * TOKENS + thread / LANES;
    let isToken = token < uniforms.numTokens;
    let firstLogit = min(token, uniforms.numTokens - 1) * uniforms.numExperts;
    let firstKey = firstKeyOf(group) + thread / LANES * uniforms.numExperts;
    let lastLogit = uniforms.numTokens * uniforms.numExperts - 1;
    for (var i = thread; i < TOKENS * uniforms.numExperts; i += NUM_THREADS) {
      keys[firstKeyOf(group) + i] = orderedBits(logits[min(group * TOKENS * uniforms.numExperts + i, lastLogit)]);
    }
    barrierOfKeys();

    let row = rowOf(thread, lane, firstKey);
    compareScores(lane, firstKey, row);
    if (uniforms.numGroups > 1) { dropGroups(thread, lane, firstKey); }

    // The largest log(score) of the chosen, and the sum of exp(log(score) - largest).
    var chosenMax = floatOfKey(FIRST_FINITE_KEY);
    var chosenSum = 0.0;
    var isChosenNan = false;
    var isChosenInfinite = false;
    let firstSlot = token * uniforms.topk;
    var mine = vec2<u32>(NONE, 0u);
    var best = vec2<u32>(0u, lane);
    for (var k = 0u; k < uniforms.topk; k++) {
      if (best.y % LANES == lane) {
        let last = mine;
        mine = vec2<u32>(0u, NONE);
        for (var e = lane; e < uniforms.numExperts; e += LANES) {
          let other = vec2<u32>(keys[firstKey + e], e);
          if (isBefore(last, other) && other.x > mine.x) { mine = other; }
        }
      }
      best = bestOfLanes(thread, mine);
      let key = logitKey(best, firstLogit);
      if (isToken && k % LANES == lane) {
        topkIds[firstSlot + k] = best.y;
        topkWeights[firstSlot + k] = key;
      }
      isChosenNan |= key == NAN_KEY;
      isChosenInfinite |= key == INFINITY_KEY;
      if (key > NEGATIVE_INFINITY_KEY) {
        let l = logScore(finiteFloatOfKey(key));
        let larger = max(l, chosenMax);
        chosenSum = chosenSum * exp(chosenMax - larger) + exp(l - larger);
        chosenMax = larger;
      }
    }
    if (!isToken) { return; }

    let chosen = chosenOf(chosenMax, chosenSum, isChosenInfinite, row.isNan, isChosenNan);
    for (var k = lane; k < uniforms.topk; k += LANES) {
      let key = topkWeights[firstSlot + k];
      var weight = weightOf(key, chosen);
      if (needsSumOfWeights()) {
        weight = select(0.0, expOfLogit(key, row.largest) / row.sum, key > NEGATIVE_INFINITY_KEY);
      }
      topkWeights[firstSlot + k] = scaledBits(weight, key, chosen);
    }`,
    LANE_THREADS,
  )}`;

export const moeTopKWebGPU = webgpuKernel(MoeTopK, (backend, {routerLogits, scoreCorrectionBias}, attrs) => {
  const [numTokens, numExperts] = routerLogits.shape;
  const {topk, scoring, renormalize, numExpertGroups, topkGroups, routedScalingFactor} = attrs;
  const isSoftmaxOfChosen = renormalize || scoring === 'softmaxAfterTopk';
  assertBindable(backend, MoeTopK, {routerLogits: routerLogits.shape, topkIds: [numTokens, topk]});
  const topkWeights = newTensor(backend, [numTokens, topk], 'float32');
  const topkIds = newTensor(backend, [numTokens, topk], 'int32');
  if (numTokens === 0) {
    return {topkWeights, topkIds};
  }
  if (scoreCorrectionBias == null && isFewTokens(routerLogits.shape, attrs)) {
    chooseForFewTokens(backend, routerLogits, attrs, topkWeights, topkIds);
    return {topkWeights, topkIds};
  }
  const lanes = lanesOf(numExperts);
  const laneSum = laneSumOf(numExperts);
  const hasBias = scoreCorrectionBias != null;
  const inWorkgroup = numExperts <= MAX_KEYS_IN_WORKGROUP;
  const keyRows = inWorkgroup ? [] : [newTensor(backend, [numTokens, numExperts], 'int32')];
  const buffers: StorageBinding[] = [
    {name: 'topkWeights', type: 'u32', access: 'read_write', tensor: topkWeights},
    {name: 'topkIds', type: 'u32', access: 'read_write', tensor: topkIds},
    {name: 'logits', type: 'u32', access: 'read', tensor: routerLogits},
    ...(hasBias ? [{name: 'bias', type: 'u32', access: 'read', tensor: scoreCorrectionBias} as const] : []),
    ...keyRows.map((tensor) => ({name: 'keys', type: 'u32', access: 'read_write', tensor}) as const),
  ];
  runWgsl(backend, {
    name: `MoeTopK${laneSum.suffix}`,
    buffers,
    uniforms: {
      numTokens,
      numExperts,
      topk,
      scoring: SCORING_CODES[scoring],
      isSoftmaxOfChosen: Number(isSoftmaxOfChosen),
      numGroups: numExpertGroups,
      topkGroups,
      scalingBits: bitsOf(routedScalingFactor),
      ...laneSum.uniforms,
    },
    constants: {...laneConstants(numExperts), NUM_KEYS: Math.min(lanes * LANE_THREADS, MAX_KEYS_IN_WORKGROUP)},
    numWorkgroups: Math.ceil((numTokens * lanes) / LANE_THREADS),
    code: () => topkWgsl(inWorkgroup ? KEYS_IN_WORKGROUP : KEYS_IN_BUFFER, hasBias ? WITH_BIAS : WITHOUT_BIAS, laneSum),
  });
  disposeAll(backend, keyRows);
  return {topkWeights, topkIds};
});
