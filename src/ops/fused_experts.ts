import {
  concat,
  engine,
  expandDims,
  mul,
  onesLike,
  op,
  reshape,
  slice,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
  type TensorLike,
  tidy,
} from '@tensorflow/tfjs-core';
import {
  type MoeActivationAttrs,
  MoeGroupedMatMul,
  MoePermute,
  MoeUnpermute,
  type MoeWeightFormat,
  runMoeKernel,
} from '../kernel_names';
import {assert, assertFitsInt32, assertRank, checkBoolean, checkOptions, convertToOptionalTensor} from './checks';
import {
  activationOptionNames,
  type ActivationOptions,
  checkActivation,
  checkWeightFormat,
  convertExpertBias,
  convertExpertWeights,
  type ExpertWeights,
  type MoeWeights,
  namedParts,
} from './expert_arguments';
import {convertHiddenStates, convertTopkIds, convertTopkWeights} from './moe_arguments';

export type FusedExpertsOptions = ActivationOptions & {
  weightFormat?: MoeWeightFormat | null;
  w1Bias?: Tensor | TensorLike | null;
  w2Bias?: Tensor | TensorLike | null;
  expertMap?: Tensor | TensorLike | null;
  applyRouterWeightOnInput?: boolean | null;
};

export const fusedExpertsOptionNames = [
  ...activationOptionNames,
  'weightFormat',
  'w1Bias',
  'w2Bias',
  'expertMap',
  'applyRouterWeightOnInput',
] as const;

/** Every WebGPU device binds a buffer of this size, so no rows between two launches take more, but for one token's. */
const MAX_ROWS_BYTES = 2 ** 27;

function fusedExperts_(
  hiddenStates: Tensor | TensorLike,
  w1: MoeWeights,
  w2: MoeWeights,
  topkWeights: Tensor | TensorLike,
  topkIds: Tensor | TensorLike,
  options?: FusedExpertsOptions | null,
): Tensor2D {
  const opName = 'fusedExperts';
  const given = checkOptions(options, fusedExpertsOptionNames, opName);
  const $x = convertHiddenStates(hiddenStates, opName, ['float32']);
  const $ids = convertTopkIds(topkIds, opName, $x.shape[0]);
  const $weights = convertTopkWeights(topkWeights, opName);
  assert(
    $weights.shape[0] === $ids.shape[0] && $weights.shape[1] === $ids.shape[1],
    opName,
    () => `topkWeights must be [T, K] = [${$ids.shape}] like topkIds, but is [${$weights.shape}].`,
  );
  return runExperts($x, $weights, $ids, convertExperts($x, w1, w2, given, opName), opName);
}

/** The experts of a call, converted and checked. */
export type Experts = {
  w1: ExpertWeights;
  w2: ExpertWeights;
  w1Bias?: Tensor2D;
  w2Bias?: Tensor2D;
  numExperts: number;
  expertMap?: Tensor1D;
  weightFormat: MoeWeightFormat;
  activation: MoeActivationAttrs;
  intermediateSize: number;
  applyRouterWeightOnInput: boolean;
};

/** The arguments of fusedExperts that say what the experts are, in the name of the op that was called. */
export function convertExperts(
  {shape}: Pick<Tensor2D, 'shape'>,
  w1: MoeWeights,
  w2: MoeWeights,
  given: Partial<FusedExpertsOptions>,
  opName: string,
): Experts {
  const hiddenSize = shape[1];
  const weightFormat = checkWeightFormat(given.weightFormat, opName);
  const activation = checkActivation(
    {...given, activation: given.activation ?? 'silu', gated: given.gated ?? true},
    opName,
  );
  const {gated} = activation;
  const $w1 = convertExpertWeights(
    w1,
    {argName: 'w1', out: gated ? '2I' : 'I', in: 'H', numIn: hiddenSize, rows: `hiddenStates [${shape}]`},
    weightFormat,
    opName,
  );
  assert(
    !gated || $w1.numOut % 2 === 0,
    opName,
    () => `w1 must have an even 2I when gated, a gate and an up for each of I, but 2I = ${$w1.numOut}.`,
  );
  const intermediateSize = gated ? $w1.numOut / 2 : $w1.numOut;
  const $w2 = convertExpertWeights(
    w2,
    {argName: 'w2', out: 'H', in: 'I', numIn: intermediateSize, rows: `w1 [${$w1.parts[0].shape}]`},
    weightFormat,
    opName,
  );
  assert(
    $w2.numOut === hiddenSize,
    opName,
    () => `w2 must have as many outputs as hiddenStates has columns (H = ${hiddenSize}), but has ${$w2.numOut}.`,
  );
  assert(
    $w2.numExperts === $w1.numExperts,
    opName,
    () => `w2 must have as many experts as w1 (L = ${$w1.numExperts}), but has ${$w2.numExperts}.`,
  );
  const expertMap = convertToOptionalTensor(given.expertMap, 'expertMap', opName, ['int32']) as Tensor1D | undefined;
  if (expertMap != null) {
    assertRank(expertMap, 'expertMap', opName, '[E]');
    assert(
      expertMap.shape[0] >= $w1.numExperts,
      opName,
      () =>
        `expertMap must have an entry for each expert, no fewer than are local (L = ${$w1.numExperts}), but has ` +
        `${expertMap.shape[0]}.`,
    );
  }
  return {
    w1: $w1,
    w2: $w2,
    w1Bias: convertExpertBias(given.w1Bias, 'w1Bias', gated ? '[L, 2I]' : '[L, I]', $w1, opName),
    w2Bias: convertExpertBias(given.w2Bias, 'w2Bias', '[L, H]', $w2, opName),
    numExperts: expertMap?.shape[0] ?? $w1.numExperts,
    expertMap,
    weightFormat,
    activation,
    intermediateSize,
    applyRouterWeightOnInput: checkBoolean(given.applyRouterWeightOnInput, 'applyRouterWeightOnInput', opName),
  };
}

/** Runs the experts, a chunk of tokens at a time where their rows are more than a device may bind. */
export function runExperts(
  x: Tensor2D,
  topkWeights: Tensor2D,
  topkIds: Tensor2D,
  experts: Experts,
  opName: string,
  maxRowsBytes = MAX_ROWS_BYTES,
): Tensor2D {
  const [numTokens, topk] = topkIds.shape;
  assertFitsInt32(numTokens * topk, 'the number of assignments (T*K)', opName);
  // A gradient computes gates and ups once more, from before the activation.
  const hasGateAndUp = experts.activation.gated && engine().state.gradientDepth > 0;
  const bytesPerToken = 4 * topk * Math.max(x.shape[1], experts.intermediateSize * (hasGateAndUp ? 2 : 1));
  const chunkSize = Math.max(1, Math.floor(maxRowsBytes / bytesPerToken));
  if (numTokens <= chunkSize) {
    return runChunk(x, topkWeights, topkIds, experts);
  }
  const chunks: Tensor2D[] = [];
  for (let first = 0; first < numTokens; first += chunkSize) {
    const size = Math.min(chunkSize, numTokens - first);
    const chunkOf = (tensor: Tensor2D) => slice(tensor, [first, 0], [size, tensor.shape[1]]);
    chunks.push(tidy(() => runChunk(chunkOf(x), chunkOf(topkWeights), chunkOf(topkIds), experts)));
  }
  return concat(chunks, 0);
}

function runChunk(x: Tensor2D, topkWeights: Tensor2D, topkIds: Tensor2D, experts: Experts): Tensor2D {
  const {w1, w2, w1Bias, w2Bias, numExperts, expertMap, weightFormat, activation} = experts;
  const [numTokens, topk] = topkIds.shape;
  // With the weight in them already, the copies of a row differ: each is a token of one expert.
  const scaled = experts.applyRouterWeightOnInput;
  const numAssignments = numTokens * topk;
  const [rows, expertFirstTokenOffset, inverse] = runMoeKernel(
    MoePermute,
    {
      hiddenStates: scaled
        ? reshape(mul(expandDims(x, 1), expandDims(topkWeights, 2)), [numAssignments, x.shape[1]])
        : x,
      topkIds: scaled ? reshape(topkIds, [numAssignments, 1]) : topkIds,
      expertMap,
    },
    {numExperts, numLocalExperts: w1.numExperts, alignBlockSize: 0, fillInvalidExpert: -1, padding: 'zero'},
  );
  const [intermediate] = runMoeKernel(
    MoeGroupedMatMul,
    {x: rows, expertFirstTokenOffset, ...namedParts(w1), bias: w1Bias},
    {weightFormat, numParts: w1.parts.length, ...activation},
  );
  const [outputs] = runMoeKernel(
    MoeGroupedMatMul,
    {x: intermediate, expertFirstTokenOffset, ...namedParts(w2), bias: w2Bias},
    {weightFormat, numParts: w2.parts.length, ...activation, activation: 'linear', gated: false},
  );
  const [out] = runMoeKernel(
    MoeUnpermute,
    {
      permutedHiddenStates: outputs,
      topkWeights: scaled ? onesLike(topkWeights) : topkWeights,
      invPermutedIdx: reshape(inverse, [numTokens, topk]),
      expertFirstTokenOffset,
    },
    {},
  );
  return out as Tensor2D;
}

/**
 * The experts of a mixture: each token through the experts it was routed to, merged by its weights. Permute, two
 * grouped matmuls and unpermute, with no readback: 6 launches on webgpu, 4 for few tokens.
 *
 * ```js
 * // T = 2 tokens of H = 2, L = 2 experts of I = 1, K = 1
 * const x = tf.tensor2d([[1, 2], [3, 4]]);
 * const w1 = tf.tensor3d([[[1, 0]], [[0, 1]]]); // [L, I, H]
 * const w2 = tf.tensor3d([[[1], [1]], [[10], [10]]]); // [L, H, I]
 * const options = {activation: 'relu', gated: false};
 * await tf.fusedExperts(x, w1, w2, [[1], [0.5]], [[1], [0]], options).array(); // => [[20, 20], [1.5, 1.5]]
 * ```
 *
 * @param hiddenStates  float32 [T, H].
 * @param w1  float32 [L, 2I, H], gate and up of each of L experts; [L, I, H] with `gated: false`. An array of tensors
 *     is read as their concatenation along axis 0, the way past the size that a device binds.
 * @param w2  float32 [L, H, I].
 * @param topkWeights  float32 [T, K].
 * @param topkIds  int32 [T, K]. A slot whose expert is not local, or whose id is no expert, adds nothing.
 * @param options.activation  As in moeGroupedMatMul; default `'silu'`.
 * @param options.gated  Default true: activation(gate) * up.
 * @param options.gateUp  `'concatenated'` (default): w1 has I gates, then I ups; or `'interleaved'`.
 * @param options.swigluAlpha  Default 1.702.
 * @param options.swigluLimit  Default 7.
 * @param options.weightFormat  `'outIn'` (default), or `'inOut'` for w1 [L, H, 2I] and w2 [L, I, H].
 * @param options.w1Bias  float32 [L, 2I]; [L, I] with `gated: false`.
 * @param options.w2Bias  float32 [L, H].
 * @param options.expertMap  int32 [E]: the local expert of each global one, -1 where it is not here; without it E = L.
 *     The results of all shards add up to that of the whole.
 * @param options.applyRouterWeightOnInput  Multiply the rows by their weights before w1, not after w2. Default false.
 * @returns float32 [T, H]: the sum over slots of w * (w2 . act(w1 . x + w1Bias) + w2Bias).
 *
 * Memory: rows [T*K, H] and [T*K, I] between launches, of at most 128 MiB each; more tokens are taken in chunks. For a
 * gradient [T*K, 2I] too, within the same limit, and the rows of all chunks stay until it is done.
 *
 * Gradient: to hiddenStates, w1, w2, the biases and topkWeights, of any order.
 *
 * @throws if a rank, dtype, shape or option does not fit, before any work. On GPUs also where a tensor is larger than
 *     the device binds, and on webgl where an index could pass 2^24, or 2,048 on devices of half-float textures.
 *
 * Source: vLLM `fused_experts`.
 */
export const fusedExperts = /* @__PURE__ */ op({fusedExperts_});
