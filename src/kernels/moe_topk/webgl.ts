/**
 * MoeTopK and its gradient on WebGL, all gathers. As on WebGPU, floats are compared by keys: uints in their order, with
 * NaN below all.
 *
 *   MoeTopK           3 draws: the rank of each expert among those of its token, E lookups; the expert of each rank;
 *                     the weights. 1 more for the softmax over all experts, 1 or 2 for a bias, 2 for groups.
 *   MoeTopKBackprop   1 draw, 2 for 'softmax': a fragment takes an element of the result and looks through the K
 *                     chosen.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {MoeTopK, MoeTopKBackprop} from '../../contract/kernel_names';
import {bitsOf, KEYS_GLSL, SCORES_GLSL, SCORING_CODES} from '../router_scores/scorings';
import {assertExact, assertFits, disposeAll, fillTensor, runGlsl, webglKernel} from '../shared/webgl';
import {scoreStatistics} from '../router_scores/webgl';

/** float32 [T, E]: score + bias. */
function biasedScores(
  backend: MathBackendWebGL,
  logits: TensorInfo,
  bias: TensorInfo,
  statistics: TensorInfo,
  scoring: number,
): TensorInfo {
  return runGlsl(backend, {
    name: 'MoeTopKBiasedScores',
    inputs: {logits, bias, statistics},
    uniforms: {scoring},
    output: {shape: logits.shape, dtype: 'float32'},
    code: `
      ${KEYS_GLSL}
      ${SCORES_GLSL}
      void main() {
        ivec2 coords = getOutputCoords();
        float logit = getLogits(coords.x, coords.y);
        uint key = orderedBits(logit);
        uint largest = orderedBits(getStatistics(coords.x, 0));
        bool hasNan = getStatistics(coords.x, 2) > 0.0;
        bool isSoftmax = scoring == ${SCORING_CODES.softmax};
        float bias = getBias(coords.y);
        if (largest <= NEGATIVE_INFINITY_KEY && !hasNan) {
          // Scores of nothing but -Infinity are all alike; such a row is not routed by its bias.
          setOutput(logit);
        } else if (key == NAN_KEY || orderedBits(bias) == NAN_KEY || (isSoftmax && (hasNan || largest == INFINITY_KEY))) {
          setOutput(NAN);
        } else if (!isSoftmax) {
          setOutput(score(floatOfKey(max(key, FIRST_FINITE_KEY))) + bias);
        } else {
          float probability = exp(finiteFloatOfKey(key) - floatOfKey(largest)) / getStatistics(coords.x, 1);
          setOutput((key > NEGATIVE_INFINITY_KEY ? probability : 0.0) + bias);
        }
      }`,
  });
}

/** float32 [T, G]: 1 for a group that stays, 0 for one that does not. */
function keptGroups(
  backend: MathBackendWebGL,
  compared: TensorInfo,
  hasBias: boolean,
  numGroups: number,
  topkGroups: number,
): TensorInfo {
  const [numTokens, numExperts] = compared.shape;
  const output = {shape: [numTokens, numGroups], dtype: 'float32' as const};
  const values = runGlsl(backend, {
    name: 'MoeTopKGroupValues',
    inputs: {compared},
    uniforms: {groupSize: numExperts / numGroups, sumsTwo: Number(hasBias)},
    output,
    code: `
      ${KEYS_GLSL}
      void main() {
        ivec2 coords = getOutputCoords();
        uint largest = 0u;
        uint second = 0u;
        for (int i = 0; i < groupSize; i++) {
          uint key = orderedBits(getCompared(coords.x, coords.y * groupSize + i));
          second = max(second, min(key, largest));
          largest = max(largest, key);
        }
        bool isSum = sumsTwo == 1 && groupSize > 1;
        if (largest == NAN_KEY || (isSum && second == NAN_KEY)) {
          setOutput(NAN);
        } else {
          setOutput(floatOfKey(largest) + (isSum ? floatOfKey(second) : 0.0));
        }
      }`,
  });
  const kept = runGlsl(backend, {
    name: 'MoeTopKKeptGroups',
    inputs: {values},
    uniforms: {numGroups, topkGroups},
    output,
    code: `
      ${KEYS_GLSL}
      void main() {
        ivec2 coords = getOutputCoords();
        uint key = orderedBits(getValues(coords.x, coords.y));
        int rank = 0;
        for (int g = 0; g < numGroups; g++) {
          uint other = orderedBits(getValues(coords.x, g));
          if (other > key || (other == key && g < coords.y)) { rank++; }
        }
        setOutput(rank < topkGroups ? 1.0 : 0.0);
      }`,
  });
  disposeAll(backend, [values]);
  return kept;
}

/** int32 [T, E]: the place of each expert in its token's order; E where its group does not stay. */
function ranksOf(backend: MathBackendWebGL, compared: TensorInfo, kept: TensorInfo | undefined): TensorInfo {
  const [, numExperts] = compared.shape;
  const numGroups = kept?.shape[1] ?? 1;
  return runGlsl(backend, {
    name: `MoeTopKRanks_${kept == null ? 'all' : 'groups'}`,
    inputs: {compared, ...(kept == null ? {} : {kept})},
    uniforms: {numExperts, numGroups, groupSize: numExperts / numGroups},
    output: {shape: compared.shape, dtype: 'int32'},
    code: `
      ${KEYS_GLSL}
      bool isKept(int token, int g) { return ${kept == null ? 'true' : 'getKept(token, g) > 0.5'}; }
      void main() {
        ivec2 coords = getOutputCoords();
        uint key = orderedBits(getCompared(coords.x, coords.y));
        int rank = isKept(coords.x, coords.y / groupSize) ? 0 : numExperts;
        for (int g = 0; g < numGroups && rank < numExperts; g++) {
          if (isKept(coords.x, g)) {
            for (int e = g * groupSize; e < (g + 1) * groupSize; e++) {
              uint other = orderedBits(getCompared(coords.x, e));
              if (other > key || (other == key && e < coords.y)) { rank++; }
            }
          }
        }
        setOutput(float(rank));
      }`,
  });
}

export const moeTopKWebGL = webglKernel(MoeTopK, (backend, {routerLogits: logits, scoreCorrectionBias}, attrs) => {
  const [numTokens, numExperts] = logits.shape;
  const {topk, renormalize, numExpertGroups, topkGroups, routedScalingFactor} = attrs;
  const scoring = SCORING_CODES[attrs.scoring];
  const hasBias = scoreCorrectionBias != null;
  const shape = [numTokens, topk];
  assertExact(MoeTopK, {'the number of experts': numExperts});
  assertFits(MoeTopK, {routerLogits: logits.shape, topkIds: shape});
  if (numTokens === 0) {
    return {topkWeights: fillTensor(backend, shape, 'float32', 0), topkIds: fillTensor(backend, shape, 'int32', 0)};
  }
  const isSoftmax = attrs.scoring === 'softmax';
  const statistics = isSoftmax || hasBias ? [scoreStatistics(backend, logits, 'softmax')] : [];
  const biased = hasBias ? [biasedScores(backend, logits, scoreCorrectionBias, statistics[0], scoring)] : [];
  const [compared] = [...biased, logits];
  const kept = numExpertGroups > 1 ? [keptGroups(backend, compared, hasBias, numExpertGroups, topkGroups)] : [];
  const ranks = ranksOf(backend, compared, kept[0]);
  const topkIds = runGlsl(backend, {
    name: 'MoeTopKIds',
    inputs: {ranks},
    uniforms: {numExperts},
    output: {shape, dtype: 'int32'},
    code: `
      void main() {
        ivec2 coords = getOutputCoords();
        int id = 0;
        for (int e = 0; e < numExperts; e++) {
          if (indexOf(getRanks(coords.x, e)) == coords.y) { id = e; }
        }
        setOutput(float(id));
      }`,
  });
  const topkWeights = runGlsl(backend, {
    name: `MoeTopKWeights_${isSoftmax ? 'softmax' : 'chosen'}`,
    inputs: {logits, topkIds, ...(isSoftmax ? {statistics: statistics[0]} : {})},
    uniforms: {
      topk,
      scoring,
      isSoftmaxOfChosen: Number(renormalize || attrs.scoring === 'softmaxAfterTopk'),
      scalingBits: bitsOf(routedScalingFactor),
    },
    output: {shape, dtype: 'float32'},
    code: `
      ${KEYS_GLSL}
      ${SCORES_GLSL}
      uint keyOfSlot(int token, int k) { return orderedBits(getLogits(token, indexOf(getTopkIds(token, k)))); }
      void main() {
        ivec2 coords = getOutputCoords();
        uint key = keyOfSlot(coords.x, coords.y);
        bool isNan = key == NAN_KEY;
        float weight = 0.0;
        ${
          isSoftmax
            ? `uint rowMax = orderedBits(getStatistics(coords.x, 0));
             isNan = isNan || rowMax == INFINITY_KEY || getStatistics(coords.x, 2) > 0.0;`
            : ''
        }
        if (isSoftmaxOfChosen == 1) {
          uint largest = NAN_KEY;
          bool hasNan = false;
          for (int k = 0; k < topk; k++) {
            uint other = keyOfSlot(coords.x, k);
            largest = max(largest, other);
            hasNan = hasNan || other == NAN_KEY;
          }
          // Infinity has no softmax, but the score 1 or Infinity, beside which the scores of others are 0.
          bool hasInfinity = largest == INFINITY_KEY && scoring != ${SCORING_CODES.sigmoid};
          isNan = isNan || hasNan ||
            (hasInfinity && (key == INFINITY_KEY || scoring != ${SCORING_CODES.sqrtSoftplus}));
          if (key > NEGATIVE_INFINITY_KEY && !hasInfinity) {
            float top = logScore(finiteFloatOfKey(largest));
            float sum = 0.0;
            for (int k = 0; k < topk; k++) {
              uint other = keyOfSlot(coords.x, k);
              if (other > NEGATIVE_INFINITY_KEY) { sum += exp(logScore(finiteFloatOfKey(other)) - top); }
            }
            weight = exp(logScore(finiteFloatOfKey(key)) - top) / sum;
          }
        } else {
          ${
            isSoftmax
              ? `if (key > NEGATIVE_INFINITY_KEY) {
                 weight = exp(floatOfKey(key) - floatOfKey(rowMax)) / getStatistics(coords.x, 1);
               }`
              : 'weight = score(floatOfKey(max(key, FIRST_FINITE_KEY)));'
          }
        }
        setOutput(isNan ? NAN : weight * intBitsToFloat(scalingBits));
      }`,
  });
  disposeAll(backend, [...statistics, ...biased, ...kept, ranks]);
  return {topkWeights, topkIds};
});

export const moeTopKBackpropWebGL = webglKernel(
  MoeTopKBackprop,
  (backend, {dTopkWeights, routerLogits: logits, topkIds}, {scoring, renormalize, routedScalingFactor}) => {
    const [numTokens, numExperts] = logits.shape;
    assertExact(MoeTopKBackprop, {'the number of experts': numExperts});
    assertFits(MoeTopKBackprop, {routerLogits: logits.shape, topkIds: topkIds.shape});
    if (numTokens === 0) {
      return {dRouterLogits: fillTensor(backend, logits.shape, 'float32', 0)};
    }
    const isSoftmaxOfAll = scoring === 'softmax' && !renormalize;
    const isOfRow = scoring === 'softmax';
    const statistics = isOfRow ? [scoreStatistics(backend, logits, 'softmax')] : [];
    const dLogits = runGlsl(backend, {
      name: `MoeTopKBackprop_${isSoftmaxOfAll ? 'all' : 'chosen'}_${isOfRow ? 'row' : 'slots'}`,
      inputs: {dTopkWeights, logits, topkIds, ...(isOfRow ? {statistics: statistics[0]} : {})},
      uniforms: {
        topk: topkIds.shape[1],
        scoring: SCORING_CODES[scoring],
        isSoftmax: Number(isSoftmaxOfAll || renormalize || scoring === 'softmaxAfterTopk'),
        scalingBits: bitsOf(routedScalingFactor),
      },
      output: {shape: logits.shape, dtype: 'float32'},
      code: `
        ${KEYS_GLSL}
        ${SCORES_GLSL}
        uint keyOfSlot(int token, int k) { return orderedBits(getLogits(token, indexOf(getTopkIds(token, k)))); }
        void main() {
          ivec2 coords = getOutputCoords();
          int chosenSlot = -1;
          uint largestChosen = 0u;
          bool hasNan = false;
          for (int k = 0; k < topk; k++) {
            uint key = keyOfSlot(coords.x, k);
            largestChosen = max(largestChosen, key);
            hasNan = hasNan || key == NAN_KEY;
            if (indexOf(getTopkIds(coords.x, k)) == coords.y) { chosenSlot = k; }
          }
          uint largestKey = largestChosen;
          ${
            isOfRow
              ? `largestKey = orderedBits(getStatistics(coords.x, 0));
               hasNan = getStatistics(coords.x, 2) > 0.0;`
              : ''
          }
          // Weights are NaN then, and so is the gradient of all that they are made of.
          bool isNan = isSoftmax == 1 && ${isOfRow ? 'true' : 'chosenSlot >= 0'} &&
            (hasNan || (largestKey == INFINITY_KEY && scoring != ${SCORING_CODES.sigmoid}));
          float largest = logScore(finiteFloatOfKey(${isSoftmaxOfAll ? 'largestKey' : 'largestChosen'}));
          float mean = 0.0;
          float sum = 0.0;
          for (int k = 0; k < topk && isSoftmax == 1; k++) {
            float relative = relativeScore(keyOfSlot(coords.x, k), largest);
            sum += relative;
            mean += relative * getDTopkWeights(coords.x, k);
          }
          ${isSoftmaxOfAll ? 'sum = getStatistics(coords.x, 1);' : ''}
          mean = sum == 0.0 ? 0.0 : mean / sum;
          uint key = orderedBits(getLogits(coords.x, coords.y));
          float dLogit = 0.0;
          if (key != NEGATIVE_INFINITY_KEY && ${isSoftmaxOfAll ? 'true' : 'chosenSlot >= 0'}) {
            float x = finiteFloatOfKey(key);
            float dWeight = chosenSlot >= 0 ? getDTopkWeights(coords.x, chosenSlot) : 0.0;
            if (isSoftmax == 1) {
              dLogit = relativeScore(key, largest) / sum * (dWeight - mean) * slope(x);
            } else if (key != INFINITY_KEY) {
              dLogit = dWeight * scoreSlope(x);
            }
            dLogit *= intBitsToFloat(scalingBits);
          }
          setOutput(isNan || (key == NAN_KEY && chosenSlot >= 0) ? NAN : dLogit);
        }`,
    });
    disposeAll(backend, statistics);
    return {dRouterLogits: dLogits};
  },
);
