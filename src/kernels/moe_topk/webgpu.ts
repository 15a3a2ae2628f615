/**
 * MoeTopK on WebGPU, 1 launch, nothing read back. A few threads, the lanes, take a token, and a workgroup as many
 * tokens as it has threads for. Keys are compared, u32 in the order of the floats with NaN below all: ties, infinities
 * and NaN are then exact whatever a device's floats do.
 *
 *   1. the keys of the logits go to workgroup memory, or where a row does not fit, to a buffer
 *   2. for a bias or the softmax over all experts: the largest logit of the row, the NaN, and the sum of exp
 *   3. with a bias the keys become those of score + bias
 *   4. the lanes find the best groups, and the keys of all others become 0
 *   5. the K best are chosen, one of two ways:
 *      by rounds  K times: each lane names the best of its experts that has not been chosen, a barrier, and every lane
 *                 finds the best of these. Only the lane that had it looks through its experts again.
 *      by ranks   each expert is compared with all others, which gives its place: more work, and one barrier. For few
 *                 tokens, which leave most of the device idle.
 *
 * Renormalized weights are the softmax of log(score) over the chosen, summed as they come with the largest so far
 * taken out; so none is lost where scores underflow.
 */
import {MoeTopK} from '../../contract/kernel_names';
import {bitsOf, SCORES_WGSL, SCORING_CODES} from '../router_scores/scorings';
import {LANE_THREADS, LANES_WGSL, laneConstants, type LaneSum, laneSumOf, lanesOf} from '../router_scores/webgpu';
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

/** The K best are chosen by rounds. */
const BY_ROUNDS = /* wgsl */ `
  var<private> mine : vec2<u32>;
  var<private> best : vec2<u32>;
  fn startChoosing(lane : u32, firstKey : u32) {
    mine = vec2<u32>(NONE, 0u);
    best = vec2<u32>(0u, lane);
  }
  fn nextBest(thread : u32, lane : u32, firstKey : u32, k : u32) -> vec2<u32> {
    if (best.y % LANES == lane) {
      let last = mine;
      mine = vec2<u32>(0u, NONE);
      for (var e = lane; e < uniforms.numExperts; e += LANES) {
        let other = vec2<u32>(keys[firstKey + e], e);
        if (isBefore(last, other) && other.x > mine.x) { mine = other; }
      }
    }
    best = bestOfLanes(thread, mine);
    return best;
  }
`;

/** The K best are chosen by ranks. There is one token a workgroup. */
const BY_RANKS = /* wgsl */ `
  var<workgroup> chosen : array<vec2<u32>, MAX_RANKED_SLOTS>;
  fn startChoosing(lane : u32, firstKey : u32) {
    for (var e = lane; e < uniforms.numExperts; e += LANES) {
      let own = vec2<u32>(keys[firstKey + e], e);
      var rank = 0u;
      for (var other = 0u; other < uniforms.numExperts; other++) {
        rank += u32(isBefore(vec2<u32>(keys[firstKey + other], other), own));
      }
      if (rank < uniforms.topk) { chosen[rank] = own; }
    }
    workgroupBarrier();
  }
  fn nextBest(thread : u32, lane : u32, firstKey : u32, k : u32) -> vec2<u32> { return chosen[k]; }
`;

/** By ranks up to so many tokens, experts and slots. */
const MAX_RANKED_TOKENS = 64;
const MAX_RANKED_EXPERTS = 256;
const MAX_RANKED_SLOTS = 64;

const topkWgsl = (keys: string, bias: string, choosing: string, laneSum: LaneSum): string => /* wgsl */ `
  ${SCORES_WGSL}
  ${LANES_WGSL}
  ${laneSum.wgsl}
  ${keys}
  ${bias}
  ${choosing}

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
    startChoosing(lane, firstKey);
    for (var k = 0u; k < uniforms.topk; k++) {
      let expert = nextBest(thread, lane, firstKey, k);
      let key = logitKey(expert, firstLogit);
      if (isToken && k % LANES == lane) {
        topkIds[firstSlot + k] = expert.y;
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

    // Infinity has no softmax, but the score 1 or Infinity, beside which the scores of others are 0.
    let isSoftmax = uniforms.scoring == SOFTMAX;
    let isSoftmaxOfChosen = uniforms.isSoftmaxOfChosen != 0;
    let hasInfinity = isSoftmaxOfChosen && isChosenInfinite && uniforms.scoring != SIGMOID;
    let hasNan = isSoftmaxOfChosen && isChosenNan;
    let isNan = row.isNan || hasNan || (hasInfinity && uniforms.scoring != SQRT_SOFTPLUS);
    for (var k = lane; k < uniforms.topk; k += LANES) {
      let key = topkWeights[firstSlot + k];
      var weight = 0.0;
      if (!isSoftmaxOfChosen && !isSoftmax) {
        weight = score(floatOfKey(max(key, FIRST_FINITE_KEY)));
      } else if (key > NEGATIVE_INFINITY_KEY && !hasInfinity) {
        if (isSoftmaxOfChosen) {
          weight = exp(logScore(finiteFloatOfKey(key)) - chosenMax) / chosenSum;
        } else {
          weight = expOfLogit(key, row.largest) / row.sum;
        }
      }
      let isThisNan = isNan || key == NAN_KEY || (hasInfinity && key == INFINITY_KEY);
      topkWeights[firstSlot + k] =
        select(bitcast<u32>(weight * bitcast<f32>(uniforms.scalingBits)), NAN_BITS, isThisNan);
    }`,
    LANE_THREADS,
  )}`;

export const moeTopKWebGPU = webgpuKernel(MoeTopK, (backend, {routerLogits, scoreCorrectionBias}, attrs) => {
  const [numTokens, numExperts] = routerLogits.shape;
  const {topk, scoring, renormalize, numExpertGroups, topkGroups, routedScalingFactor} = attrs;
  assertBindable(backend, MoeTopK, {routerLogits: routerLogits.shape, topkIds: [numTokens, topk]});
  const topkWeights = newTensor(backend, [numTokens, topk], 'float32');
  const topkIds = newTensor(backend, [numTokens, topk], 'int32');
  if (numTokens === 0) {
    return {topkWeights, topkIds};
  }
  const isRanked = numTokens <= MAX_RANKED_TOKENS && numExperts <= MAX_RANKED_EXPERTS && topk <= MAX_RANKED_SLOTS;
  const lanes = isRanked ? LANE_THREADS : lanesOf(numExperts);
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
    name: `MoeTopK${isRanked ? '_ranked' : laneSum.suffix}`,
    buffers,
    uniforms: {
      numTokens,
      numExperts,
      topk,
      scoring: SCORING_CODES[scoring],
      isSoftmaxOfChosen: Number(renormalize || scoring === 'softmaxAfterTopk'),
      numGroups: numExpertGroups,
      topkGroups,
      scalingBits: bitsOf(routedScalingFactor),
      ...laneSum.uniforms,
    },
    constants: {
      ...laneConstants(lanes),
      NUM_KEYS: isRanked ? MAX_RANKED_EXPERTS : Math.min(lanes * LANE_THREADS, MAX_KEYS_IN_WORKGROUP),
      MAX_RANKED_SLOTS,
    },
    numWorkgroups: Math.ceil((numTokens * lanes) / LANE_THREADS),
    code: () =>
      topkWgsl(
        inWorkgroup ? KEYS_IN_WORKGROUP : KEYS_IN_BUFFER,
        hasBias ? WITH_BIAS : WITHOUT_BIAS,
        isRanked ? BY_RANKS : BY_ROUNDS,
        laneSum,
      ),
  });
  disposeAll(backend, keyRows);
  return {topkWeights, topkIds};
});
