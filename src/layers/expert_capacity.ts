import {
  add,
  cast,
  clipByValue,
  customGrad,
  fill,
  floor,
  gather,
  greater,
  greaterEqual,
  less,
  log,
  maximum,
  mul,
  range,
  type Rank,
  reshape,
  scalar,
  sub,
  type Tensor,
  type Tensor1D,
  tensor1d,
  type Tensor2D,
  where,
  zeros,
  zerosLike,
} from '@tensorflow/tfjs-core';
import {moePermute} from '../ops/moe_permute';
import type {MoeDropPolicy} from './mixture_of_experts_options';

/** How many tokens an expert takes of `numTokens`, masked ones among them: their number is known on the device only. */
export function expertCapacity(numTokens: number, topk: number, numExperts: number, capacityFactor: number): number {
  const share = (capacityFactor * (numTokens * topk)) / numExperts;
  // 1.1 * 100 / 10 is a little more than 11 in doubles.
  return Math.ceil(share * (1 - 4 * Number.EPSILON));
}

/**
 * topkIds with -1 in place of the assignments that are past their expert's capacity. Those with the largest weights
 * stay, or with 'position' those of the first tokens; of equal weights, those of the first tokens.
 */
export function dropOverCapacity(
  topkIds: Tensor2D,
  topkWeights: Tensor2D,
  numExperts: number,
  capacity: number,
  dropPolicy: MoeDropPolicy,
): Tensor2D {
  if (capacity >= topkIds.shape[0]) {
    // A token chooses an expert once at most.
    return topkIds;
  }
  // Which stay is held fixed for gradients, as the choice itself is; comparisons have none.
  const drop = customGrad((...args) => {
    const [ids, weights] = args as Tensor2D[];
    const digits = dropPolicy === 'position' ? [] : descendingDigits(reshape(weights, [weights.size]));
    const isPast = greaterEqual(rankInExpert(ids, digits, numExperts), scalar(capacity, 'int32'));
    return {
      value: where(isPast, fill<Rank.R2>(ids.shape, -1, 'int32'), ids),
      gradFunc: () => [zeros(ids.shape), zeros(weights.shape)],
    };
  });
  return drop(topkIds, topkWeights) as Tensor2D;
}

/** Integers from 0 to `base` - 1, in float32 [N], one for each assignment. */
type Digit = {values: Tensor1D; base: number};

/**
 * int32 [T, K]: how many assignments of its expert come before an assignment, by `digits`, the last of which counts
 * most, then by position. Any number where there is no expert.
 */
function rankInExpert(ids: Tensor2D, digits: Digit[], numExperts: number): Tensor2D {
  // A radix sort: moePermute sorts by one digit, and keeps the order of those that are alike.
  const sort = (values: Tensor, base: number) =>
    moePermute(zeros([ids.size, 1]), reshape<Rank.R2>(cast(values, 'int32'), [ids.size, 1]), base);
  let order: Tensor1D = range(0, ids.size, 1, 'int32');
  let place: Tensor = order;
  for (const {values, base} of digits) {
    const {permutedIdx, invPermutedIdx} = sort(gather(values, order), base);
    order = gather(order, permutedIdx);
    place = gather(reshape(invPermutedIdx, [ids.size]), place);
  }
  const flatIds: Tensor1D = reshape(ids, [ids.size]);
  const {invPermutedIdx, expertFirstTokenOffset} = sort(gather(flatIds, order), numExperts);
  const row = gather(reshape(invPermutedIdx, [ids.size]), place);
  const expert = maximum(flatIds, scalar(0, 'int32'));
  return reshape(sub(row, gather(expertFirstTokenOffset, expert)), ids.shape);
}

const MAX_EXPONENT = 126;
const DIGIT_BASE = 256;
const NUM_FRACTION_DIGITS = 3;

/**
 * The digits by which float32 values of at least 0 are in descending order: three of the fraction's 23 bits, last
 * first, then the exponent. Values up to 2^-126 are alike, as are those from 2^126 on; NaN is like 0.
 */
function descendingDigits(weights: Tensor): Digit[] {
  const numExponents = 2 * MAX_EXPONENT + 1;
  const powers = tensor1d(Array.from({length: numExponents}, (_, i) => 2 ** (MAX_EXPONENT - i)));
  const numbers = where(greater(weights, 0), weights, zerosLike(weights));
  const values = clipByValue(numbers, 2 ** -MAX_EXPONENT, 2 ** MAX_EXPONENT);
  // A device's logarithm may be off by one exponent near a power of 2; what is left of the value then tells.
  const roughExponent = clipByValue(floor(mul(log(values), Math.LOG2E)), -MAX_EXPONENT, MAX_EXPONENT);
  const fractionAt = (exponent: Tensor) => mul(values, gather(powers, cast(add(exponent, MAX_EXPONENT), 'int32')));
  const roughFraction = fractionAt(roughExponent);
  const isOver = cast(greaterEqual(roughFraction, 2), 'float32');
  const isUnder = cast(less(roughFraction, 1), 'float32');
  const exponent = sub(add(roughExponent, isOver), isUnder);

  const digits: Digit[] = [{values: sub(MAX_EXPONENT, exponent), base: numExponents}];
  let rest = sub(fractionAt(exponent), 1);
  for (let i = 0; i < NUM_FRACTION_DIGITS; i++) {
    const scaled = mul(rest, DIGIT_BASE);
    const digit = floor(scaled);
    digits.unshift({values: sub(DIGIT_BASE - 1, digit), base: DIGIT_BASE});
    rest = sub(scaled, digit);
  }
  return digits;
}
