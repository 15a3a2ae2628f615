/**
 * MoeTopK and its gradient on the host. Of each token:
 *
 *   1. what is compared: the logits as they are, for every scoring is monotone, or with a bias score + bias in float32;
 *      NaN below -Infinity
 *   2. the groups that stay
 *   3. the K largest of them, ties to the lower id, kept in order while the experts go by
 *   4. their weights, in double
 *
 * With l = log(score), renormalized weights are the softmax of l over the chosen; so none is lost where scores
 * underflow. Time O(T * (E + K * what gets into the first K)). The inner loops call no functions: tokens are many and
 * their rows are short.
 */
import {MoeTopK, MoeTopKBackprop, type MoeTopKAttrs, type MoeKernelScoring} from '../../contract/kernel_names';
import {type HostArray, hostKernel} from '../shared/host_kernel';
import {scoreFunctions, softmax} from '../router_scores/scorings';

export const moeTopKCpu = hostKernel(MoeTopK, ({routerLogits, scoreCorrectionBias}, attrs) => {
  const [numTokens, numExperts] = routerLogits.shape;
  const {topk} = attrs;
  const weights = new Float32Array(numTokens * topk);
  const ids = new Int32Array(numTokens * topk);
  for (let token = 0; token < numTokens; token++) {
    const logits = routerLogits.values.subarray(token * numExperts, (token + 1) * numExperts);
    const tokenIds = ids.subarray(token * topk, (token + 1) * topk);
    const compared = comparedValues(logits, scoreCorrectionBias?.values, attrs.scoring);
    if (attrs.numExpertGroups === 1) {
      chooseLargest(tokenIds, compared);
    } else {
      const isKept = keptGroups(compared, scoreCorrectionBias != null, attrs);
      chooseLargest(tokenIds, compared, isKept, numExperts / attrs.numExpertGroups);
    }
    weights.set(weightsOf(logits, tokenIds, attrs), token * topk);
  }
  const shape = [numTokens, topk];
  return {topkWeights: {values: weights, shape}, topkIds: {values: ids, shape}};
});

function comparedValues(logits: HostArray, bias: HostArray | undefined, scoring: MoeKernelScoring): HostArray {
  // Scores of nothing but -Infinity are all alike; such a row is not routed by its bias.
  if (bias == null || logits.every((logit) => logit === -Infinity)) {
    return logits;
  }
  const scores = scoring === 'softmax' ? softmax(logits) : Float64Array.from(logits, scoreFunctions[scoring].score);
  return Float32Array.from(scores, (score, expert) => Math.fround(score) + bias[expert]);
}

/** For each group, whether it is one of the topkGroups best. */
function keptGroups(compared: HostArray, hasBias: boolean, {numExpertGroups, topkGroups}: MoeTopKAttrs): boolean[] {
  const groupSize = compared.length / numExpertGroups;
  const values = new Float32Array(numExpertGroups);
  const best = new Int32Array(hasBias ? Math.min(2, groupSize) : 1);
  for (let group = 0; group < numExpertGroups; group++) {
    const ofGroup = compared.subarray(group * groupSize, (group + 1) * groupSize);
    chooseLargest(best, ofGroup);
    values[group] = best.reduce((sum, i) => sum + ofGroup[i], 0);
  }
  const kept = new Int32Array(topkGroups);
  chooseLargest(kept, values);
  const isKept = new Array<boolean>(numExpertGroups).fill(false);
  kept.forEach((group) => {
    isKept[group] = true;
  });
  return isKept;
}

/**
 * Fills `chosen` with the indices of the largest values in order, NaN last, ties to the lower index. `isKept` says from
 * which groups of values.
 */
function chooseLargest(chosen: Int32Array, values: HostArray, isKept = [true], groupSize = values.length): void {
  let numChosen = 0;
  for (let group = 0; group < isKept.length; group++) {
    const end = isKept[group] ? (group + 1) * groupSize : 0;
    for (let index = group * groupSize; index < end; index++) {
      const value = values[index];
      let place = numChosen;
      for (; place > 0; place--) {
        const before = values[chosen[place - 1]];
        const isLarger = value > before || (Number.isNaN(before) && !Number.isNaN(value));
        if (!isLarger) {
          break;
        }
      }
      if (place < chosen.length) {
        numChosen = Math.min(numChosen + 1, chosen.length);
        for (let i = numChosen - 1; i > place; i--) {
          chosen[i] = chosen[i - 1];
        }
        chosen[place] = index;
      }
    }
  }
}

type WeightAttrs = Pick<MoeTopKAttrs, 'scoring' | 'renormalize' | 'routedScalingFactor'>;

function weightsOf(logits: HostArray, ids: Int32Array, {scoring, renormalize, routedScalingFactor}: WeightAttrs) {
  const chosen = valuesAt(logits, ids);
  let weights: ArrayLike<number>;
  if (scoring === 'softmax') {
    weights = renormalize && hasSoftmax(logits) ? softmax(chosen) : valuesAt(softmax(logits), ids);
  } else if (scoring === 'softmaxAfterTopk') {
    weights = softmax(chosen);
  } else {
    const {score, logScore} = scoreFunctions[scoring];
    const scores = chosen.map(score);
    const sum = scores.reduce((a, b) => a + b, 0);
    weights = !renormalize ? scores : sum === Infinity ? scores.map((s) => s / sum) : softmax(chosen.map(logScore));
  }
  const scaled = new Float32Array(weights.length);
  for (let k = 0; k < weights.length; k++) {
    scaled[k] = weights[k] * routedScalingFactor;
  }
  return scaled;
}

/** Whether the softmax is not NaN. */
function hasSoftmax(logits: HostArray): boolean {
  for (let expert = 0; expert < logits.length; expert++) {
    if (!(logits[expert] < Infinity)) {
      return false;
    }
  }
  return true;
}

function valuesAt(values: ArrayLike<number>, ids: Int32Array): Float64Array {
  const at = new Float64Array(ids.length);
  for (let k = 0; k < ids.length; k++) {
    at[k] = values[ids[k]];
  }
  return at;
}

/**
 * With g = dTopkWeights * routedScalingFactor and w the weights before it:
 *
 *   softmax over all E           w_e * ((g of e, 0 where it is not chosen) - sum of g * w over the chosen)
 *   renormalized, or over the K  w_k * (g_k - sum of g * w) * (log score)'
 *   neither                      g_k * score * (log score)'
 *
 * It is 0 for -Infinity, whatever g. But where a softmax or a sum makes NaN of the weights, so it makes of the
 * gradient: of the whole row under 'softmax', else of the chosen.
 */
export const moeTopKBackpropCpu = hostKernel(MoeTopKBackprop, ({dTopkWeights, routerLogits, topkIds}, attrs) => {
  const [numTokens, numExperts] = routerLogits.shape;
  const topk = topkIds.shape[1];
  const {scoring, renormalize, routedScalingFactor} = attrs;
  const isOverAll = scoring === 'softmax' && !renormalize;
  const isSoftmax = renormalize || scoring === 'softmaxAfterTopk' || isOverAll;
  const {slope} = scoreFunctions[scoring];
  const dLogits = new Float32Array(numTokens * numExperts);
  for (let token = 0; token < numTokens; token++) {
    const logits = routerLogits.values.subarray(token * numExperts, (token + 1) * numExperts);
    const dTokenLogits = dLogits.subarray(token * numExperts, (token + 1) * numExperts);
    const ids = topkIds.values.subarray(token * topk, (token + 1) * topk) as Int32Array;
    const weights = weightsOf(logits, ids, {scoring, renormalize, routedScalingFactor: 1});
    if (isSoftmax && weights.some(Number.isNaN)) {
      if (scoring === 'softmax') {
        dTokenLogits.fill(NaN);
      } else {
        ids.forEach((id) => {
          dTokenLogits[id] = NaN;
        });
      }
      continue;
    }
    const dWeight = (k: number) => dTopkWeights.values[token * topk + k] * routedScalingFactor;
    let mean = 0;
    for (let k = 0; isSoftmax && k < topk; k++) {
      mean += dWeight(k) * weights[k];
    }
    if (isOverAll) {
      softmax(logits).forEach((probability, expert) => {
        dTokenLogits[expert] = logits[expert] === -Infinity ? 0 : -probability * mean;
      });
    }
    ids.forEach((id, k) => {
      // A score of Infinity is as flat as the largest of others.
      const isFlat = logits[id] === -Infinity || weights[k] === Infinity;
      dTokenLogits[id] = isFlat ? 0 : weights[k] * (dWeight(k) - mean) * slope(logits[id]);
    });
  }
  return {dRouterLogits: {values: dLogits, shape: [numTokens, numExperts]}};
});
