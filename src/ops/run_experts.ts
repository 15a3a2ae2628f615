/** The computation of fusedExperts and fusedMoe, after their arguments are converted. */
import {
  add,
  backend,
  clone,
  concat,
  engine,
  greaterEqual,
  less,
  logicalAnd,
  mul,
  onesLike,
  range,
  reshape,
  scalar,
  slice,
  type Tensor,
  type Tensor1D,
  tensor1d,
  type Tensor2D,
  tidy,
  where,
  zeros,
} from '@tensorflow/tfjs-core';
import {assertBindable} from '../contract/devices';
import {
  type MoeActivationAttrs,
  MoeExpertsDown,
  MoeExpertsUp,
  MoeFusedExperts,
  MoeGroupedMatMul,
  type MoeGroupedMatMulAttrs,
  MoePermute,
  MoeUnpermute,
  MoeUnpermuteBackpropRows,
} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {fixed, sigmoid} from '../smooth_ops';
import {assertFitsInt32} from '../arguments/checks';
import {type ExpertWeights, groupedMatMulInputs, linear} from '../contract/expert_weights';
import {float32Encoding} from '../contract/quantized_weights';
import type {Experts, FeedForward} from '../arguments/experts';

/**
 * Every WebGPU device binds a buffer of this size. Rows between two launches are larger only if one token's rows are.
 */
const MAX_ROWS_BYTES = 2 ** 27;

/** Core ops of int32 tensors are exact up to this number on GPUs. */
const MAX_EXACT_INDEX = 2 ** 24;

/** Runs the experts, in chunks of tokens if the rows would be larger than a device may bind. */
export function runExperts(
  x: Tensor2D,
  topkWeights: Tensor2D,
  topkIds: Tensor2D,
  experts: Experts,
  opName: string,
  maxRowsBytes = MAX_ROWS_BYTES,
): Tensor2D {
  const [numTokens, topk] = topkIds.shape;
  const {shared} = experts;
  assertFitsInt32(numTokens * topk, 'the number of assignments (T*K)', opName);
  // Core ops cut these tensors into chunks and join the results.
  assertBindable(backend(), opName, {hiddenStates: x.shape, topkIds: topkIds.shape});
  const chunkSizeOf = (rowsPerToken: number, {intermediateSize}: FeedForward) => {
    // A gradient computes the gates and ups before the activation again.
    const hasGateAndUp = experts.activation.gated && engine().state.gradientDepth > 0;
    const rowSize = Math.max(x.shape[1], intermediateSize * (hasGateAndUp ? 2 : 1));
    const chunkSize = Math.max(1, Math.floor(maxRowsBytes / (4 * rowsPerToken * rowSize)));
    return experts.numZeroExperts > 0 ? Math.min(chunkSize, MAX_EXACT_INDEX) : chunkSize;
  };
  const routed = inChunks([x, topkWeights, topkIds], chunkSizeOf(topk, experts), (...chunk) =>
    runRouted(...chunk, experts),
  );
  return shared == null
    ? routed
    : add(
        routed,
        inChunks([x], chunkSizeOf(1, shared), (chunk) => runShared(chunk, shared, experts)),
      );
}

function inChunks<Tokens extends [Tensor2D, ...Tensor2D[]]>(
  tokens: Tokens,
  chunkSize: number,
  run: (...chunk: Tokens) => Tensor2D,
): Tensor2D {
  const [numTokens] = tokens[0].shape;
  if (numTokens <= chunkSize) {
    return run(...tokens);
  }
  const chunks: Tensor2D[] = [];
  for (let first = 0; first < numTokens; first += chunkSize) {
    const size = Math.min(chunkSize, numTokens - first);
    const chunkOf = (tensor: Tensor2D) => slice(tensor, [first, 0], [size, tensor.shape[1]]);
    chunks.push(tidy(() => run(...(tokens.map(chunkOf) as Tokens))));
  }
  return concat(chunks, 0);
}

/**
 * The number of tokens up to which each slot reads the weights of its expert by itself. Few experts then have several
 * slots, so that a sort takes longer than it saves.
 */
const FEW_TOKENS = 2;
/** More slots of a token are summed with a compensation, by MoeUnpermute. */
const FEW_SLOTS = 64;

/** Whether one kernel runs the experts, without a sort. A gradient needs what that kernel does not keep. */
function areFew([numTokens, topk]: number[], {w1, w2, applyRouterWeightOnInput}: Experts): boolean {
  const isWhole = w1.parts.length === 1 && w2.parts.length === 1;
  const hasGradient = engine().state.gradientDepth > 0;
  return numTokens <= FEW_TOKENS && topk <= FEW_SLOTS && isWhole && !applyRouterWeightOnInput && !hasGradient;
}

function runRouted(x: Tensor2D, topkWeights: Tensor2D, topkIds: Tensor2D, experts: Experts): Tensor2D {
  const out = runLocal(x, topkWeights, topkIds, experts);
  const hasZeroExperts = experts.numZeroExperts > 0 && topkIds.shape[0] > 0;
  return hasZeroExperts ? add(out, runZeroExperts(x, topkWeights, topkIds, experts)) : out;
}

/** For the other experts the ids of zero experts are ids of no expert. Here each zero expert reads its token's row. */
function runZeroExperts(
  x: Tensor2D,
  topkWeights: Tensor2D,
  topkIds: Tensor2D,
  {numExperts, numZeroExperts}: Experts,
): Tensor2D {
  const [numTokens] = topkIds.shape;
  const integer = (value: number) => scalar(value, 'int32');
  const invPermutedIdx = fixed(() => {
    const isPastExperts = greaterEqual(topkIds, integer(numExperts));
    const isZeroExpert = logicalAnd(isPastExperts, less(topkIds, integer(numExperts + numZeroExperts)));
    return where(isZeroExpert, reshape(range(0, numTokens, 1, 'int32'), [numTokens, 1]), integer(-1));
  }) as Tensor2D;
  const expertFirstTokenOffset = tensor1d([numTokens], 'int32');
  const slots = {topkWeights, invPermutedIdx, expertFirstTokenOffset};
  return runMoeKernel(MoeUnpermute, {permutedHiddenStates: x, ...slots}, {}).out;
}

/** The experts that have weights here. */
function runLocal(x: Tensor2D, topkWeights: Tensor2D, topkIds: Tensor2D, experts: Experts): Tensor2D {
  if (areFew(topkIds.shape, experts)) {
    return runFew(x, topkWeights, topkIds, experts);
  }
  if (experts.applyRouterWeightOnInput) {
    return runWeightedRows(x, topkWeights, topkIds, experts);
  }
  return runSorted(x, topkWeights, topkIds, experts);
}

function runFew(x: Tensor2D, topkWeights: Tensor2D, topkIds: Tensor2D, experts: Experts): Tensor2D {
  const {w1, w1Bias, w2, w2Bias, expertMap, weightFormat, activation} = experts;
  const [first] = w1.parts;
  const [second] = w2.parts;
  return runMoeKernel(
    MoeFusedExperts,
    {
      x,
      topkWeights,
      topkIds,
      expertMap,
      w1: first.weights,
      w1Scales: first.scales,
      w1Offsets: first.offsets,
      w1Bias,
      w2: second.weights,
      w2Scales: second.scales,
      w2Offsets: second.offsets,
      w2Bias,
    },
    {weightFormat, w1Encoding: w1.encoding, w2Encoding: w2.encoding, ...activation},
  ).out;
}

/**
 * Reads the rows of x through the permutation. Where a gradient is wanted, x and the rows before the activation are
 * kept, and neither permuted rows nor outputs of experts.
 */
function runSorted(x: Tensor2D, topkWeights: Tensor2D, topkIds: Tensor2D, experts: Experts): Tensor2D {
  const {w1, w1Bias, w2, w2Bias, weightFormat, activation} = experts;
  const {permutedIdx, invPermutedIdx, expertFirstTokenOffset} = sortSlots(x, topkIds, experts);
  // One way from the ids to the result is enough for their gradient. Its zeros are not computed for each and added.
  const rows = {permutedIdx: withoutGradient(permutedIdx), invPermutedIdx: withoutGradient(invPermutedIdx)};
  const up = (act: MoeActivationAttrs) =>
    runMoeKernel(
      MoeExpertsUp,
      {...rows, ...groupedMatMulInputs(x, withoutGradient(expertFirstTokenOffset), w1.parts, w1Bias)},
      {weightFormat, encoding: w1.encoding, numParts: w1.parts.length, ...act},
    ).out;
  if (engine().state.gradientDepth > 0) {
    return runMoeKernel(
      MoeExpertsDown,
      {topkWeights, ...rows, ...groupedMatMulInputs(up(linear), expertFirstTokenOffset, w2.parts, w2Bias)},
      {weightFormat, encoding: w2.encoding, numParts: w2.parts.length, ...activation},
    ).out;
  }
  const permutedHiddenStates = matMul(up(activation), expertFirstTokenOffset, w2, w2Bias, {...linear, weightFormat});
  const slots = {topkWeights, invPermutedIdx, expertFirstTokenOffset};
  return runMoeKernel(MoeUnpermute, {permutedHiddenStates, ...slots}, {}).out;
}

function withoutGradient<T extends Tensor>(index: T): T {
  return engine().state.gradientDepth > 0 ? (fixed(() => clone(index)) as T) : index;
}

type Sorted = {permutedIdx: Tensor1D; invPermutedIdx: Tensor2D; expertFirstTokenOffset: Tensor1D};

/** The indices of moePermute, by rows without columns. */
function sortSlots(x: Tensor2D, topkIds: Tensor2D, {numExperts, expertMap, w1}: Experts): Sorted {
  const {expertFirstTokenOffset, invPermutedIdx, permutedIdx} = runMoeKernel(
    MoePermute,
    {hiddenStates: zeros([x.shape[0], 0]), topkIds, expertMap},
    {numExperts, numLocalExperts: w1.numExperts, alignBlockSize: 0, fillInvalidExpert: -1, padding: 'zero'},
  );
  return {permutedIdx, invPermutedIdx: reshape(invPermutedIdx, topkIds.shape), expertFirstTokenOffset};
}

/**
 * With rows that are multiplied by their weights before w1. One slot reads each row, so the gradient of moeUnpermute to
 * the rows is w[t,k] * x[t]. NaN of a slot whose expert is not local reaches neither a row nor a gradient.
 */
function runWeightedRows(x: Tensor2D, topkWeights: Tensor2D, topkIds: Tensor2D, experts: Experts): Tensor2D {
  const {permutedIdx, invPermutedIdx, expertFirstTokenOffset} = sortSlots(x, topkIds, experts);
  const {dRows: rows} = runMoeKernel(
    MoeUnpermuteBackpropRows,
    {dy: x, topkWeights, invPermutedIdx, expertFirstTokenOffset, permutedIdx},
    {numRows: permutedIdx.shape[0]},
  );
  const permutedHiddenStates = feedForward(rows, expertFirstTokenOffset, experts, experts);
  const slots = {topkWeights: onesLike(topkWeights), invPermutedIdx, expertFirstTokenOffset};
  return runMoeKernel(MoeUnpermute, {permutedHiddenStates, ...slots}, {}).out;
}

function runShared(x: Tensor2D, {gate, ...shared}: NonNullable<Experts['shared']>, experts: Experts): Tensor2D {
  const allRows = tensor1d([0, x.shape[0]], 'int32');
  const out = feedForward(x, allRows, shared, experts);
  if (gate == null) {
    return out;
  }
  // The gradient of tfjs's matMul is not 0 on every backend if there are no tokens.
  const {out: openness} = runMoeKernel(
    MoeGroupedMatMul,
    {x, expertFirstTokenOffset: allRows, weights0: reshape(gate, [1, 1, gate.shape[0]])},
    {...linear, weightFormat: 'outIn', encoding: float32Encoding, numParts: 1},
  );
  return mul(out, sigmoid(openness));
}

function feedForward(
  x: Tensor2D,
  expertFirstTokenOffset: Tensor1D,
  {w1, w2, w1Bias, w2Bias}: FeedForward,
  {weightFormat, activation}: Pick<Experts, 'weightFormat' | 'activation'>,
): Tensor2D {
  const intermediate = matMul(x, expertFirstTokenOffset, w1, w1Bias, {...activation, weightFormat});
  return matMul(intermediate, expertFirstTokenOffset, w2, w2Bias, {...linear, weightFormat});
}

function matMul(
  rows: Tensor2D,
  expertFirstTokenOffset: Tensor1D,
  {parts, encoding}: ExpertWeights,
  bias: Tensor2D | undefined,
  attrs: Omit<MoeGroupedMatMulAttrs, 'encoding' | 'numParts'>,
): Tensor2D {
  const inputs = groupedMatMulInputs(rows, expertFirstTokenOffset, parts, bias);
  return runMoeKernel(MoeGroupedMatMul, inputs, {...attrs, encoding, numParts: parts.length}).out;
}
