import {op, type Rank, type Tensor, type Tensor1D, type Tensor2D, type TensorLike, util} from '@tensorflow/tfjs-core';
import type {MoeWeightFormat} from '../contract/kernel_names';
import {assert, assertNumExperts, assertRank, checkBoolean, checkOptions, convertToOptionalTensor} from '../arguments/checks';
import {
  activationOptionNames,
  type ActivationOptions,
  checkActivation,
  checkWeightFormat,
  convertExpertBias,
  convertExpertWeights,
  convertSharedWeights,
  type ExpertWeights,
  type MoeExpertWeights,
  type WeightArgument,
} from '../arguments/experts';
import {alongTokens, assertSameTokens, convertTokenRows, type MoeIndices} from '../arguments/routing';
import {type Experts, runExperts} from './run_experts';

/** The experts that every token takes, as one expert of their width together. */
export type MoeSharedExperts = {
  /** float32 [2F, H]; [F, H] with `gated: false`; [H, 2F] and [H, F] with `weightFormat: 'inOut'`. */
  w1: Tensor | TensorLike;
  /** float32 [H, F]; [F, H] with `weightFormat: 'inOut'`. */
  w2: Tensor | TensorLike;
  /** float32 [H, 1], whatever the weightFormat: their output is multiplied by sigmoid(x . gate). Default: not. */
  gate?: Tensor | TensorLike | null;
};

export type FusedExpertsOptions = ActivationOptions & {
  /**
   * `'outIn'`, the default: an expert's weights have a row for each output, as in files of vLLM, PyTorch and Hugging
   * Face. `'inOut'`: a row for each input, w1 [L, H, 2I] and w2 [L, I, H], as tf.layers and gpt-oss have them.
   */
  weightFormat?: MoeWeightFormat | null;
  /** float32 [L, 2I]; [L, I] with `gated: false`. Default: none. */
  w1Bias?: Tensor | TensorLike | null;
  /** float32 [L, H]. Default: none. */
  w2Bias?: Tensor | TensorLike | null;
  /**
   * int32 [E]: the local expert of each global one, -1 where it is not here. The results of all shards add up to that
   * of the whole. Default: all are here, E = L.
   */
  expertMap?: MoeIndices | null;
  /** Multiply the rows by their weights before w1, not after w2, as Llama-4 does. Default false. */
  applyRouterWeightOnInput?: boolean | null;
  /** Experts that every token takes, added last. Of several shards that add up, one may have them. Default: none. */
  sharedExperts?: MoeSharedExperts | null;
};

export const fusedExpertsOptionNames = [
  ...activationOptionNames,
  'weightFormat',
  'w1Bias',
  'w2Bias',
  'expertMap',
  'applyRouterWeightOnInput',
  'sharedExperts',
] as const;

function fusedExperts_<R extends Rank>(
  hiddenStates: Tensor<R> | TensorLike,
  w1: MoeExpertWeights,
  w2: MoeExpertWeights,
  topkWeights: Tensor | TensorLike,
  topkIds: MoeIndices,
  options?: FusedExpertsOptions | null,
): Tensor<R> {
  const opName = 'fusedExperts';
  const given = checkOptions(options, fusedExpertsOptionNames, opName);
  const $x = convertTokenRows(hiddenStates, 'hiddenStates', 'H', 'float32', opName);
  const $ids = convertTokenRows(topkIds, 'topkIds', 'K', 'int32', opName);
  assertSameTokens($ids, 'topkIds', $x, 'hiddenStates', opName);
  const $weights = convertTokenRows(topkWeights, 'topkWeights', 'K', 'float32', opName);
  assert(
    util.arraysEqual($weights.shape, $ids.shape),
    opName,
    () => `topkWeights must be like topkIds [${$ids.shape}], but is [${$weights.shape}].`,
  );
  const experts = convertExperts($x.shape, w1, w2, given, opName);
  return alongTokens(runExperts($x.rows, $weights.rows, $ids.rows, experts, opName), $x);
}

/** The arguments of fusedExperts that say what the experts are, in the name of the op that was called. */
export function convertExperts(
  xShape: number[],
  w1: MoeExpertWeights,
  w2: MoeExpertWeights,
  given: Partial<FusedExpertsOptions>,
  opName: string,
): Experts {
  const activation = checkActivation(
    {...given, activation: given.activation ?? 'silu', gated: given.gated ?? true},
    opName,
  );
  const common = {xShape, gated: activation.gated, weightFormat: checkWeightFormat(given.weightFormat, opName)};
  const experts = convertPair(w1, w2, routedPair, common, opName);
  const numLocalExperts = experts.w1.numExperts;
  assert(
    experts.w2.numExperts === numLocalExperts,
    opName,
    () => `w2 must have as many experts as w1 (L = ${numLocalExperts}), but has ${experts.w2.numExperts}.`,
  );
  const expertMap = convertToOptionalTensor(given.expertMap, 'expertMap', opName, ['int32']) as Tensor1D | undefined;
  if (expertMap != null) {
    assertRank(expertMap, 'expertMap', opName, '[E]');
    assert(
      expertMap.shape[0] >= numLocalExperts,
      opName,
      () =>
        `expertMap must have an entry for each expert, no fewer than are local (L = ${numLocalExperts}), but has ` +
        `${expertMap.shape[0]}.`,
    );
  }
  const numExperts = expertMap?.shape[0] ?? numLocalExperts;
  assertNumExperts(numExperts, 'the number of experts (E)', opName);
  return {
    ...experts,
    w1Bias: convertExpertBias(given.w1Bias, 'w1Bias', activation.gated ? '[L, 2I]' : '[L, I]', experts.w1, opName),
    w2Bias: convertExpertBias(given.w2Bias, 'w2Bias', '[L, H]', experts.w2, opName),
    numExperts,
    expertMap,
    weightFormat: common.weightFormat,
    activation,
    applyRouterWeightOnInput: checkBoolean(given.applyRouterWeightOnInput, 'applyRouterWeightOnInput', opName),
    shared: convertSharedExperts(given.sharedExperts, common, opName),
  };
}

/** What the experts of a call have in common, the routed and the shared ones. */
type CommonArguments = {xShape: number[]; gated: boolean; weightFormat: MoeWeightFormat};

type PairNames<Weights> = {
  w1: string;
  w2: string;
  /** The axis between the two, which is twice as long in w1 where there are gates. */
  width: string;
  convert: (weights: Weights, argument: WeightArgument, format: MoeWeightFormat, opName: string) => ExpertWeights;
  shapeOf: (weights: ExpertWeights) => number[];
};

const routedPair: PairNames<MoeExpertWeights> = {
  w1: 'w1',
  w2: 'w2',
  width: 'I',
  convert: convertExpertWeights,
  shapeOf: ({parts}) => parts[0].shape,
};

const sharedPair: PairNames<Tensor | TensorLike> = {
  w1: 'sharedExperts.w1',
  w2: 'sharedExperts.w2',
  width: 'F',
  convert: convertSharedWeights,
  shapeOf: ({parts}) => parts[0].shape.slice(1),
};

function convertPair<Weights>(
  w1: Weights,
  w2: Weights,
  {width, convert, shapeOf, ...names}: PairNames<Weights>,
  {xShape, gated, weightFormat}: CommonArguments,
  opName: string,
): Pick<Experts, 'w1' | 'w2' | 'intermediateSize'> {
  const hiddenSize = xShape[xShape.length - 1];
  const out = gated ? `2${width}` : width;
  const $w1 = convert(
    w1,
    {argName: names.w1, out, in: 'H', numIn: hiddenSize, rows: `hiddenStates [${xShape}]`},
    weightFormat,
    opName,
  );
  assert(
    !gated || $w1.numOut % 2 === 0,
    opName,
    () => `${names.w1} must have an even ${out} when gated, a gate and an up for each of ${width}, but ${out} = ${$w1.numOut}.`,
  );
  const intermediateSize = gated ? $w1.numOut / 2 : $w1.numOut;
  const $w2 = convert(
    w2,
    {argName: names.w2, out: 'H', in: width, numIn: intermediateSize, rows: `${names.w1} [${shapeOf($w1)}]`},
    weightFormat,
    opName,
  );
  assert(
    $w2.numOut === hiddenSize,
    opName,
    () =>
      `${names.w2} must have as many outputs as hiddenStates has columns (H = ${hiddenSize}), but has ${$w2.numOut}.`,
  );
  return {w1: $w1, w2: $w2, intermediateSize};
}

function convertSharedExperts(
  shared: MoeSharedExperts | null | undefined,
  common: CommonArguments,
  opName: string,
): Experts['shared'] {
  if (shared == null) {
    return undefined;
  }
  const {w1, w2, gate} = checkOptions(shared, ['w1', 'w2', 'gate'], opName, 'sharedExperts') as MoeSharedExperts;
  const pair = convertPair(w1, w2, sharedPair, common, opName);
  const hiddenSize = pair.w2.numOut;
  const $gate = convertToOptionalTensor(gate, 'sharedExperts.gate', opName, ['float32']) as Tensor2D | undefined;
  assert(
    $gate == null || util.arraysEqual($gate.shape, [hiddenSize, 1]),
    opName,
    () => `sharedExperts.gate must be [H, 1] = [${hiddenSize},1], but is [${$gate!.shape}].`,
  );
  return {...pair, gate: $gate};
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
 * const merged = tf.fusedExperts(x, w1, w2, [[1], [0.5]], [[1], [0]], {activation: 'relu', gated: false});
 * await merged.array(); // => [[20, 20], [1.5, 1.5]]
 * ```
 *
 * @param hiddenStates  float32 [T, H]; or [..., H] of any rank, such as [B, T, H], with weights and ids [..., K].
 * @param w1  float32 [L, 2I, H], gate and up of each of L experts; [L, I, H] with `gated: false`. An array of tensors
 *     is read as their concatenation along axis 0, the way past the size that a device binds.
 * @param w2  float32 [L, H, I].
 * @param topkWeights  float32 [T, K].
 * @param topkIds  int32 [T, K]. A slot whose expert is not local, or whose id is no expert, adds nothing.
 * @param options  {@link FusedExpertsOptions}.
 * @returns float32 [T, H], or of the rank of hiddenStates: the sum over slots of
 *     w * (w2 . act(w1 . x + w1Bias) + w2Bias); shared experts are added last.
 *
 * Memory: rows [T*K, H] and [T*K, I] between launches, of at most 128 MiB each; more tokens are taken in chunks. For a
 * gradient [T*K, 2I] too, within the same limit, and the rows of all chunks stay until it is done.
 *
 * Gradient: to hiddenStates, w1, w2, the biases, the shared experts and topkWeights, of any order.
 *
 * @throws if a rank, dtype, shape or option does not fit, before any work. On GPUs also where a tensor is larger than
 *     the device binds, and on webgl where an index could pass 2^24, or 2,048 on devices of half-float textures.
 *
 * Source: vLLM `fused_experts`.
 */
export const fusedExperts = /* @__PURE__ */ op({fusedExperts_});
