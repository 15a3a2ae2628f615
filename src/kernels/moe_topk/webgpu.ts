/**
 * MoeTopK and its gradient on WebGPU, 1 launch each, nothing read back. A few threads, the lanes, take a token, and a
 * workgroup as many tokens as it has threads for. What is compared are keys, u32 in the order of the floats with NaN
 * below all: ties, infinities and NaN are then exact whatever a device's floats do.
 *
 *   1. the keys of the logits go to workgroup memory, or where a row does not fit, to a buffer
 *   2. for a bias or the softmax over all experts: the largest logit of the row, the NaN, and the sum of exp
 *   3. with a bias the keys become those of score + bias
 *   4. the lanes find the best groups, and the keys of all others become 0
 *   5. K times: each lane names the best of its experts that has not been chosen, a barrier, and every lane finds the
 *      best of these. Only the lane that had it looks through its experts again.
 *
 * Renormalized weights are the softmax of log(score) over the chosen, summed as they come with the largest so far
 * taken out; so none is lost where scores underflow.
 */
import {MoeTopK, MoeTopKBackprop} from '../../kernel_names';
import {
  assertBindable,
  disposeAll,
  entryPoint,
  newTensor,
  runWgsl,
  type StorageBinding,
  webgpuKernel,
} from '../shared/webgpu';
import {bitsOf, SCORING_CODES} from './codes';

const THREADS = 64;
/** Keys that fit beside what lanes exchange in the 16 KiB of workgroup memory that every device has. */
const MAX_KEYS_IN_WORKGROUP = 3584;

/** About as many lanes as each has experts: in a step, one looks through its own, and all through all lanes. */
function lanesOf(numExperts: number): number {
  let lanes = 4;
  while (lanes < THREADS && lanes * lanes < numExperts) {
    lanes *= 2;
  }
  return lanes;
}

/** WGSL: floats and their order. Results are u32 too, so that NaN leaves as it should. */
const FLOATS = `
  const NAN_BITS = 0x7fc00000u;
  // Keys: u32 in the order of the floats. No float has 0; NaN is below -Infinity.
  const NAN_KEY = 1u;
  const NEGATIVE_INFINITY_KEY = 0x007fffffu;
  const FIRST_FINITE_KEY = 0x00800000u;
  const LAST_FINITE_KEY = 0xff7fffffu;
  const INFINITY_KEY = 0xff800000u;

  fn keyOf(bits : u32) -> u32 {
    let magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) { return NAN_KEY; }
    if (magnitude == 0) { return 0x80000000u; }
    return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
  }

  fn valueOf(key : u32) -> f32 { return bitcast<f32>(select(~key, key & 0x7fffffffu, key >= 0x80000000u)); }

  fn finiteValueOf(key : u32) -> f32 { return valueOf(clamp(key, FIRST_FINITE_KEY, LAST_FINITE_KEY)); }

  // 2 * atanh(z / (2 + z)) for z in 0..1, where log(1 + z) would lose the digits of a small z.
  fn log1p(z : f32) -> f32 {
    let s = z / (2 + z);
    let q = s * s;
    let tail = 1.0 / 7 + q * (1.0 / 9 + q * (1.0 / 11 + q / 13));
    return 2 * s * (1 + q * (1.0 / 3 + q * (1.0 / 5 + q * tail)));
  }

  fn softplus(x : f32) -> f32 { return max(x, 0) + log1p(exp(-abs(x))); }

  fn sigmoid(x : f32) -> f32 {
    let z = exp(-abs(x));
    return select(z, 1.0, x >= 0) / (1 + z);
  }

  // Below this, log(softplus(x)) is x - exp(x) / 2.
  const SMALL = -10.0;

  fn score(x : f32) -> f32 {
    if (uniforms.scoring == ${SCORING_CODES.sigmoid}) { return sigmoid(x); }
    return sqrt(softplus(x));
  }

  fn logScore(x : f32) -> f32 {
    switch (uniforms.scoring) {
      case ${SCORING_CODES.sigmoid}: { return -softplus(-x); }
      case ${SCORING_CODES.sqrtSoftplus}: {
        if (x < SMALL) { return (x - exp(x) / 2) / 2; }
        return log(softplus(x)) / 2;
      }
      default: { return x; }
    }
  }
`;

/**
 * WGSL: what the lanes of a token say to each other, each time in the half that none can still be reading, so that one
 * barrier is enough.
 */
const exchangeOf = (barrier: string) => `
  const THREADS = ${THREADS}u;
  const NONE = 0xffffffffu;
  var<workgroup> said : array<vec2<u32>, 2 * THREADS>;
  var<private> saidFrom = 0u;

  // The best key and its id, ties to the lower id.
  fn bestOfLanes(thread : u32, mine : vec2<u32>) -> vec2<u32> {
    saidFrom = THREADS - saidFrom;
    said[saidFrom + thread] = mine;
    ${barrier}
    let first = saidFrom + thread / LANES * LANES;
    var best = vec2<u32>(0u, NONE);
    for (var lane = 0u; lane < LANES; lane++) {
      let other = said[first + lane];
      if (isBefore(other, best)) { best = other; }
    }
    return best;
  }

  fn sumOfLanes(thread : u32, mine : vec2<f32>) -> vec2<f32> {
    saidFrom = THREADS - saidFrom;
    said[saidFrom + thread] = bitcast<vec2<u32>>(mine);
    ${barrier}
    let first = saidFrom + thread / LANES * LANES;
    var sum = vec2<f32>();
    for (var lane = 0u; lane < LANES; lane++) { sum += bitcast<vec2<f32>>(said[first + lane]); }
    return sum;
  }

  fn isBefore(a : vec2<u32>, b : vec2<u32>) -> bool { return a.x > b.x || (a.x == b.x && a.y < b.y); }
`;

export const moeTopKWebGPU = webgpuKernel(MoeTopK, (backend, {routerLogits, scoreCorrectionBias}, attrs) => {
  const [numTokens, numExperts] = routerLogits.shape;
  const {topk, scoring, renormalize, numExpertGroups, topkGroups, routedScalingFactor} = attrs;
  assertBindable(backend, MoeTopK, {routerLogits: routerLogits.shape, topkIds: [numTokens, topk]});
  const topkWeights = newTensor(backend, [numTokens, topk], 'float32');
  const topkIds = newTensor(backend, [numTokens, topk], 'int32');
  if (numTokens === 0) {
    return [topkWeights, topkIds];
  }
  const lanes = lanesOf(numExperts);
  const tokensPerWorkgroup = THREADS / lanes;
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
    name: 'MoeTopK',
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
    },
    // One pipeline for all numbers of experts that have as many lanes.
    constants: {LANES: lanes},
    numWorkgroups: Math.ceil(numTokens / tokensPerWorkgroup),
    code: () => topkCode(hasBias, inWorkgroup, Math.min(lanes * THREADS, MAX_KEYS_IN_WORKGROUP)),
  });
  disposeAll(backend, keyRows);
  return [topkWeights, topkIds];
});

function topkCode(hasBias: boolean, inWorkgroup: boolean, numKeys: number): string {
  const barrier = inWorkgroup ? 'workgroupBarrier();' : 'storageBarrier(); workgroupBarrier();';
  return `
    const TOKENS = ${THREADS}u / LANES;
    ${inWorkgroup ? `var<workgroup> keys : array<u32, ${numKeys}>;` : ''}
    ${FLOATS}
    ${exchangeOf(barrier)}

    // With a bias a group's value is the sum of its two largest, else its largest.
    fn groupKey(firstKey : u32, groupSize : u32) -> u32 {
      var largest = 0u;
      var second = 0u;
      for (var i = 0u; i < groupSize; i++) {
        let key = keys[firstKey + i];
        second = max(second, min(key, largest));
        largest = max(largest, key);
      }
      ${hasBias
        ? `if (groupSize > 1) {
             if (second == NAN_KEY) { return NAN_KEY; }
             return keyOf(bitcast<u32>(valueOf(largest) + valueOf(second)));
           }`
        : ''}
      return largest;
    }

    ${entryPoint(
      `
      if (group * TOKENS >= uniforms.numTokens) { return; }
      let lane = thread % LANES;
      let token = group * TOKENS + thread / LANES;
      let firstLogit = min(token, uniforms.numTokens - 1) * uniforms.numExperts;
      // In a buffer there is one token a workgroup, and its keys are where its logits are.
      let workgroupLogit = group * TOKENS * uniforms.numExperts;
      let workgroupKey = ${inWorkgroup ? '0u' : 'workgroupLogit'};
      let firstKey = workgroupKey + thread / LANES * uniforms.numExperts;
      let lastLogit = uniforms.numTokens * uniforms.numExperts - 1;
      for (var i = thread; i < TOKENS * uniforms.numExperts; i += THREADS) {
        keys[workgroupKey + i] = keyOf(logits[min(workgroupLogit + i, lastLogit)]);
      }
      ${barrier}

      let isSoftmax = uniforms.scoring == ${SCORING_CODES.softmax};
      var rowMax = 0.0;
      var rowSum = 1.0;
      var isRowNan = false;
      if (${hasBias ? 'true' : 'isSoftmax'}) {
        var largest = vec2<u32>(0u, NONE);
        var numNan = 0.0;
        for (var e = lane; e < uniforms.numExperts; e += LANES) {
          let key = keys[firstKey + e];
          largest.x = max(largest.x, key);
          if (key == NAN_KEY) { numNan += 1; }
        }
        largest = bestOfLanes(thread, largest);
        rowMax = valueOf(largest.x);
        var sum = 0.0;
        if (isSoftmax && ${hasBias ? 'true' : 'uniforms.isSoftmaxOfChosen == 0'}) {
          for (var e = lane; e < uniforms.numExperts; e += LANES) {
            let key = keys[firstKey + e];
            if (key > NEGATIVE_INFINITY_KEY) { sum += exp(valueOf(key) - rowMax); }
          }
        }
        let sums = sumOfLanes(thread, vec2<f32>(sum, numNan));
        rowSum = sums.x;
        isRowNan = isSoftmax && (sums.y > 0 || largest.x == INFINITY_KEY);
        ${hasBias
          ? `
        // Scores of nothing but -Infinity are all alike; such a row is not routed by its bias.
        if (largest.x > NEGATIVE_INFINITY_KEY || sums.y > 0) {
          for (var e = lane; e < uniforms.numExperts; e += LANES) {
            let key = keys[firstKey + e];
            var compared = NAN_KEY;
            if (!isRowNan && key != NAN_KEY) {
              var s = 0.0;
              if (!isSoftmax) {
                s = score(valueOf(max(key, FIRST_FINITE_KEY)));
              } else if (key > NEGATIVE_INFINITY_KEY) {
                s = exp(valueOf(key) - rowMax) / rowSum;
              }
              if (keyOf(bias[e]) != NAN_KEY) { compared = keyOf(bitcast<u32>(s + bitcast<f32>(bias[e]))); }
            }
            keys[firstKey + e] = compared;
          }
        }
        ${barrier}`
          : ''}
      }

      if (uniforms.numGroups > 1) {
        let groupSize = uniforms.numExperts / uniforms.numGroups;
        var mine = vec2<u32>(NONE, 0u);
        var best = vec2<u32>(0u, lane);
        for (var kept = 0u; kept < uniforms.topkGroups; kept++) {
          if (best.y % LANES == lane) {
            let last = mine;
            mine = vec2<u32>(0u, NONE);
            for (var g = lane; g < uniforms.numGroups; g += LANES) {
              let other = vec2<u32>(groupKey(firstKey + g * groupSize, groupSize), g);
              if (isBefore(last, other) && isBefore(other, mine)) { mine = other; }
            }
          }
          best = bestOfLanes(thread, mine);
        }
        // Now \`best\` is the last group that stays.
        for (var g = lane; g < uniforms.numGroups; g += LANES) {
          if (isBefore(best, vec2<u32>(groupKey(firstKey + g * groupSize, groupSize), g))) {
            for (var i = 0u; i < groupSize; i++) { keys[firstKey + g * groupSize + i] = 0; }
          }
        }
        ${barrier}
      }

      // The largest log(score) of the chosen, and the sum of exp(log(score) - largest).
      var chosenMax = valueOf(FIRST_FINITE_KEY);
      var chosenSum = 0.0;
      var isChosenNan = false;
      var isChosenInfinite = false;
      let firstSlot = token * uniforms.topk;
      let isToken = token < uniforms.numTokens;
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
        let key = ${hasBias ? 'keyOf(logits[firstLogit + best.y])' : 'best.x'};
        if (isToken && k % LANES == lane) {
          topkIds[firstSlot + k] = best.y;
          topkWeights[firstSlot + k] = key;
        }
        isChosenNan |= key == NAN_KEY;
        isChosenInfinite |= key == INFINITY_KEY;
        if (key > NEGATIVE_INFINITY_KEY) {
          let l = logScore(finiteValueOf(key));
          let larger = max(l, chosenMax);
          chosenSum = chosenSum * exp(chosenMax - larger) + exp(l - larger);
          chosenMax = larger;
        }
      }

      // Infinity has no softmax, but the score 1 or Infinity, beside which the scores of others are 0.
      let isSqrtSoftplus = uniforms.scoring == ${SCORING_CODES.sqrtSoftplus};
      let isSoftmaxOfChosen = uniforms.isSoftmaxOfChosen != 0;
      let hasInfinity = isSoftmaxOfChosen && isChosenInfinite && uniforms.scoring != ${SCORING_CODES.sigmoid};
      let isNan = isRowNan || (isSoftmaxOfChosen && isChosenNan) || (hasInfinity && !isSqrtSoftplus);
      if (!isToken) { return; }
      for (var k = lane; k < uniforms.topk; k += LANES) {
        let key = topkWeights[firstSlot + k];
        var weight = 0.0;
        if (!isSoftmaxOfChosen && !isSoftmax) {
          weight = score(valueOf(max(key, FIRST_FINITE_KEY)));
        } else if (key > NEGATIVE_INFINITY_KEY && !hasInfinity) {
          if (isSoftmaxOfChosen) {
            weight = exp(logScore(finiteValueOf(key)) - chosenMax) / chosenSum;
          } else {
            weight = exp(valueOf(key) - rowMax) / rowSum;
          }
        }
        let isThisNan = isNan || key == NAN_KEY || (hasInfinity && key == INFINITY_KEY);
        topkWeights[firstSlot + k] =
          select(bitcast<u32>(weight * bitcast<f32>(uniforms.scalingBits)), NAN_BITS, isThisNan);
      }`,
      THREADS,
    )}`;
}

/**
 * A workgroup takes its tokens' rows: the softmax of what was chosen from, 0 or the softmax's part to every expert, a
 * barrier, and then what belongs to the chosen.
 */
export const moeTopKBackpropWebGPU = webgpuKernel(
  MoeTopKBackprop,
  (backend, {dTopkWeights, routerLogits, topkIds}, {scoring, renormalize, routedScalingFactor}) => {
    const [numTokens, numExperts] = routerLogits.shape;
    assertBindable(backend, MoeTopKBackprop, {routerLogits: routerLogits.shape, topkIds: topkIds.shape});
    const dLogits = newTensor(backend, [numTokens, numExperts], 'float32');
    if (numTokens === 0) {
      return [dLogits];
    }
    const lanes = lanesOf(numExperts);
    runWgsl(backend, {
      name: 'MoeTopKBackprop',
      buffers: [
        {name: 'dLogits', type: 'f32', access: 'read_write', tensor: dLogits},
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
      },
      constants: {LANES: lanes},
      numWorkgroups: Math.ceil((numTokens * lanes) / THREADS),
      code: () => `
        ${FLOATS}
        ${exchangeOf('workgroupBarrier();')}

        // d logScore / d x
        fn slope(x : f32) -> f32 {
          switch (uniforms.scoring) {
            case ${SCORING_CODES.sigmoid}: { return sigmoid(-x); }
            case ${SCORING_CODES.sqrtSoftplus}: {
              if (x < SMALL) { return (1 - exp(x) / 2) / 2; }
              return sigmoid(x) / softplus(x) / 2;
            }
            default: { return 1; }
          }
        }

        // exp(log(score) - largest)
        fn termOf(key : u32, largest : f32) -> f32 {
          if (key == NEGATIVE_INFINITY_KEY) { return 0; }
          return exp(logScore(valueOf(key)) - largest);
        }

        ${entryPoint(
          `
          let token = group * (THREADS / LANES) + thread / LANES;
          if (group * (THREADS / LANES) >= uniforms.numTokens) { return; }
          let lane = thread % LANES;
          let isToken = token < uniforms.numTokens;
          let row = min(token, uniforms.numTokens - 1);
          let firstLogit = row * uniforms.numExperts;
          let firstSlot = row * uniforms.topk;
          let isSoftmaxOfAll = uniforms.isSoftmaxOfAll != 0;
          let isSoftmax = isSoftmaxOfAll || uniforms.isSoftmaxOfChosen != 0;
          let scaling = bitcast<f32>(uniforms.scalingBits);

          var best = vec2<u32>(0u, NONE);
          if (isSoftmaxOfAll) {
            for (var e = lane; e < uniforms.numExperts; e += LANES) {
              best.x = max(best.x, keyOf(logits[firstLogit + e]));
            }
          } else {
            for (var k = lane; k < uniforms.topk; k += LANES) {
              best.x = max(best.x, keyOf(logits[firstLogit + topkIds[firstSlot + k]]));
            }
          }
          let largest = logScore(valueOf(bestOfLanes(thread, best).x));

          // Of the terms, and of the terms of the chosen by their dy.
          var sums = vec2<f32>();
          for (var k = lane; k < uniforms.topk; k += LANES) {
            let term = termOf(keyOf(logits[firstLogit + topkIds[firstSlot + k]]), largest);
            sums += vec2<f32>(term, term * dTopkWeights[firstSlot + k] * scaling);
          }
          if (isSoftmaxOfAll) {
            sums.x = 0;
            for (var e = lane; e < uniforms.numExperts; e += LANES) {
              sums.x += termOf(keyOf(logits[firstLogit + e]), largest);
            }
          }
          sums = sumOfLanes(thread, sums);
          let mean = select(0.0, sums.y / sums.x, isSoftmax && sums.x != 0);

          for (var e = lane; e < uniforms.numExperts && isToken; e += LANES) {
            var dLogit = 0.0;
            if (isSoftmaxOfAll && sums.x != 0) {
              dLogit = -(termOf(keyOf(logits[firstLogit + e]), largest) / sums.x) * mean;
            }
            dLogits[firstLogit + e] = dLogit;
          }
          storageBarrier();
          for (var k = lane; k < uniforms.topk && isToken; k += LANES) {
            let e = firstLogit + topkIds[firstSlot + k];
            let key = keyOf(logits[e]);
            var dLogit = 0.0;
            if (key != NEGATIVE_INFINITY_KEY) {
              let x = valueOf(key);
              var weight = 0.0;
              if (isSoftmax) { weight = termOf(key, largest) / sums.x; } else { weight = score(x); }
              dLogit = weight * (dTopkWeights[firstSlot + k] * scaling - mean) * slope(x);
            }
            dLogits[e] = dLogit;
          }`,
          THREADS,
        )}`,
    });
    return [dLogits];
  },
);
