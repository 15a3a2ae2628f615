/**
 * MoeTopK and its gradient on WebGL, all gathers. As on WebGPU, floats are compared by keys: uints in their order, with
 * NaN below all.
 *
 *   MoeTopK           3 draws: the rank of each expert among those of its token, E lookups; the expert of each rank;
 *                     the weights. 1 more for the softmax over all experts, 1 or 2 for a bias, 2 for groups.
 *   MoeTopKBackprop   1 draw, 2 for the softmax over all experts: a fragment takes an element of the result and looks
 *                     through the K chosen.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {MoeTopK, MoeTopKBackprop} from '../../kernel_names';
import {assertExact, assertFits, disposeAll, fillTensor, runGlsl, webglKernel} from '../shared/webgl';
import {bitsOf, SCORING_CODES} from './codes';

/** GLSL: floats and their order. */
const KEYS = `
  const uint NAN_KEY = 1u;
  const uint NEGATIVE_INFINITY_KEY = 0x007fffffu;
  const uint FIRST_FINITE_KEY = 0x00800000u;
  const uint LAST_FINITE_KEY = 0xff7fffffu;
  const uint INFINITY_KEY = 0xff800000u;

  uint keyOf(float value) {
    uint bits = floatBitsToUint(value);
    uint magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) { return NAN_KEY; }
    if (magnitude == 0u) { return 0x80000000u; }
    return bits >= 0x80000000u ? ~bits : bits | 0x80000000u;
  }

  float valueOf(uint key) { return uintBitsToFloat(key >= 0x80000000u ? key & 0x7fffffffu : ~key); }

  float finiteValueOf(uint key) { return valueOf(clamp(key, FIRST_FINITE_KEY, LAST_FINITE_KEY)); }
`;

/** GLSL: the scores that are not a softmax, and the logarithms of all; `scoring` is a uniform. */
const SCORES = `
  // 2 * atanh(z / (2 + z)) for z in 0..1, where log(1 + z) would lose the digits of a small z.
  float log1p(float z) {
    float s = z / (2.0 + z);
    float q = s * s;
    float tail = 1.0 / 7.0 + q * (1.0 / 9.0 + q * (1.0 / 11.0 + q / 13.0));
    return 2.0 * s * (1.0 + q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * tail)));
  }

  float softplus(float x) { return max(x, 0.0) + log1p(exp(-abs(x))); }

  float sigmoid(float x) {
    float z = exp(-abs(x));
    return (x >= 0.0 ? 1.0 : z) / (1.0 + z);
  }

  // Below this, log(softplus(x)) is x - exp(x) / 2.
  const float SMALL = -10.0;

  float score(float x) { return scoring == ${SCORING_CODES.sigmoid} ? sigmoid(x) : sqrt(softplus(x)); }

  float logScore(float x) {
    if (scoring == ${SCORING_CODES.sigmoid}) { return -softplus(-x); }
    if (scoring == ${SCORING_CODES.sqrtSoftplus}) {
      return (x < SMALL ? x - exp(x) / 2.0 : log(softplus(x))) / 2.0;
    }
    return x;
  }
`;

/**
 * float32 [T, 3]: of each row of logits the largest, the sum of exp(logit - largest), both without NaN, and the number
 * of NaN.
 */
function statisticsOf(backend: MathBackendWebGL, logits: TensorInfo): TensorInfo {
  const [numTokens, numExperts] = logits.shape;
  return runGlsl(backend, {
    name: 'MoeTopKStatistics',
    inputs: {logits},
    uniforms: {numExperts},
    output: {shape: [numTokens, 3], dtype: 'float32'},
    code: `
      ${KEYS}
      void main() {
        ivec2 coords = getOutputCoords();
        uint largest = NAN_KEY;
        float numNan = 0.0;
        for (int e = 0; e < numExperts; e++) {
          uint key = keyOf(getLogits(coords.x, e));
          largest = max(largest, key);
          if (key == NAN_KEY) { numNan++; }
        }
        float result = coords.y == 0 ? valueOf(largest) : numNan;
        if (coords.y == 1) {
          result = 0.0;
          for (int e = 0; e < numExperts; e++) {
            uint key = keyOf(getLogits(coords.x, e));
            if (key > NEGATIVE_INFINITY_KEY) { result += exp(valueOf(key) - valueOf(largest)); }
          }
        }
        setOutput(result);
      }`,
  });
}

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
      ${KEYS}
      ${SCORES}
      void main() {
        ivec2 coords = getOutputCoords();
        float logit = getLogits(coords.x, coords.y);
        uint key = keyOf(logit);
        uint largest = keyOf(getStatistics(coords.x, 0));
        bool hasNan = getStatistics(coords.x, 2) > 0.0;
        bool isSoftmax = scoring == ${SCORING_CODES.softmax};
        float bias = getBias(coords.y);
        if (largest <= NEGATIVE_INFINITY_KEY && !hasNan) {
          // Scores of nothing but -Infinity are all alike; such a row is not routed by its bias.
          setOutput(logit);
        } else if (key == NAN_KEY || keyOf(bias) == NAN_KEY || (isSoftmax && (hasNan || largest == INFINITY_KEY))) {
          setOutput(NAN);
        } else if (!isSoftmax) {
          setOutput(score(valueOf(max(key, FIRST_FINITE_KEY))) + bias);
        } else {
          float probability = exp(finiteValueOf(key) - valueOf(largest)) / getStatistics(coords.x, 1);
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
      ${KEYS}
      void main() {
        ivec2 coords = getOutputCoords();
        uint largest = 0u;
        uint second = 0u;
        for (int i = 0; i < groupSize; i++) {
          uint key = keyOf(getCompared(coords.x, coords.y * groupSize + i));
          second = max(second, min(key, largest));
          largest = max(largest, key);
        }
        bool isSum = sumsTwo == 1 && groupSize > 1;
        if (largest == NAN_KEY || (isSum && second == NAN_KEY)) {
          setOutput(NAN);
        } else {
          setOutput(valueOf(largest) + (isSum ? valueOf(second) : 0.0));
        }
      }`,
  });
  const kept = runGlsl(backend, {
    name: 'MoeTopKKeptGroups',
    inputs: {values},
    uniforms: {numGroups, topkGroups},
    output,
    code: `
      ${KEYS}
      void main() {
        ivec2 coords = getOutputCoords();
        uint key = keyOf(getValues(coords.x, coords.y));
        int rank = 0;
        for (int g = 0; g < numGroups; g++) {
          uint other = keyOf(getValues(coords.x, g));
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
      ${KEYS}
      bool isKept(int token, int g) { return ${kept == null ? 'true' : 'getKept(token, g) > 0.5'}; }
      void main() {
        ivec2 coords = getOutputCoords();
        uint key = keyOf(getCompared(coords.x, coords.y));
        int rank = isKept(coords.x, coords.y / groupSize) ? 0 : numExperts;
        for (int g = 0; g < numGroups && rank < numExperts; g++) {
          if (isKept(coords.x, g)) {
            for (int e = g * groupSize; e < (g + 1) * groupSize; e++) {
              uint other = keyOf(getCompared(coords.x, e));
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
    return [fillTensor(backend, shape, 'float32', 0), fillTensor(backend, shape, 'int32', 0)];
  }
  const isSoftmax = attrs.scoring === 'softmax';
  const statistics = isSoftmax || hasBias ? [statisticsOf(backend, logits)] : [];
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
      ${KEYS}
      ${SCORES}
      uint keyOfSlot(int token, int k) { return keyOf(getLogits(token, indexOf(getTopkIds(token, k)))); }
      void main() {
        ivec2 coords = getOutputCoords();
        uint key = keyOfSlot(coords.x, coords.y);
        bool isNan = key == NAN_KEY;
        float weight = 0.0;
        ${isSoftmax
          ? `uint rowMax = keyOf(getStatistics(coords.x, 0));
             isNan = isNan || rowMax == INFINITY_KEY || getStatistics(coords.x, 2) > 0.0;`
          : ''}
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
            float top = logScore(finiteValueOf(largest));
            float sum = 0.0;
            for (int k = 0; k < topk; k++) {
              uint other = keyOfSlot(coords.x, k);
              if (other > NEGATIVE_INFINITY_KEY) { sum += exp(logScore(finiteValueOf(other)) - top); }
            }
            weight = exp(logScore(finiteValueOf(key)) - top) / sum;
          }
        } else {
          ${isSoftmax
            ? `if (key > NEGATIVE_INFINITY_KEY) {
                 weight = exp(valueOf(key) - valueOf(rowMax)) / getStatistics(coords.x, 1);
               }`
            : 'weight = score(valueOf(max(key, FIRST_FINITE_KEY)));'}
        }
        setOutput(isNan ? NAN : weight * intBitsToFloat(scalingBits));
      }`,
  });
  disposeAll(backend, [...statistics, ...biased, ...kept, ranks]);
  return [topkWeights, topkIds];
});

export const moeTopKBackpropWebGL = webglKernel(
  MoeTopKBackprop,
  (backend, {dTopkWeights, routerLogits: logits, topkIds}, {scoring, renormalize, routedScalingFactor}) => {
    const [numTokens, numExperts] = logits.shape;
    assertExact(MoeTopKBackprop, {'the number of experts': numExperts});
    assertFits(MoeTopKBackprop, {routerLogits: logits.shape, topkIds: topkIds.shape});
    if (numTokens === 0) {
      return [fillTensor(backend, logits.shape, 'float32', 0)];
    }
    const isSoftmaxOfAll = scoring === 'softmax' && !renormalize;
    const statistics = isSoftmaxOfAll ? [statisticsOf(backend, logits)] : [];
    const dLogits = runGlsl(backend, {
      name: `MoeTopKBackprop_${isSoftmaxOfAll ? 'softmax' : 'chosen'}`,
      inputs: {dTopkWeights, logits, topkIds, ...(isSoftmaxOfAll ? {statistics: statistics[0]} : {})},
      uniforms: {
        topk: topkIds.shape[1],
        scoring: SCORING_CODES[scoring],
        isSoftmax: Number(isSoftmaxOfAll || renormalize || scoring === 'softmaxAfterTopk'),
        scalingBits: bitsOf(routedScalingFactor),
      },
      output: {shape: logits.shape, dtype: 'float32'},
      code: `
        ${KEYS}
      ${SCORES}
        // d logScore / d x
        float slope(float x) {
          if (scoring == ${SCORING_CODES.sigmoid}) { return sigmoid(-x); }
          if (scoring == ${SCORING_CODES.sqrtSoftplus}) {
            return (x < SMALL ? 1.0 - exp(x) / 2.0 : sigmoid(x) / softplus(x)) / 2.0;
          }
          return 1.0;
        }
        // exp(log(score) - largest)
        float termOf(uint key, float largest) {
          return key == NEGATIVE_INFINITY_KEY ? 0.0 : exp(logScore(valueOf(key)) - largest);
        }
        uint keyOfSlot(int token, int k) { return keyOf(getLogits(token, indexOf(getTopkIds(token, k)))); }
        void main() {
          ivec2 coords = getOutputCoords();
          int chosenSlot = -1;
          ${isSoftmaxOfAll ? 'float largest = getStatistics(coords.x, 0);' : 'uint largestKey = 0u;'}
          for (int k = 0; k < topk; k++) {
            ${isSoftmaxOfAll ? '' : 'largestKey = max(largestKey, keyOfSlot(coords.x, k));'}
            if (indexOf(getTopkIds(coords.x, k)) == coords.y) { chosenSlot = k; }
          }
          ${isSoftmaxOfAll ? '' : 'float largest = logScore(valueOf(largestKey));'}
          float mean = 0.0;
          float sum = 0.0;
          for (int k = 0; k < topk && isSoftmax == 1; k++) {
            float term = termOf(keyOfSlot(coords.x, k), largest);
            sum += term;
            mean += term * getDTopkWeights(coords.x, k);
          }
          ${isSoftmaxOfAll ? 'sum = getStatistics(coords.x, 1);' : ''}
          mean = sum == 0.0 ? 0.0 : mean / sum;
          uint key = keyOf(getLogits(coords.x, coords.y));
          float dLogit = 0.0;
          if (key != NEGATIVE_INFINITY_KEY && ${isSoftmaxOfAll ? 'true' : 'chosenSlot >= 0'}) {
            float x = valueOf(key);
            float weight = isSoftmax == 1 ? termOf(key, largest) / sum : score(x);
            float dWeight = chosenSlot >= 0 ? getDTopkWeights(coords.x, chosenSlot) : 0.0;
            dLogit = weight * (dWeight - mean) * slope(x) * intBitsToFloat(scalingBits);
          }
          setOutput(dLogit);
        }`,
    });
    disposeAll(backend, statistics);
    return [dLogits];
  },
);
