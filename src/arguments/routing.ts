/** The arguments that several ops share, converted and checked in one way. */
import {
  type Rank,
  reshape,
  type ShapeMap,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
  type TensorLike,
  util,
} from '@tensorflow/tfjs-core';
import type {MoeTopKAttrs, MoeTopkScoring} from '../contract/kernel_names';
import {
  assert,
  assertNumExperts,
  assertPositiveInteger,
  assertRank,
  checkBoolean,
  checkOneOf,
  convertToOptionalTensor,
  convertToTensor,
  describeValue,
} from './checks';

type Given = Tensor | TensorLike;

/**
 * Ids of experts or rows: int32 tensors, nested arrays of integers, Int32Array or Uint8Array. The types refuse a single
 * number, because it is no list of ids.
 */
export type MoeIndices = Tensor | Int32Array | Uint8Array | NestedIndices;

type NestedIndices = ReadonlyArray<number | Int32Array | Uint8Array | NestedIndices>;

/** Tokens [..., size] along any leading axes, as a matrix with a row for each of T tokens. */
export type TokenRows = {rows: Tensor2D; shape: number[]};

/** A tensor [..., size] of rank 2 or more, size >= 1; `axis` names the last axis. */
export function convertTokenRows(
  x: Given,
  argName: string,
  axis: 'H' | 'E' | 'K',
  dtype: 'float32' | 'int32',
  opName: string,
): TokenRows {
  const $x = convertToTensor(x, argName, opName, [dtype]);
  const {rank, shape} = $x;
  assert(
    rank >= 2,
    opName,
    () =>
      `${argName} must be rank 2 [T, ${axis}] or more, but got rank ${rank} [${shape}]. Reshape it to [-1, ${axis}].`,
  );
  const size = shape[rank - 1];
  assert(size >= 1, opName, () => `${argName} must have at least 1 column (${axis}), but has 0.`);
  if (axis === 'E') {
    assertNumExperts(size, `the number of columns (E) of ${argName}`, opName);
  }
  const numTokens = util.sizeFromShape(shape.slice(0, -1));
  return {rows: rank === 2 ? ($x as Tensor2D) : reshape($x, [numTokens, size]), shape};
}

export function assertSameTokens(
  {shape}: TokenRows,
  argName: string,
  of: TokenRows,
  nameOf: string,
  opName: string,
): void {
  assert(
    util.arraysEqual(shape.slice(0, -1), of.shape.slice(0, -1)),
    opName,
    () => `${argName} must have the shape of ${nameOf} [${of.shape}] except for the last axis, but is [${shape}].`,
  );
}

/** A row for each token, along the leading axes of the tokens that were given. */
export function alongTokens<R extends Rank>(rows: Tensor2D, {shape}: TokenRows): Tensor<R> {
  const alongAxes = [...shape.slice(0, -1), rows.shape[1]] as ShapeMap[R];
  return shape.length === 2 ? (rows as Tensor as Tensor<R>) : reshape(rows, alongAxes);
}

/** The hiddenStates of ops that only move rows: float32 or int32 [T, H], H >= 1. */
export function convertHiddenStates(x: Given, opName: string): Tensor2D {
  const $x = convertToTensor(x, 'hiddenStates', opName, ['float32', 'int32']) as Tensor2D;
  assertRank($x, 'hiddenStates', opName, '[T, H]', 'Reshape it to [-1, H] first.');
  assert($x.shape[1] >= 1, opName, () => `hiddenStates must have at least 1 column (H), but has 0.`);
  return $x;
}

/** topkIds: int32 [T, K], K >= 1. T must be numTokens, if it is given. */
export function convertTopkIds(x: Given, opName: string, numTokens?: number): Tensor2D {
  const $x = convertToTensor(x, 'topkIds', opName, ['int32']) as Tensor2D;
  assertRank($x, 'topkIds', opName, '[T, K]', 'Reshape it to [-1, K] first.');
  assert($x.shape[1] >= 1, opName, () => `topkIds must have at least 1 column (K), but has 0.`);
  assert(
    numTokens == null || $x.shape[0] === numTokens,
    opName,
    () => `topkIds must have as many rows as hiddenStates (T = ${numTokens}), but has ${$x.shape[0]}.`,
  );
  return $x;
}

/** topkWeights: float32 [T, K], K >= 1. */
export function convertTopkWeights(x: Given, opName: string): Tensor2D {
  const $x = convertToTensor(x, 'topkWeights', opName, ['float32']) as Tensor2D;
  assertRank($x, 'topkWeights', opName, '[T, K]', 'Reshape it to [-1, K] first.');
  assert($x.shape[1] >= 1, opName, () => `topkWeights must have at least 1 column (K), but has 0.`);
  return $x;
}

/** The scoring; 'softmax' if it is not given. */
export function checkScoring(scoring: MoeTopkScoring | null | undefined, opName: string): MoeTopkScoring {
  return checkOneOf(scoring ?? 'softmax', moeScorings, 'scoring', opName);
}

export const moeScorings: readonly MoeTopkScoring[] = [
  'softmax',
  'softmaxAfterTopk',
  'sigmoid',
  'sqrtSoftplus',
  'sparsemixer',
];

/** expertMap: int32 [E], or undefined if it is not given. */
export function convertExpertMap(
  x: Given | null | undefined,
  numExperts: number,
  opName: string,
): Tensor1D | undefined {
  const $x = convertToOptionalTensor(x, 'expertMap', opName, ['int32']);
  if ($x != null) {
    assertRank($x, 'expertMap', opName, '[E]');
    assert(
      $x.shape[0] === numExperts,
      opName,
      () => `expertMap must have an entry for each expert (numExperts = ${numExperts}), but has ${$x.shape[0]}.`,
    );
  }
  return $x as Tensor1D | undefined;
}

/**
 * a1qScale, or undefined if it is not given. `perToken` says whether it is gathered. Scales of rank 0 or 1, and scales
 * of several tokens whose first dimension is 1, are for the whole tensor.
 */
export function convertScale(
  x: Given | null | undefined,
  numTokens: number,
  opName: string,
): {scale: Tensor; perToken: boolean} | undefined {
  const scale = convertToOptionalTensor(x, 'a1qScale', opName, ['float32', 'int32']);
  if (scale == null) {
    return undefined;
  }
  if (scale.rank < 2 || (scale.shape[0] === 1 && numTokens > 1)) {
    return {scale, perToken: false};
  }
  assert(
    scale.shape[0] === numTokens,
    opName,
    () => `a1qScale must have as many rows as hiddenStates (T = ${numTokens}), or 1, but has ${scale.shape[0]}.`,
  );
  assert(scale.size > 0 || numTokens === 0, opName, () => `a1qScale must not be empty, but is [${scale.shape}].`);
  return {scale, perToken: true};
}

/** invPermutedIdx: int32 [N] or [T, K], with the T and K of topkWeights. */
export function convertInvPermutedIdx(x: Given, topkWeights: Tensor2D, opName: string): Tensor {
  const $x = convertToTensor(x, 'invPermutedIdx', opName, ['int32']);
  const [numTokens, topk] = topkWeights.shape;
  const matches =
    ($x.rank === 1 && $x.shape[0] === numTokens * topk) ||
    ($x.rank === 2 && $x.shape[0] === numTokens && $x.shape[1] === topk);
  assert(
    matches,
    opName,
    () =>
      `invPermutedIdx must be [${numTokens * topk}] or [${numTokens},${topk}] for topkWeights ` +
      `[${topkWeights.shape}], but is [${$x.shape}].`,
  );
  return $x;
}

export type MoeTopkOptions = {
  /**
   * How logits become scores. `'softmax'` (default): softmax over all E experts. `'softmaxAfterTopk'`: softmax over the
   * K chosen experts, as in gpt-oss and Granite. `'sigmoid'`. `'sqrtSoftplus'`: sqrt(log(1 + exp(x))), as in
   * DeepSeek-V4. `'sparsemixer'`, of Phi-3.5-MoE: for each slot a softmax over the experts near its own that no slot
   * before it has. Its weights are not renormalized, and it takes no groups and no bias.
   */
  scoring?: MoeTopkScoring | null;
  /**
   * Divide the K weights by their sum. The result is exact also if the scores are too small for float32. Default: true
   * if topk > 1, except with `'sparsemixer'`.
   */
  renormalize?: boolean | null;
  /**
   * float32 [E], added to the scores only to choose experts, as in DeepSeek-V3. Not with `'softmaxAfterTopk'`. Default:
   * none.
   */
  scoreCorrectionBias?: Tensor | TensorLike | null;
  /**
   * Divide the experts into groups of E / numExpertGroups consecutive experts, and choose only from the `topkGroups`
   * best groups. Of equal groups the lower one is better. A group's value is its largest logit; with
   * scoreCorrectionBias it is the sum of its two largest values of score + bias. Default: no groups.
   */
  numExpertGroups?: number | null;
  /** The number of groups from which experts are chosen. Required with numExpertGroups. */
  topkGroups?: number | null;
  /**
   * Which experts `'sparsemixer'` counts as near the chosen one, whose logit is x: those whose logit l is at least
   * x - 2 * jitter * max(|l|, x). Default 0.01.
   */
  sparsemixerJitter?: number | null;
  /** The weights are multiplied by this factor last. Default 1. */
  routedScalingFactor?: number | null;
};

export const moeTopkOptionNames = [
  'scoring',
  'renormalize',
  'scoreCorrectionBias',
  'numExpertGroups',
  'topkGroups',
  'sparsemixerJitter',
  'routedScalingFactor',
] as const;

function checkGroups(
  {numExpertGroups, topkGroups}: MoeTopkOptions,
  numExperts: number,
  topk: number,
  opName: string,
): {numExpertGroups: number; topkGroups: number} {
  if (numExpertGroups == null && topkGroups == null) {
    return {numExpertGroups: 1, topkGroups: 1};
  }
  assert(
    numExpertGroups != null && topkGroups != null,
    opName,
    () =>
      `numExpertGroups and topkGroups must come together, but ` +
      `${numExpertGroups == null ? 'numExpertGroups' : 'topkGroups'} is not given.`,
  );
  const groups = {numExpertGroups: numExpertGroups as number, topkGroups: topkGroups as number};
  assertPositiveInteger(groups.numExpertGroups, 'numExpertGroups', opName);
  assertPositiveInteger(groups.topkGroups, 'topkGroups', opName);
  assert(
    numExperts % groups.numExpertGroups === 0,
    opName,
    () => `numExpertGroups must divide the number of experts (E = ${numExperts}), but is ${groups.numExpertGroups}.`,
  );
  assert(
    groups.topkGroups <= groups.numExpertGroups,
    opName,
    () => `topkGroups must be at most numExpertGroups (${groups.numExpertGroups}), but is ${groups.topkGroups}.`,
  );
  const numKept = (groups.topkGroups * numExperts) / groups.numExpertGroups;
  assert(
    topk <= numKept,
    opName,
    () => `topk must be at most the number of experts in ${groups.topkGroups} groups (${numKept}), but is ${topk}.`,
  );
  return groups;
}

/** What 'sparsemixer' cannot do is an error. */
function checkSparsemixer(given: Omit<MoeTopkOptions, 'scoreCorrectionBias'>, opName: string): number {
  const jitter = given.sparsemixerJitter ?? 0.01;
  assert(
    typeof jitter === 'number' && jitter >= 0 && Number.isFinite(Math.fround(2 * jitter)),
    opName,
    () => `sparsemixerJitter must be a number of at least 0, but is ${describeValue(jitter)}.`,
  );
  const isPlain = given.renormalize !== true && given.numExpertGroups == null && given.topkGroups == null;
  assert(
    isPlain || given.scoring !== 'sparsemixer',
    opName,
    () => "scoring 'sparsemixer' must not be given with renormalize: true, numExpertGroups or topkGroups.",
  );
  return jitter;
}

/** The attributes of MoeTopK, and the scoring that is made of its softmax. */
export type MoeRouting = Omit<MoeTopKAttrs, 'scoring'> & {scoring: MoeTopkScoring; sparsemixerJitter: number};

/** The checked options of the choice of experts, with defaults: all except tensors. */
export function checkRouting(
  numExperts: number,
  topk: number,
  given: Omit<MoeTopkOptions, 'scoreCorrectionBias'>,
  opName: string,
): MoeRouting {
  assertPositiveInteger(topk, 'topk', opName);
  assert(
    topk <= numExperts,
    opName,
    () => `topk must be at most the number of experts (E = ${numExperts}), but is ${topk}.`,
  );
  const scoring = checkScoring(given.scoring, opName);
  const sparsemixerJitter = checkSparsemixer(given, opName);
  const renormalizes = topk > 1 && scoring !== 'sparsemixer';
  const renormalize = given.renormalize == null ? renormalizes : checkBoolean(given.renormalize, 'renormalize', opName);
  const groups = checkGroups(given, numExperts, topk, opName);
  const routedScalingFactor = given.routedScalingFactor ?? 1;
  assert(
    typeof routedScalingFactor === 'number' && Number.isFinite(Math.fround(routedScalingFactor)),
    opName,
    () => `routedScalingFactor must be a number that fits float32, but is ${describeValue(routedScalingFactor)}.`,
  );
  return {topk, scoring, renormalize, ...groups, sparsemixerJitter, routedScalingFactor};
}
