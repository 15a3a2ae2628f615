/**
 * The contract between ops and kernels: the name, inputs, attributes and outputs of every kernel.
 * Ops and kernels meet only here; neither imports the other.
 *
 * Axes, used in every shape below and throughout the package:
 *   T tokens · K experts per token (top-k) · N = T*K assignments, flat id i = t*K + k
 *   E experts in all (global) · L experts that are here (local) · H hidden size
 *   B block size · R rows of the permuted tensor · S length of the sorted ids · G = ceil(S/B) blocks
 *   Q scale columns · C and D columns that a matmul reads and writes
 */
import type {Tensor, Tensor1D, Tensor2D, Tensor3D, TensorInfo} from '@tensorflow/tfjs-core';
import type {QuantizedEncoding, QuantizedTensors, WeightEncoding} from './quantized_weights';

/** Sorts assignments by expert into blocks of B assignments of one expert. */
export const MoeAlignBlockSize = 'MoeAlignBlockSize';
export type MoeAlignBlockSizeInputs = {
  topkIds: TensorInfo; //        int32 [T, K]
  expertMap?: TensorInfo; //     int32 [E]
};
export type MoeAlignBlockSizeAttrs = {
  blockSize: number;
  numExperts: number;
  padSortedIds: boolean;
  ignoreInvalidExperts: boolean;
};
export type MoeAlignBlockSizeOutputs = {
  sortedTokenIds: Tensor1D; //           int32 [S]
  expertIds: Tensor1D; //                int32 [G]
  numTokensPostPad: Tensor1D; //         int32 [1]
};

/** Copies token rows so that all rows of one expert are contiguous. */
export const MoePermute = 'MoePermute';
export type MoePermuteInputs = {
  hiddenStates: TensorInfo; //   float32 or int32 [T, H]
  topkIds: TensorInfo; //        int32 [T, K]
  expertMap?: TensorInfo; //     int32 [E]
  a1qScale?: TensorInfo; //      float32 or int32 [T, ...]
};
export type MoePermuteAttrs = {
  numExperts: number;
  numLocalExperts: number;
  /** B; 0 for no alignment. */
  alignBlockSize: number;
  fillInvalidExpert: number;
  /**
   * The contents of a row of no assignment, and the meaning of the map.
   *   'zero'       moePermute: 0 in rows, N in permutedIdx; the map selects the local experts.
   *   'lastToken'  moePermuteBlockAligned: the last token's row, N-1 in permutedIdx; every expert has
   *                rows (L = E, B >= 1), and the map only translates the labels in mIndices. Rows past the
   *                last expert's are labelled as expert 0, whatever fillInvalidExpert. The inverse index
   *                of an id that is not here is R.
   */
  padding: 'zero' | 'lastToken';
};
export type MoePermuteOutputs = {
  permutedHiddenStates: Tensor2D; //     [R, H], of the dtype of hiddenStates
  expertFirstTokenOffset: Tensor1D; //   int32 [L+1]
  invPermutedIdx: Tensor1D; //           int32 [N]
  mIndices: Tensor1D; //                 int32 [R]
  permutedIdx: Tensor1D; //              int32 [R]
  a1qScale?: Tensor; //                  [R, ...], of the dtype of a1qScale, where it is given
};

/** out[t] = sum over k of w[t,k] * rows[inv[t,k]], in slot order. Slots without a row are skipped. */
export const MoeUnpermute = 'MoeUnpermute';
export type MoeUnpermuteInputs = {
  permutedHiddenStates: TensorInfo; //     float32 [R, H]
  topkWeights: TensorInfo; //              float32 [T, K]
  invPermutedIdx: TensorInfo; //           int32 [T, K]
  /** int32 [n], n >= 1. Only the last value V counts: a slot is skipped unless 0 <= index < min(R, V). */
  expertFirstTokenOffset: TensorInfo;
};
export type MoeUnpermuteOutputs = {
  out: Tensor2D; //                        float32 [T, H]
};

/** d MoeUnpermute / d permutedHiddenStates: dRows[r] = sum of w[t,k] * dy[t] over the slots that read r. */
export const MoeUnpermuteBackpropRows = 'MoeUnpermuteBackpropRows';
export type MoeUnpermuteBackpropRowsInputs = {
  dy: TensorInfo; //                       float32 [T, H]
  topkWeights: TensorInfo; //              float32 [T, K]
  invPermutedIdx: TensorInfo; //           int32 [T, K]
  expertFirstTokenOffset: TensorInfo; //   int32 [n]
  /** int32 [R]: the only slot that reads each row, else N, as moePermute gives it. It spares the search for slots. */
  permutedIdx?: TensorInfo;
};
export type MoeUnpermuteBackpropRowsAttrs = {
  /** R */
  numRows: number;
};
export type MoeUnpermuteBackpropRowsOutputs = {
  dRows: Tensor2D; //                      float32 [R, H]
};

/** d MoeUnpermute / d topkWeights: dWeights[t,k] = rows[inv[t,k]] . dy[t], 0 for a slot that is skipped. */
export const MoeUnpermuteBackpropWeights = 'MoeUnpermuteBackpropWeights';
export type MoeUnpermuteBackpropWeightsInputs = {
  dy: TensorInfo; //                       float32 [T, H]
  permutedHiddenStates: TensorInfo; //     float32 [R, H]
  invPermutedIdx: TensorInfo; //           int32 [T, K]
  expertFirstTokenOffset: TensorInfo; //   int32 [n]
};
export type MoeUnpermuteBackpropWeightsOutputs = {
  dWeights: Tensor2D; //                   float32 [T, K]
};

/** The place of each row of moePermute among the rows of its expert, in descending order of a value for each row. */
export const MoeRankRows = 'MoeRankRows';
export type MoeRankRowsInputs = {
  values: TensorInfo; //                   float32 [R]
  expertFirstTokenOffset: TensorInfo; //   int32 [L+1]
};
export type MoeRankRowsOutputs = {
  /**
   * int32 [R]: how many rows of the same expert have a larger value, or an equal value and an earlier place. 0 for a
   * row of no expert; unspecified if a value of the expert is NaN.
   */
  ranks: Tensor1D;
};

/** out[t] = sum over k of x[t,k], in slot order. */
export const MoeSum = 'MoeSum';
export type MoeSumInputs = {
  x: TensorInfo; //              float32 [T, K, H]
};
export type MoeSumOutputs = {
  out: Tensor2D; //              float32 [T, H]
};

/**
 * The activations of moeGroupedMatMul. 'relu2' is the square of 'relu', 'swish' is 'silu', 'geluNew' is 'geluTanh', and
 * 'gelu' is GELU by erf. 'swigluOai', of gpt-oss, is for gated experts only.
 */
export type MoeActivation =
  'linear' | 'relu' | 'relu2' | 'silu' | 'swish' | 'gelu' | 'geluTanh' | 'geluNew' | 'swigluOai';
/** The activations under the one name that kernels know. */
export type MoeKernelActivation = Exclude<MoeActivation, 'swish' | 'geluNew'>;

/** 'outIn': an expert's weights are [D, C], a row for each output. 'inOut': [C, D]. */
export type MoeWeightFormat = 'outIn' | 'inOut';

/** The order of D gated columns. 'concatenated': D/2 gates, then D/2 ups. 'interleaved': gate and up in turn. */
export type MoeGateUp = 'concatenated' | 'interleaved';

/** The activation of the D columns z of a product: activation(z), or activation(gate) * up if they are gated. */
export type MoeActivationAttrs = {
  activation: MoeKernelActivation;
  gated: boolean;
  gateUp: MoeGateUp;
  /** For 'swigluOai': min(g, limit) * sigmoid(alpha * min(g, limit)) * (clamp(u, -limit, limit) + 1). */
  swigluAlpha: number;
  /** For 'swigluOai', and for gated 'silu': silu(min(g, limit)) * clamp(u, -limit, limit). Infinity is no limit. */
  swigluLimit: number;
};

/**
 * out[r] = activation(weights[e] . x[r] + bias[e]) for the rows r of expert e, offset[e] <= r < offset[e+1]. Rows of no
 * expert are 0 in the result and are not read. Offsets that do not ascend in 0..R give unspecified values, computed
 * from these tensors alone.
 */
export const MoeGroupedMatMul = 'MoeGroupedMatMul';
/**
 * weights0, weights1, …: float32 [n, D, C] or [n, C, D], together L experts; or their codes, int32, with the scales and
 * offsets that their encoding has.
 */
export type MoeWeightParts = {[part: `weights${number}` | `scales${number}` | `offsets${number}`]: TensorInfo};
export type MoeGroupedMatMulInputs = MoeWeightParts & {
  x: TensorInfo; //                        float32 [R, C]
  expertFirstTokenOffset: TensorInfo; //   int32 [L+1]
  bias?: TensorInfo; //                    float32 [L, D]
};
export type MoeGroupedMatMulAttrs = MoeActivationAttrs & {
  /** 'inOut' of codes [n, C, D] is the gradient of a product with them: ops take 'outIn' alone. */
  weightFormat: MoeWeightFormat;
  /** Of all parts. */
  encoding: WeightEncoding;
  numParts: number;
};
export type MoeGroupedMatMulOutputs = {
  out: Tensor2D; //                        float32 [R, D], or [R, D/2] if gated
};

/**
 * The experts of few tokens, without a sort: out[t] = the sum over k, in slot order, of
 * w[t,k] * (w2[e] . activation(w1[e] . x[t] + w1Bias[e]) + w2Bias[e]), e the expert of the slot. A slot whose expert is
 * not here, by expertMap where there is one, adds nothing and is not read.
 */
export const MoeFusedExperts = 'MoeFusedExperts';
export type MoeFusedExpertsInputs = {
  x: TensorInfo; //                        float32 [T, H]
  topkWeights: TensorInfo; //              float32 [T, K]
  topkIds: TensorInfo; //                  int32 [T, K]
  expertMap?: TensorInfo; //               int32 [E]
  w1: TensorInfo; //                       float32 [L, D, H], D = 2I if gated, else I; or [L, H, D]; or codes
  w1Scales?: TensorInfo;
  w1Offsets?: TensorInfo;
  w1Bias?: TensorInfo; //                  float32 [L, D]
  w2: TensorInfo; //                       float32 [L, H, I] or [L, I, H]; or codes
  w2Scales?: TensorInfo;
  w2Offsets?: TensorInfo;
  w2Bias?: TensorInfo; //                  float32 [L, H]
};
export type MoeFusedExpertsAttrs = MoeActivationAttrs & {
  weightFormat: MoeWeightFormat;
  w1Encoding: WeightEncoding;
  w2Encoding: WeightEncoding;
};
export type MoeFusedExpertsOutputs = {
  out: Tensor2D; //                        float32 [T, H]
};

/** The rows of the experts of a call by slots, as moePermute gives them without alignment: R = N. */
export type MoeExpertRowsInputs = {
  permutedIdx: TensorInfo; //              int32 [R], the slot of each row, N for none
  invPermutedIdx: TensorInfo; //           int32 [T, K], the row of each slot
};

/**
 * The first matmul of experts: out[r] = activation(weights[e] . x[t] + bias[e]), row r being a slot of token t. Its
 * gradient keeps x, not rows that are copied from x.
 */
export const MoeExpertsUp = 'MoeExpertsUp';
export type MoeExpertsUpInputs = MoeGroupedMatMulInputs & MoeExpertRowsInputs; // x is float32 [T, C]
export type MoeExpertsUpAttrs = MoeGroupedMatMulAttrs;
export type MoeExpertsUpOutputs = MoeGroupedMatMulOutputs;

/**
 * The second matmul of experts where a gradient is wanted, and the merge of a token's rows:
 * out[t] = the sum over k of w[t,k] * (weights[e] . activation(x[inv[t,k]]) + bias[e]). Its gradient keeps x, which is
 * the result of MoeExpertsUp, and neither the activation of x nor the outputs of experts.
 */
export const MoeExpertsDown = 'MoeExpertsDown';
export type MoeExpertsDownInputs = MoeGroupedMatMulInputs &
  MoeExpertRowsInputs & {
    topkWeights: TensorInfo; //            float32 [T, K]
  };
/** The activation is that of x. The product has none. */
export type MoeExpertsDownAttrs = MoeGroupedMatMulAttrs;
export type MoeExpertsDownOutputs = {
  out: Tensor2D; //                        float32 [T, H]
};

/**
 * Two gradients of MoeExpertsDown in one: dz[r] = w * (d activation(z[r]) / dz . g[r]) and
 * dTopkWeights[t,k] = activation(z[r]) . g[r], for the row r of each slot and its weight w.
 */
export const MoeExpertsDownBackprop = 'MoeExpertsDownBackprop';
export type MoeExpertsDownBackpropInputs = {
  g: TensorInfo; //                        float32 [R, D] or [R, D/2]: the gradient of activation(z[r]) where w is 1
  z: TensorInfo; //                        float32 [R, D]
  topkWeights: TensorInfo; //              float32 [T, K]
  invPermutedIdx: TensorInfo; //           int32 [T, K]
  expertFirstTokenOffset: TensorInfo; //   int32 [L+1]
};
export type MoeExpertsDownBackpropOutputs = {
  dz: Tensor2D; //                         float32 [R, D]; unspecified in rows of no slot
  dTopkWeights: Tensor2D; //               float32 [T, K]; 0 for a slot that is skipped
};

/** out[r] = activation(z[r]), which MoeGroupedMatMul does to its product. */
export const MoeActivate = 'MoeActivate';
export type MoeActivateInputs = {
  z: TensorInfo; //                        float32 [R, D]
};
export type MoeActivateOutputs = {
  out: Tensor2D; //                        float32 [R, D], or [R, D/2] if gated
};

/** d MoeGroupedMatMul / d z, where z is its product without activation: dz[r, d], from dy and z. */
export const MoeGroupedMatMulBackpropActivation = 'MoeGroupedMatMulBackpropActivation';
export type MoeGroupedMatMulBackpropActivationInputs = {
  dy: TensorInfo; //                       float32 [R, D] or [R, D/2]
  z: TensorInfo; //                        float32 [R, D]
};
export type MoeGroupedMatMulBackpropActivationOutputs = {
  dz: Tensor2D; //                         float32 [R, D]; unspecified in rows of no expert
};

/** out[e] = the sum of the outer products a[r] b[r] over the rows r of expert firstExpert + e. */
export const MoeGroupedMatMulBackpropWeights = 'MoeGroupedMatMulBackpropWeights';
export type MoeGroupedMatMulBackpropWeightsInputs = {
  a: TensorInfo; //                        float32 [R, M]
  b: TensorInfo; //                        float32 [R, N]
  expertFirstTokenOffset: TensorInfo; //   int32 [L+1]
};
export type MoeGroupedMatMulBackpropWeightsAttrs = {
  firstExpert: number;
  numExperts: number;
};
export type MoeGroupedMatMulBackpropWeightsOutputs = {
  dWeights: Tensor3D; //                   float32 [numExperts, M, N]
};

/** How a router's logits become scores. */
export type MoeTopkScoring = 'softmax' | 'softmaxAfterTopk' | 'sigmoid' | 'sqrtSoftplus' | 'sparsemixer';
/** The scorings of kernels: 'sparsemixer' is made of 'softmax'. */
export type MoeKernelScoring = Exclude<MoeTopkScoring, 'sparsemixer'>;

/** Chooses K experts for each token by its logits, and computes their weights. */
export const MoeTopK = 'MoeTopK';
export type MoeTopKInputs = {
  routerLogits: TensorInfo; //             float32 [T, E]
  scoreCorrectionBias?: TensorInfo; //     float32 [E]
};
export type MoeTopKAttrs = {
  /** K, 1..E */
  topk: number;
  scoring: MoeKernelScoring;
  renormalize: boolean;
  /** The number of groups of consecutive experts, all of one size; 1 for no groups. */
  numExpertGroups: number;
  /** The number of groups from which experts are chosen. */
  topkGroups: number;
  routedScalingFactor: number;
};
export type MoeTopKOutputs = {
  topkWeights: Tensor2D; //                float32 [T, K]
  topkIds: Tensor2D; //                    int32 [T, K]
};

/** d MoeTopK's weights / d routerLogits; the choice is held fixed. */
export const MoeTopKBackprop = 'MoeTopKBackprop';
export type MoeTopKBackpropInputs = {
  dTopkWeights: TensorInfo; //             float32 [T, K]
  routerLogits: TensorInfo; //             float32 [T, E]
  topkIds: TensorInfo; //                  int32 [T, K], K different ids of 0..E-1 in a row
};
export type MoeTopKBackpropAttrs = Pick<MoeTopKAttrs, 'scoring' | 'renormalize' | 'routedScalingFactor'>;
export type MoeTopKBackpropOutputs = {
  dRouterLogits: Tensor2D; //              float32 [T, E]
};

/** The score of each expert divided by the sum of the token's scores, and the logarithm of this sum. */
export const MoeRouterProbabilities = 'MoeRouterProbabilities';
export type MoeRouterProbabilitiesInputs = {
  routerLogits: TensorInfo; //             float32 [T, E]
};
export type MoeRouterProbabilitiesAttrs = Pick<MoeTopKAttrs, 'scoring'>;
/**
 * Both are 0 for a token whose logits are all -Infinity. NaN among a token's logits makes all of its values NaN.
 * Infinity does so too, except with 'sigmoid'.
 */
export type MoeRouterProbabilitiesOutputs = {
  probabilities: Tensor2D; //              float32 [T, E]
  logSums: Tensor1D; //                    float32 [T]
};

/** Codes and scales for weights: see QuantizedWeights. */
export const MoeQuantizeWeights = 'MoeQuantizeWeights';
export type MoeQuantizeWeightsInputs = {
  weights: TensorInfo; //                  float32 [L, D, C]
};
export type MoeQuantizeWeightsAttrs = {
  /** Integers have offsets or the zero point of their format. */
  encoding: QuantizedEncoding;
};
/** The tensors of QuantizedWeights, with scales and offsets where the encoding has them. */
export type MoeQuantizeWeightsOutputs = QuantizedTensors<Tensor>;

/** The weights of experts firstExpert to firstExpert + numExperts - 1. */
export const MoeDequantizeWeights = 'MoeDequantizeWeights';
export type MoeDequantizeWeightsInputs = QuantizedTensors;
export type MoeDequantizeWeightsAttrs = {
  encoding: QuantizedEncoding;
  firstExpert: number;
  numExperts: number;
};
export type MoeDequantizeWeightsOutputs = {
  weights: Tensor3D; //                    float32 [numExperts, D, C]
};

/** x / sqrt(mean(x^2) + epsilon) * gamma, with the mean over a row. It has no gradient. */
export const MoeRmsNorm = 'MoeRmsNorm';
export type MoeRmsNormInputs = {
  x: TensorInfo; //                        float32 [R, H]
  gamma: TensorInfo; //                    float32 [H]
};
export type MoeRmsNormAttrs = {epsilon: number};
export type MoeRmsNormOutputs = {
  out: Tensor2D; //                        float32 [R, H]
};

/**
 * Turns the heads of queries and keys by the angles of their positions, and writes keys and values into a cache, in
 * place: this kernel alone changes inputs. A row is a sequence's position p, which is position[0] for its first row.
 * Here N and M are numbers of heads, D is the size of a head, and P is the capacity of the cache. It has no gradient.
 */
export const MoeRotateIntoCache = 'MoeRotateIntoCache';
export type MoeRotateIntoCacheInputs = {
  queries: TensorInfo; //                  float32 [B, T, N*D]
  keys: TensorInfo; //                     float32 [B, T, M*D]
  values: TensorInfo; //                   float32 [B, T, M*D]
  angles: TensorInfo; //                   float32 [P, D]: cosines, then sines, of the D/2 pairs
  position: TensorInfo; //                 int32 [1]
  cachedKeys: TensorInfo; //               float32 [B, M, P, D], of which rows p are written
  cachedValues: TensorInfo; //             float32 [B, M, P, D], of which rows p are written
};
export type MoeRotateIntoCacheAttrs = {
  /** The factor of queries. */
  scale: number;
};
export type MoeRotateIntoCacheOutputs = {
  rotated: Tensor3D; //                    float32 [B, T, N*D]: the queries
};

/** The attention of queries to the keys and values of a cache, as MoeRotateIntoCache leaves them. No gradient. */
export const MoeCachedAttention = 'MoeCachedAttention';
export type MoeCachedAttentionInputs = {
  queries: TensorInfo; //                  float32 [B, T, N*D], turned and scaled; D is at most 256
  cachedKeys: TensorInfo; //               float32 [B, M, P, D]
  cachedValues: TensorInfo; //             float32 [B, M, P, D]
  position: TensorInfo; //                 int32 [1]: the place of the first query of each sequence
  sinks?: TensorInfo; //                   float32 [N]: a logit of each head without a value
  keyMask?: TensorInfo; //                 float32 [B, P]: 0 for keys that take no part
};
export type MoeCachedAttentionAttrs = {
  /** A query sees its own place and w - 1 before it. Null: all before it. */
  slidingWindow: number | null;
};
export type MoeCachedAttentionOutputs = {
  out: Tensor3D; //                        float32 [B, T, N*D]; 0 for a query that sees no key
};

/** x . weights of each of up to three matrices, such as those of queries, keys and values. No gradient. */
export const MoeProjections = 'MoeProjections';
export type MoeProjectionsInputs = {
  x: TensorInfo; //                        float32 [R, H], of at most 4 rows
  weights0: TensorInfo; //                 float32 [H, D0]
  weights1?: TensorInfo; //                float32 [H, D1]
  weights2?: TensorInfo; //                float32 [H, D2]
};
export type MoeProjectionsOutputs = {
  out0: Tensor2D; //                       float32 [R, D0]
  out1?: Tensor2D; //                      float32 [R, D1], of weights1
  out2?: Tensor2D; //                      float32 [R, D2], of weights2
};

/** factorA * a + factorB * b, as residual connections have it. No gradient. */
export const MoeScaledSum = 'MoeScaledSum';
export type MoeScaledSumInputs = {
  a: TensorInfo; //                        float32 [n]
  b: TensorInfo; //                        float32 [n]
};
export type MoeScaledSumAttrs = {factorA: number; factorB: number};
export type MoeScaledSumOutputs = {
  out: Tensor1D; //                        float32 [n]
};

type NoAttrs = Record<string, never>;

/** Every kernel by its name. A kernel table that lacks one of these does not compile. */
export type MoeKernels = {
  [MoeAlignBlockSize]: {
    inputs: MoeAlignBlockSizeInputs;
    attrs: MoeAlignBlockSizeAttrs;
    outputs: MoeAlignBlockSizeOutputs;
  };
  [MoePermute]: {inputs: MoePermuteInputs; attrs: MoePermuteAttrs; outputs: MoePermuteOutputs};
  [MoeUnpermute]: {inputs: MoeUnpermuteInputs; attrs: NoAttrs; outputs: MoeUnpermuteOutputs};
  [MoeUnpermuteBackpropRows]: {
    inputs: MoeUnpermuteBackpropRowsInputs;
    attrs: MoeUnpermuteBackpropRowsAttrs;
    outputs: MoeUnpermuteBackpropRowsOutputs;
  };
  [MoeUnpermuteBackpropWeights]: {
    inputs: MoeUnpermuteBackpropWeightsInputs;
    attrs: NoAttrs;
    outputs: MoeUnpermuteBackpropWeightsOutputs;
  };
  [MoeRankRows]: {inputs: MoeRankRowsInputs; attrs: NoAttrs; outputs: MoeRankRowsOutputs};
  [MoeSum]: {inputs: MoeSumInputs; attrs: NoAttrs; outputs: MoeSumOutputs};
  [MoeGroupedMatMul]: {inputs: MoeGroupedMatMulInputs; attrs: MoeGroupedMatMulAttrs; outputs: MoeGroupedMatMulOutputs};
  [MoeFusedExperts]: {inputs: MoeFusedExpertsInputs; attrs: MoeFusedExpertsAttrs; outputs: MoeFusedExpertsOutputs};
  [MoeExpertsUp]: {inputs: MoeExpertsUpInputs; attrs: MoeExpertsUpAttrs; outputs: MoeExpertsUpOutputs};
  [MoeExpertsDown]: {inputs: MoeExpertsDownInputs; attrs: MoeExpertsDownAttrs; outputs: MoeExpertsDownOutputs};
  [MoeExpertsDownBackprop]: {
    inputs: MoeExpertsDownBackpropInputs;
    attrs: MoeActivationAttrs;
    outputs: MoeExpertsDownBackpropOutputs;
  };
  [MoeActivate]: {inputs: MoeActivateInputs; attrs: MoeActivationAttrs; outputs: MoeActivateOutputs};
  [MoeGroupedMatMulBackpropActivation]: {
    inputs: MoeGroupedMatMulBackpropActivationInputs;
    attrs: MoeActivationAttrs;
    outputs: MoeGroupedMatMulBackpropActivationOutputs;
  };
  [MoeGroupedMatMulBackpropWeights]: {
    inputs: MoeGroupedMatMulBackpropWeightsInputs;
    attrs: MoeGroupedMatMulBackpropWeightsAttrs;
    outputs: MoeGroupedMatMulBackpropWeightsOutputs;
  };
  [MoeTopK]: {inputs: MoeTopKInputs; attrs: MoeTopKAttrs; outputs: MoeTopKOutputs};
  [MoeTopKBackprop]: {inputs: MoeTopKBackpropInputs; attrs: MoeTopKBackpropAttrs; outputs: MoeTopKBackpropOutputs};
  [MoeRouterProbabilities]: {
    inputs: MoeRouterProbabilitiesInputs;
    attrs: MoeRouterProbabilitiesAttrs;
    outputs: MoeRouterProbabilitiesOutputs;
  };
  [MoeQuantizeWeights]: {
    inputs: MoeQuantizeWeightsInputs;
    attrs: MoeQuantizeWeightsAttrs;
    outputs: MoeQuantizeWeightsOutputs;
  };
  [MoeDequantizeWeights]: {
    inputs: MoeDequantizeWeightsInputs;
    attrs: MoeDequantizeWeightsAttrs;
    outputs: MoeDequantizeWeightsOutputs;
  };
  [MoeRmsNorm]: {inputs: MoeRmsNormInputs; attrs: MoeRmsNormAttrs; outputs: MoeRmsNormOutputs};
  [MoeRotateIntoCache]: {
    inputs: MoeRotateIntoCacheInputs;
    attrs: MoeRotateIntoCacheAttrs;
    outputs: MoeRotateIntoCacheOutputs;
  };
  [MoeCachedAttention]: {
    inputs: MoeCachedAttentionInputs;
    attrs: MoeCachedAttentionAttrs;
    outputs: MoeCachedAttentionOutputs;
  };
  [MoeProjections]: {inputs: MoeProjectionsInputs; attrs: NoAttrs; outputs: MoeProjectionsOutputs};
  [MoeScaledSum]: {inputs: MoeScaledSumInputs; attrs: MoeScaledSumAttrs; outputs: MoeScaledSumOutputs};
};
export type MoeKernelName = keyof MoeKernels;
/** Kernels of webgpu alone, without gradients of their own. Elsewhere core ops do their work, and for gradients. */
export type MoeDecodingKernelName =
  | typeof MoeRmsNorm
  | typeof MoeRotateIntoCache
  | typeof MoeCachedAttention
  | typeof MoeProjections
  | typeof MoeScaledSum;

/** The order of the outputs that a kernel gives to tfjs. */
export const moeKernelOutputNames: {
  readonly [K in MoeKernelName]: ReadonlyArray<keyof MoeKernels[K]['outputs'] & string>;
} = {
  MoeAlignBlockSize: ['sortedTokenIds', 'expertIds', 'numTokensPostPad'],
  MoePermute: [
    'permutedHiddenStates',
    'expertFirstTokenOffset',
    'invPermutedIdx',
    'mIndices',
    'permutedIdx',
    'a1qScale',
  ],
  MoeUnpermute: ['out'],
  MoeUnpermuteBackpropRows: ['dRows'],
  MoeUnpermuteBackpropWeights: ['dWeights'],
  MoeRankRows: ['ranks'],
  MoeSum: ['out'],
  MoeGroupedMatMul: ['out'],
  MoeFusedExperts: ['out'],
  MoeExpertsUp: ['out'],
  MoeExpertsDown: ['out'],
  MoeExpertsDownBackprop: ['dz', 'dTopkWeights'],
  MoeActivate: ['out'],
  MoeGroupedMatMulBackpropActivation: ['dz'],
  MoeGroupedMatMulBackpropWeights: ['dWeights'],
  MoeTopK: ['topkWeights', 'topkIds'],
  MoeTopKBackprop: ['dRouterLogits'],
  MoeRouterProbabilities: ['probabilities', 'logSums'],
  MoeQuantizeWeights: ['codes', 'scales', 'offsets'],
  MoeDequantizeWeights: ['weights'],
  MoeRmsNorm: ['out'],
  MoeRotateIntoCache: ['rotated'],
  MoeCachedAttention: ['out'],
  MoeProjections: ['out0', 'out1', 'out2'],
  MoeScaledSum: ['out'],
};
