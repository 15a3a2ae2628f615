/**
 * Every error that the ops promise: the whole sentence, before any work, with nothing leaked. No kernel runs, so cpu
 * has all cases; one case of each op shows that other backends have the same errors.
 */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';

const x = () => tf.zeros<tf.Rank.R2>([3, 2]);
const ids = () => tf.zeros<tf.Rank.R2>([3, 2], 'int32');
const disposed = () => {
  const tensor = ids();
  tensor.dispose();
  return tensor;
};
const disposedVariable = () => {
  const variable = tf.variable(tf.zeros([6, 2]));
  variable.dispose();
  return variable;
};
/** A value that only callers without types can pass. */
const untyped = (value: unknown) => value as never;

type ErrorCase = [what: string, call: () => unknown, message: string];

const permuteErrors: ErrorCase[] = [
  ['hiddenStates null', () => tf.moePermute(untyped(null), ids(), 4), "Argument 'hiddenStates' passed to 'moePermute' must be a Tensor or TensorLike, but got 'null'"],
  ['hiddenStates an object', () => tf.moePermute(untyped({}), ids(), 4), "Argument 'hiddenStates' passed to 'moePermute' must be a Tensor or TensorLike, but got 'Object'"],
  ['hiddenStates bool', () => tf.moePermute(tf.zeros([3, 2], 'bool'), ids(), 4), "Argument 'hiddenStates' passed to 'moePermute' must be float32 or int32 tensor, but got bool tensor"],
  ['hiddenStates strings', () => tf.moePermute(untyped([['a']]), ids(), 4), "Argument 'hiddenStates' passed to 'moePermute' must be float32 or int32 tensor, but got string tensor"],
  ['hiddenStates with a string inside', () => tf.moePermute(untyped([[1, 'a']]), [[0]], 4), "Error in moePermute: hiddenStates must hold numbers, but has the string 'a'."],
  ['hiddenStates rank 3', () => tf.moePermute(tf.zeros([1, 3, 2]), ids(), 4), 'Error in moePermute: hiddenStates must be rank 2 [T, H], but got rank 3 [1,3,2]. Reshape it to [-1, H] first.'],
  ['hiddenStates no columns', () => tf.moePermute(tf.zeros([3, 0]), ids(), 4), 'Error in moePermute: hiddenStates must have at least 1 column (H), but has 0.'],
  ['hiddenStates disposed', () => tf.moePermute(disposed(), ids(), 4), 'Error in moePermute: hiddenStates is disposed.'],
  ['hiddenStates ragged', () => tf.moePermute([[1, 2], [3]], ids(), 4), 'Error in moePermute: hiddenStates must be rectangular, but has rows of 2 and of 1 elements.'],
  ['hiddenStates ragged in depth', () => tf.moePermute(untyped([[1, 2], 3]), ids(), 4), 'Error in moePermute: hiddenStates must be rectangular, but has 3 in place of a row.'],
  ['topkIds null', () => tf.moePermute(x(), untyped(undefined), 4), "Argument 'topkIds' passed to 'moePermute' must be a Tensor or TensorLike, but got 'null'"],
  ['topkIds float32', () => tf.moePermute(x(), tf.zeros([3, 2]), 4), "Argument 'topkIds' passed to 'moePermute' must be int32 tensor, but got float32 tensor"],
  ['topkIds a Float32Array', () => tf.moePermute(x(), untyped(new Float32Array(3)), 4), "Argument 'topkIds' passed to 'moePermute' must be int32 tensor, but got float32 tensor"],
  ['topkIds booleans', () => tf.moePermute(x(), untyped([[true], [false], [true]]), 4), "Argument 'topkIds' passed to 'moePermute' must be int32 tensor, but got bool tensor"],
  ['topkIds with a boolean inside', () => tf.moePermute(x(), untyped([[0, 1], [0, true], [0, 1]]), 4), 'Error in moePermute: topkIds must hold integers that fit int32, but has true.'],
  ['topkIds not integers', () => tf.moePermute(x(), [[0, 1.7], [0, 1], [0, 1]], 4), 'Error in moePermute: topkIds must hold integers that fit int32, but has 1.7.'],
  ['topkIds past int32', () => tf.moePermute(x(), [[2 ** 31], [0], [0]], 4), 'Error in moePermute: topkIds must hold integers that fit int32, but has 2147483648.'],
  ['topkIds disposed', () => tf.moePermute(x(), disposed(), 4), 'Error in moePermute: topkIds is disposed.'],
  ['topkIds rank 1', () => tf.moePermute(x(), [0, 1, 2], 4), 'Error in moePermute: topkIds must be rank 2 [T, K], but got rank 1 [3]. Reshape it to [-1, K] first.'],
  ['topkIds no columns', () => tf.moePermute(x(), tf.zeros([3, 0], 'int32'), 4), 'Error in moePermute: topkIds must have at least 1 column (K), but has 0.'],
  ['topkIds rows', () => tf.moePermute(tf.zeros([8, 2]), tf.zeros([6, 2], 'int32'), 4), 'Error in moePermute: topkIds must have as many rows as hiddenStates (T = 8), but has 6.'],
  ['numExperts 0', () => tf.moePermute(x(), ids(), 0), 'Error in moePermute: numExperts must be a positive integer, but is 0.'],
  ['numExperts 2.5', () => tf.moePermute(x(), ids(), 2.5), 'Error in moePermute: numExperts must be a positive integer, but is 2.5.'],
  ['numExperts absent', () => tf.moePermute(x(), ids(), untyped(undefined)), 'Error in moePermute: numExperts must be a positive integer, but is undefined.'],
  ['numExperts past a million', () => tf.moePermute(x(), ids(), 2 ** 31 - 1), 'Error in moePermute: numExperts must be at most 1048576, but is 2147483647.'],
  ['an unknown option', () => tf.moePermute(x(), ids(), 4, untyped({alignBlocksize: 4})), "Error in moePermute: unknown option 'alignBlocksize'. The options are a1qScale, numLocalExperts, expertMap, alignBlockSize, fillInvalidExpert, out."],
  ['options a number', () => tf.moePermute(x(), ids(), 4, untyped(16)), 'Error in moePermute: options must be an object with any of a1qScale, numLocalExperts, expertMap, alignBlockSize, fillInvalidExpert, out, but is 16.'],
  ['expertMap length', () => tf.moePermute(x(), ids(), 4, {expertMap: [0, 1, 2]}), 'Error in moePermute: expertMap must have an entry for each expert (numExperts = 4), but has 3.'],
  ['expertMap rank', () => tf.moePermute(x(), ids(), 4, {expertMap: [[0, 1, 2, 3]]}), 'Error in moePermute: expertMap must be rank 1 [E], but got rank 2 [1,4].'],
  ['expertMap float32', () => tf.moePermute(x(), ids(), 4, {expertMap: tf.zeros([4])}), "Argument 'expertMap' passed to 'moePermute' must be int32 tensor, but got float32 tensor"],
  ['numLocalExperts without a map', () => tf.moePermute(x(), ids(), 4, {numLocalExperts: 2}), 'Error in moePermute: numLocalExperts must be numExperts (4) when there is no expertMap, but is 2.'],
  ['numLocalExperts past E', () => tf.moePermute(x(), ids(), 2, {numLocalExperts: 3, expertMap: [0, 1]}), 'Error in moePermute: numLocalExperts must be at most numExperts (2), but is 3.'],
  ['numLocalExperts 0', () => tf.moePermute(x(), ids(), 2, {numLocalExperts: 0, expertMap: [0, 1]}), 'Error in moePermute: numLocalExperts must be a positive integer, but is 0.'],
  ['alignBlockSize 0', () => tf.moePermute(x(), ids(), 4, {alignBlockSize: 0}), 'Error in moePermute: alignBlockSize must be a positive integer, but is 0.'],
  ['fillInvalidExpert 0.5', () => tf.moePermute(x(), ids(), 4, {fillInvalidExpert: 0.5}), 'Error in moePermute: fillInvalidExpert must be an integer that fits int32, but is 0.5.'],
  ['too many rows', () => tf.moePermute(x(), ids(), 4, {alignBlockSize: 2 ** 29}), 'Error in moePermute: the number of permuted rows must be at most 2147483647, but is 2684354560.'],
  ['a1qScale rows', () => tf.moePermute(x(), ids(), 4, {a1qScale: tf.zeros([2, 1])}), 'Error in moePermute: a1qScale must have as many rows as hiddenStates (T = 3), or 1, but has 2.'],
  ['a1qScale empty', () => tf.moePermute(x(), ids(), 4, {a1qScale: tf.zeros([3, 0])}), 'Error in moePermute: a1qScale must not be empty, but is [3,0].'],
  ['a1qScale bool', () => tf.moePermute(x(), ids(), 4, {a1qScale: tf.zeros([3, 1], 'bool')}), "Argument 'a1qScale' passed to 'moePermute' must be float32 or int32 tensor, but got bool tensor"],
  ['out shape', () => tf.moePermute(x(), ids(), 4, {out: tf.variable(tf.zeros([3, 2]))}), 'Error in moePermute: out must be float32 [6,2] like the result, but is float32 [3,2].'],
  ['out dtype', () => tf.moePermute(x(), ids(), 4, {out: tf.variable(tf.zeros([6, 2], 'int32'))}), 'Error in moePermute: out must be float32 [6,2] like the result, but is int32 [6,2].'],
  ['out no variable', () => tf.moePermute(x(), ids(), 4, {out: untyped(tf.zeros([6, 2]))}), 'Error in moePermute: out must be a tf.Variable, but is a float32 tensor [6,2].'],
  ['out disposed', () => tf.moePermute(x(), ids(), 4, {out: disposedVariable()}), 'Error in moePermute: out is disposed.'],
];

const alignErrors: ErrorCase[] = [
  ['topkIds rank 1', () => tf.moeAlignBlockSize([0, 1], 4, 4), 'Error in moeAlignBlockSize: topkIds must be rank 2 [T, K], but got rank 1 [2]. Reshape it to [-1, K] first.'],
  ['topkIds float32', () => tf.moeAlignBlockSize(tf.zeros([3, 2]), 4, 4), "Argument 'topkIds' passed to 'moeAlignBlockSize' must be int32 tensor, but got float32 tensor"],
  ['blockSize 0', () => tf.moeAlignBlockSize(ids(), 0, 4), 'Error in moeAlignBlockSize: blockSize must be a positive integer, but is 0.'],
  ['numExperts -1', () => tf.moeAlignBlockSize(ids(), 4, -1), 'Error in moeAlignBlockSize: numExperts must be a positive integer, but is -1.'],
  ['numExperts past a million', () => tf.moeAlignBlockSize(ids(), 4, 1e9), 'Error in moeAlignBlockSize: numExperts must be at most 1048576, but is 1000000000.'],
  ['expertMap length', () => tf.moeAlignBlockSize(ids(), 4, 4, {expertMap: [1]}), 'Error in moeAlignBlockSize: expertMap must have an entry for each expert (numExperts = 4), but has 1.'],
  ['padSortedIds a number', () => tf.moeAlignBlockSize(ids(), 4, 4, {padSortedIds: untyped(1)}), 'Error in moeAlignBlockSize: padSortedIds must be a boolean, but is 1.'],
  ['ignoreInvalidExperts a string', () => tf.moeAlignBlockSize(ids(), 4, 4, {ignoreInvalidExperts: untyped('no')}), "Error in moeAlignBlockSize: ignoreInvalidExperts must be a boolean, but is the string 'no'."],
  ['an unknown option', () => tf.moeAlignBlockSize(ids(), 4, 4, untyped({pad: true})), "Error in moeAlignBlockSize: unknown option 'pad'. The options are expertMap, padSortedIds, ignoreInvalidExperts."],
  ['too many ids', () => tf.moeAlignBlockSize(ids(), 2 ** 29, 4), 'Error in moeAlignBlockSize: the length of sortedTokenIds must be at most 2147483647, but is 2147483650.'],
];

const blockAlignedErrors: ErrorCase[] = [
  ['hiddenStates rank 1', () => tf.moePermuteBlockAligned([1, 2], ids(), 4, 4), 'Error in moePermuteBlockAligned: hiddenStates must be rank 2 [T, H], but got rank 1 [2]. Reshape it to [-1, H] first.'],
  ['topkIds rows', () => tf.moePermuteBlockAligned(x(), [[0]], 4, 4), 'Error in moePermuteBlockAligned: topkIds must have as many rows as hiddenStates (T = 3), but has 1.'],
  ['numExperts past a million', () => tf.moePermuteBlockAligned(x(), ids(), 2 ** 20 + 1, 4), 'Error in moePermuteBlockAligned: numExperts must be at most 1048576, but is 1048577.'],
  ['blockSize absent', () => tf.moePermuteBlockAligned(x(), ids(), 4, untyped(null)), 'Error in moePermuteBlockAligned: blockSize must be a positive integer, but is null.'],
  ['an unknown option', () => tf.moePermuteBlockAligned(x(), ids(), 4, 4, untyped({out: 1})), "Error in moePermuteBlockAligned: unknown option 'out'. The options are a1qScale, expertMap."],
  ['too many rows', () => tf.moePermuteBlockAligned(x(), ids(), 4, 2 ** 29), 'Error in moePermuteBlockAligned: the number of permuted rows must be at most 2147483647, but is 2684354560.'],
];

const weights = () => tf.zeros<tf.Rank.R2>([3, 2]);
const inverse = () => tf.zeros<tf.Rank.R1>([6], 'int32');
const rows = () => tf.zeros<tf.Rank.R2>([6, 5]);

const unpermuteErrors: ErrorCase[] = [
  ['rows int32', () => tf.moeUnpermute(tf.zeros([6, 5], 'int32'), weights(), inverse()), "Argument 'permutedHiddenStates' passed to 'moeUnpermute' must be float32 tensor, but got int32 tensor"],
  ['rows rank 3', () => tf.moeUnpermute(tf.zeros([3, 2, 5]), weights(), inverse()), 'Error in moeUnpermute: permutedHiddenStates must be rank 2 [R, H], but got rank 3 [3,2,5]. Reshape it to [-1, H] first.'],
  ['rows no columns', () => tf.moeUnpermute(tf.zeros([6, 0]), weights(), inverse()), 'Error in moeUnpermute: permutedHiddenStates must have at least 1 column (H), but has 0.'],
  ['weights rank 1', () => tf.moeUnpermute(rows(), tf.zeros([6]), inverse()), 'Error in moeUnpermute: topkWeights must be rank 2 [T, K], but got rank 1 [6]. Reshape it to [-1, K] first.'],
  ['weights int32', () => tf.moeUnpermute(rows(), ids(), inverse()), "Argument 'topkWeights' passed to 'moeUnpermute' must be float32 tensor, but got int32 tensor"],
  ['weights no columns', () => tf.moeUnpermute(rows(), tf.zeros([3, 0]), inverse()), 'Error in moeUnpermute: topkWeights must have at least 1 column (K), but has 0.'],
  ['inverse length', () => tf.moeUnpermute(rows(), weights(), [0, 1]), 'Error in moeUnpermute: invPermutedIdx must be [6] or [3,2] for topkWeights [3,2], but is [2].'],
  ['inverse transposed', () => tf.moeUnpermute(rows(), weights(), tf.zeros([2, 3], 'int32')), 'Error in moeUnpermute: invPermutedIdx must be [6] or [3,2] for topkWeights [3,2], but is [2,3].'],
  ['inverse float32', () => tf.moeUnpermute(rows(), weights(), tf.zeros([6])), "Argument 'invPermutedIdx' passed to 'moeUnpermute' must be int32 tensor, but got float32 tensor"],
  ['offset rank 2', () => tf.moeUnpermute(rows(), weights(), inverse(), [[6]]), 'Error in moeUnpermute: expertFirstTokenOffset must be rank 1 [L+1], but got rank 2 [1,1].'],
  ['offset empty', () => tf.moeUnpermute(rows(), weights(), inverse(), []), 'Error in moeUnpermute: expertFirstTokenOffset must have at least 1 value, but is empty.'],
  ['offset float', () => tf.moeUnpermute(rows(), weights(), inverse(), [0.5]), 'Error in moeUnpermute: expertFirstTokenOffset must hold integers that fit int32, but has 0.5.'],
  ['out shape', () => tf.moeUnpermute(rows(), weights(), inverse(), null, {out: tf.variable(tf.zeros([6, 5]))}), 'Error in moeUnpermute: out must be float32 [3,5] like the result, but is float32 [6,5].'],
  ['an unknown option', () => tf.moeUnpermute(rows(), weights(), inverse(), null, untyped({weights: 1})), "Error in moeUnpermute: unknown option 'weights'. The options are expertFirstTokenOffset, out."],
  ['offset twice', () => tf.moeUnpermute(rows(), weights(), inverse(), [6], {expertFirstTokenOffset: [6]}), 'Error in moeUnpermute: expertFirstTokenOffset must be given once, but is both an argument and among the options.'],
  ['options twice', () => tf.moeUnpermute(rows(), weights(), inverse(), {}, {}), 'Error in moeUnpermute: options must be given once, but are both the last argument and in the place of expertFirstTokenOffset.'],
  ['an unknown option in place of the offset', () => tf.moeUnpermute(rows(), weights(), inverse(), untyped({offset: [6]})), "Error in moeUnpermute: unknown option 'offset'. The options are expertFirstTokenOffset, out."],
  ['an object in place of the offset', () => tf.moeUnpermute(rows(), weights(), inverse(), untyped(new Map())), "Argument 'expertFirstTokenOffset' passed to 'moeUnpermute' must be a Tensor or TensorLike, but got 'Map'"],
];

const reduceErrors: ErrorCase[] = [
  ['inverse twice', () => tf.moeUnpermuteAndReduce(rows(), weights(), inverse(), {invPermutedIdx: inverse()}), 'Error in moeUnpermuteAndReduce: invPermutedIdx must be given once, but is both an argument and among the options.'],
  ['rows without an inverse', () => tf.moeUnpermuteAndReduce(tf.zeros([5, 4]), weights()), 'Error in moeUnpermuteAndReduce: permutedHiddenStates must be [6, H] or [3, 2, H] without invPermutedIdx, but is [5,4].'],
  ['rows with an inverse', () => tf.moeUnpermuteAndReduce(tf.zeros([3, 2, 4]), weights(), inverse()), 'Error in moeUnpermuteAndReduce: permutedHiddenStates must be rank 2 [S, H] with invPermutedIdx, but got rank 3 [3,2,4]. Reshape it to [-1, H] first.'],
  ['rows no columns', () => tf.moeUnpermuteAndReduce(tf.zeros([6, 0]), weights()), 'Error in moeUnpermuteAndReduce: permutedHiddenStates must have at least 1 column (H), but has 0.'],
  ['inverse length', () => tf.moeUnpermuteAndReduce(rows(), weights(), [0]), 'Error in moeUnpermuteAndReduce: invPermutedIdx must be [6] or [3,2] for topkWeights [3,2], but is [1].'],
  ['applyRouterWeightOnInput a number', () => tf.moeUnpermuteAndReduce(rows(), weights(), null, {applyRouterWeightOnInput: untyped(0)}), 'Error in moeUnpermuteAndReduce: applyRouterWeightOnInput must be a boolean, but is 0.'],
  ['an unknown option', () => tf.moeUnpermuteAndReduce(rows(), weights(), null, untyped({k: 1})), "Error in moeUnpermuteAndReduce: unknown option 'k'. The options are invPermutedIdx, applyRouterWeightOnInput, out."],
];

const sumErrors: ErrorCase[] = [
  ['x rank 2', () => tf.moeSum(untyped(rows())), 'Error in moeSum: x must be rank 3 [T, K, H], but got rank 2 [6,5]. Reshape it to [-1, K, H] first.'],
  ['x int32', () => tf.moeSum(tf.zeros([1, 2, 3], 'int32')), "Argument 'x' passed to 'moeSum' must be float32 tensor, but got int32 tensor"],
  ['x without slots', () => tf.moeSum(tf.zeros([1, 0, 3])), 'Error in moeSum: x must have K >= 1 and H >= 1, but is [1,0,3].'],
  ['out shape', () => tf.moeSum(tf.zeros([1, 2, 3]), {out: tf.variable(tf.zeros([1, 2]))}), 'Error in moeSum: out must be float32 [1,3] like the result, but is float32 [1,2].'],
];

const logits = () => tf.zeros<tf.Rank.R2>([3, 8]);

const topkErrors: ErrorCase[] = [
  ['logits null', () => tf.moeTopk(untyped(null), 2), "Argument 'routerLogits' passed to 'moeTopk' must be a Tensor or TensorLike, but got 'null'"],
  ['logits int32', () => tf.moeTopk(tf.zeros([3, 8], 'int32'), 2), "Argument 'routerLogits' passed to 'moeTopk' must be float32 tensor, but got int32 tensor"],
  ['logits rank 1', () => tf.moeTopk(tf.zeros<tf.Rank.R1>([8]), 2), 'Error in moeTopk: routerLogits must be rank 2 [T, E] or more, but got rank 1 [8]. Reshape it to [-1, E].'],
  ['logits rank 0', () => tf.moeTopk(5, 2), 'Error in moeTopk: routerLogits must be rank 2 [T, E] or more, but got rank 0 []. Reshape it to [-1, E].'],
  ['logits no columns', () => tf.moeTopk(tf.zeros([3, 0]), 1), 'Error in moeTopk: routerLogits must have at least 1 column (E), but has 0.'],
  ['topk 0', () => tf.moeTopk(logits(), 0), 'Error in moeTopk: topk must be a positive integer, but is 0.'],
  ['topk 1.5', () => tf.moeTopk(logits(), 1.5), 'Error in moeTopk: topk must be a positive integer, but is 1.5.'],
  ['topk absent', () => tf.moeTopk(logits(), untyped(undefined)), 'Error in moeTopk: topk must be a positive integer, but is undefined.'],
  ['topk past E', () => tf.moeTopk(logits(), 9), 'Error in moeTopk: topk must be at most the number of experts (E = 8), but is 9.'],
  ['an unknown option', () => tf.moeTopk(logits(), 2, untyped({normalize: true})), "Error in moeTopk: unknown option 'normalize'. The options are scoring, renormalize, scoreCorrectionBias, numExpertGroups, topkGroups, sparsemixerJitter, routedScalingFactor."],
  ['an unknown scoring', () => tf.moeTopk(logits(), 2, {scoring: untyped('softMax')}), "Error in moeTopk: scoring must be one of softmax, softmaxAfterTopk, sigmoid, sqrtSoftplus, sparsemixer, but is 'softMax'."],
  ['renormalize a number', () => tf.moeTopk(logits(), 2, {renormalize: untyped(1)}), 'Error in moeTopk: renormalize must be a boolean, but is 1.'],
  ['bias length', () => tf.moeTopk(logits(), 2, {scoreCorrectionBias: [1, 2]}), 'Error in moeTopk: scoreCorrectionBias must have an entry for each expert (E = 8), but has 2.'],
  ['bias rank', () => tf.moeTopk(logits(), 2, {scoreCorrectionBias: tf.zeros([1, 8])}), 'Error in moeTopk: scoreCorrectionBias must be rank 1 [E], but got rank 2 [1,8].'],
  ['bias int32', () => tf.moeTopk(logits(), 2, {scoreCorrectionBias: tf.zeros([8], 'int32')}), "Argument 'scoreCorrectionBias' passed to 'moeTopk' must be float32 tensor, but got int32 tensor"],
  ['bias with softmaxAfterTopk', () => tf.moeTopk(logits(), 2, {scoring: 'softmaxAfterTopk', scoreCorrectionBias: tf.zeros([8])}), "Error in moeTopk: scoreCorrectionBias must not be given with scoring 'softmaxAfterTopk', which has no scores before the choice of experts."],
  ['groups without topkGroups', () => tf.moeTopk(logits(), 2, {numExpertGroups: 4}), 'Error in moeTopk: numExpertGroups and topkGroups must come together, but topkGroups is not given.'],
  ['topkGroups alone', () => tf.moeTopk(logits(), 2, {topkGroups: 4}), 'Error in moeTopk: numExpertGroups and topkGroups must come together, but numExpertGroups is not given.'],
  ['groups 0', () => tf.moeTopk(logits(), 2, {numExpertGroups: 0, topkGroups: 1}), 'Error in moeTopk: numExpertGroups must be a positive integer, but is 0.'],
  ['groups that do not divide', () => tf.moeTopk(logits(), 2, {numExpertGroups: 3, topkGroups: 1}), 'Error in moeTopk: numExpertGroups must divide the number of experts (E = 8), but is 3.'],
  ['topkGroups 0.5', () => tf.moeTopk(logits(), 2, {numExpertGroups: 4, topkGroups: 0.5}), 'Error in moeTopk: topkGroups must be a positive integer, but is 0.5.'],
  ['more groups than there are', () => tf.moeTopk(logits(), 2, {numExpertGroups: 4, topkGroups: 5}), 'Error in moeTopk: topkGroups must be at most numExpertGroups (4), but is 5.'],
  ['topk past the groups', () => tf.moeTopk(logits(), 5, {numExpertGroups: 4, topkGroups: 2}), 'Error in moeTopk: topk must be at most the number of experts in 2 groups (4), but is 5.'],
  ['routedScalingFactor NaN', () => tf.moeTopk(logits(), 2, {routedScalingFactor: NaN}), 'Error in moeTopk: routedScalingFactor must be a number that fits float32, but is NaN.'],
  ['routedScalingFactor past float32', () => tf.moeTopk(logits(), 2, {routedScalingFactor: 1e39}), 'Error in moeTopk: routedScalingFactor must be a number that fits float32, but is 1e+39.'],
];

const lossErrors: ErrorCase[] = [
  ['logits rank 1', () => tf.moeRouterZLoss(tf.zeros([3])), 'Error in moeRouterZLoss: routerLogits must be rank 2 [T, E] or more, but got rank 1 [3]. Reshape it to [-1, E].'],
  ['mask length', () => tf.moeRouterZLoss(logits(), {mask: [1, 0]}), 'Error in moeRouterZLoss: mask must be [3], an entry for each token of routerLogits [3,8], but is [2].'],
  ['mask rank', () => tf.moeRouterZLoss(logits(), {mask: tf.ones([3, 1])}), 'Error in moeRouterZLoss: mask must be [3], an entry for each token of routerLogits [3,8], but is [3,1].'],
  ['mask of strings', () => tf.moeRouterZLoss(logits(), {mask: ['a', 'b', 'c']}), "Argument 'mask' passed to 'moeRouterZLoss' must be int32 or float32 or bool tensor, but got string tensor"],
  ['mask with a number inside', () => tf.moeRouterZLoss(logits(), {mask: untyped([true, 1, false])}), 'Error in moeRouterZLoss: mask must hold booleans, but has 1.'],
  ['an unknown option', () => tf.moeRouterZLoss(logits(), untyped({weight: 1})), "Error in moeRouterZLoss: unknown option 'weight'. The options are mask."],
  ['balance: logits int32', () => tf.moeLoadBalancingLoss(tf.zeros([3, 8], 'int32'), ids()), "Argument 'routerLogits' passed to 'moeLoadBalancingLoss' must be float32 tensor, but got int32 tensor"],
  ['balance: ids float32', () => tf.moeLoadBalancingLoss(logits(), tf.zeros([3, 2])), "Argument 'topkIds' passed to 'moeLoadBalancingLoss' must be int32 tensor, but got float32 tensor"],
  ['balance: ids rows', () => tf.moeLoadBalancingLoss(logits(), [[0]]), 'Error in moeLoadBalancingLoss: topkIds must have the shape of routerLogits [3,8] except for the last axis, but is [1,1].'],
  ['balance: topk in place of ids', () => tf.moeLoadBalancingLoss(logits(), untyped(2)), 'Error in moeLoadBalancingLoss: topkIds must be int32 [3,K], but is a number. Pass the topkIds of moeTopk, not its topk.'],
  ['balance: ids of another rank', () => tf.moeLoadBalancingLoss(tf.zeros([1, 3, 8]), ids()), 'Error in moeLoadBalancingLoss: topkIds must have the shape of routerLogits [1,3,8] except for the last axis, but is [3,2].'],
  ['balance: ids without columns', () => tf.moeLoadBalancingLoss(logits(), tf.zeros([3, 0], 'int32')), 'Error in moeLoadBalancingLoss: topkIds must have at least 1 column (K), but has 0.'],
  ['balance: an unknown scope', () => tf.moeLoadBalancingLoss(logits(), ids(), {per: untyped('token')}), "Error in moeLoadBalancingLoss: per must be 'batch' or 'sequence', but is 'token'."],
  ['balance: sequences flattened', () => tf.moeLoadBalancingLoss(logits(), ids(), {per: 'sequence'}), "Error in moeLoadBalancingLoss: routerLogits must be rank 3 [B, S, E] with per 'sequence', but got rank 2 [3,8]. Reshape it to a batch of sequences first."],
  ['balance: too many experts of sequences', () => tf.moeLoadBalancingLoss(tf.zeros([32, 0, 2 ** 20]), tf.zeros([32, 0, 1], 'int32'), {per: 'sequence'}), "Error in moeLoadBalancingLoss: the number of sequences times the number of experts (B*E) must be at most 16777216 with per 'sequence', but is 33554432."],
  ['balance: counts of other experts', () => tf.moeLoadBalancingLoss(logits(), ids(), {expertCounts: [1, 2]}), 'Error in moeLoadBalancingLoss: expertCounts must have an entry for each expert (E = 8), but has 2.'],
  ['balance: counts of rank 2', () => tf.moeLoadBalancingLoss(logits(), ids(), {expertCounts: tf.ones([1, 8])}), 'Error in moeLoadBalancingLoss: expertCounts must be rank 1 [E], but got rank 2 [1,8].'],
  ['balance: counts with sequences', () => tf.moeLoadBalancingLoss(tf.zeros([1, 3, 8]), tf.zeros([1, 3, 2], 'int32'), {per: 'sequence', expertCounts: tf.ones([8])}), "Error in moeLoadBalancingLoss: expertCounts must not be given with per 'sequence', because each sequence has counts of its own."],
  ['auxiliary: y int32', () => tf.moeAddAuxiliaryLoss(tf.zeros([3], 'int32'), 1), "Argument 'y' passed to 'moeAddAuxiliaryLoss' must be float32 tensor, but got int32 tensor"],
  ['auxiliary: loss int32', () => tf.moeAddAuxiliaryLoss([1], tf.scalar(1, 'int32')), "Argument 'loss' passed to 'moeAddAuxiliaryLoss' must be float32 tensor, but got int32 tensor"],
  ['auxiliary: no scalar', () => tf.moeAddAuxiliaryLoss([1], tf.ones([1])), 'Error in moeAddAuxiliaryLoss: loss must be a scalar, but got rank 1 [1]. Sum it, or take its mean, first.'],
  ['auxiliary: no loss', () => tf.moeAddAuxiliaryLoss([1], untyped(null)), "Argument 'loss' passed to 'moeAddAuxiliaryLoss' must be a Tensor or TensorLike, but got 'null'"],
  ['balance: an unknown scoring', () => tf.moeLoadBalancingLoss(logits(), ids(), {scoring: untyped('relu')}), "Error in moeLoadBalancingLoss: scoring must be one of softmax, softmaxAfterTopk, sigmoid, sqrtSoftplus, sparsemixer, but is 'relu'."],
  ['balance: an unknown option', () => tf.moeLoadBalancingLoss(logits(), ids(), untyped({topk: 1})), "Error in moeLoadBalancingLoss: unknown option 'topk'. The options are mask, scoring, per, expertCounts."],
];

const expertMapErrors: ErrorCase[] = [
  ['numExperts 0', () => tf.moeExpertMap(0, 1, 0), 'Error in moeExpertMap: numExperts must be a positive integer, but is 0.'],
  ['more shards than experts', () => tf.moeExpertMap(2, 3, 0), 'Error in moeExpertMap: numShards must be at most numExperts (2), so that each shard has an expert, but is 3.'],
  ['shard past the last', () => tf.moeExpertMap(4, 2, 2), 'Error in moeExpertMap: shard must be an integer from 0 to numShards - 1 (1), but is 2.'],
  ['an unknown strategy', () => tf.moeExpertMap(4, 2, 0, untyped('round_robin')), "Error in moeExpertMap: strategy must be 'linear' or 'roundRobin', but is 'round_robin'."],
];

const w = () => tf.zeros<tf.Rank.R3>([2, 4, 3]);
const wide = () => tf.zeros<tf.Rank.R2>([6, 3]);
const groupedErrors: ErrorCase[] = [
  ['x rank 3', () => tf.moeGroupedMatMul(tf.zeros([1, 6, 3]), w(), [0, 1, 2]), 'Error in moeGroupedMatMul: x must be rank 2 [R, C], but got rank 3 [1,6,3]. Reshape it to [-1, C] first.'],
  ['x int32', () => tf.moeGroupedMatMul(tf.zeros([6, 3], 'int32'), w(), [0, 1, 2]), "Argument 'x' passed to 'moeGroupedMatMul' must be float32 tensor, but got int32 tensor"],
  ['weights rank 2', () => tf.moeGroupedMatMul(wide(), tf.zeros([4, 3]), [0, 1, 2]), 'Error in moeGroupedMatMul: weights must be rank 3 [L, D, C], but got rank 2 [4,3].'],
  ['weights null', () => tf.moeGroupedMatMul(wide(), untyped(null), [0, 1, 2]), "Argument 'weights' passed to 'moeGroupedMatMul' must be a Tensor or TensorLike, but got 'null'"],
  ['weights of the other format', () => tf.moeGroupedMatMul(wide(), tf.zeros([2, 3, 4]), [0, 1, 2]), "Error in moeGroupedMatMul: weights must be [L, D, C] with C = 3 for x [6,3] and weightFormat 'outIn', but is [2,3,4]. It fits weightFormat 'inOut'."],
  ['weights inOut of the other format', () => tf.moeGroupedMatMul(wide(), w(), [0, 1, 2], {weightFormat: 'inOut'}), "Error in moeGroupedMatMul: weights must be [L, C, D] with C = 3 for x [6,3] and weightFormat 'inOut', but is [2,4,3]. It fits weightFormat 'outIn'."],
  ['weights of neither format', () => tf.moeGroupedMatMul(wide(), tf.zeros([2, 4, 5]), [0, 1, 2]), "Error in moeGroupedMatMul: weights must be [L, D, C] with C = 3 for x [6,3] and weightFormat 'outIn', but is [2,4,5]."],
  ['no experts', () => tf.moeGroupedMatMul(wide(), tf.zeros([0, 4, 3]), [0]), 'Error in moeGroupedMatMul: weights must have at least 1 expert, row and column, but is [0,4,3].'],
  ['a list with an array', () => tf.moeGroupedMatMul(wide(), [w(), untyped({})], [0, 1, 2]), "Argument 'weights[1]' passed to 'moeGroupedMatMul' must be a Tensor or TensorLike, but got 'Object'"],
  ['a list of different sizes', () => tf.moeGroupedMatMul(wide(), [w(), tf.zeros([2, 5, 3])], [0, 1, 2]), 'Error in moeGroupedMatMul: weights[1] must have the shape of weights[0] [2,4,3] except for axis 0, but is [2,5,3].'],
  ['offset length', () => tf.moeGroupedMatMul(wide(), w(), [0, 6]), 'Error in moeGroupedMatMul: expertFirstTokenOffset must have L + 1 = 3 values for weights of L = 2 experts, but has 2.'],
  ['offset rank', () => tf.moeGroupedMatMul(wide(), w(), [[0, 1, 2]]), 'Error in moeGroupedMatMul: expertFirstTokenOffset must be rank 1 [L+1], but got rank 2 [1,3].'],
  ['offset float32', () => tf.moeGroupedMatMul(wide(), w(), tf.zeros([3])), "Argument 'expertFirstTokenOffset' passed to 'moeGroupedMatMul' must be int32 tensor, but got float32 tensor"],
  ['bias shape', () => tf.moeGroupedMatMul(wide(), w(), [0, 1, 2], {bias: tf.zeros([2, 3])}), 'Error in moeGroupedMatMul: bias must be [L, D] = [2,4] for these weights, but is [2,3].'],
  ['odd D gated', () => tf.moeGroupedMatMul(wide(), tf.zeros([2, 5, 3]), [0, 1, 2], {gated: true}), 'Error in moeGroupedMatMul: weights must have an even D when gated (a gate and an up for each output), but D = 5.'],
  ['gated a number', () => tf.moeGroupedMatMul(wide(), w(), [0, 1, 2], {gated: untyped(1)}), 'Error in moeGroupedMatMul: gated must be a boolean, but is 1.'],
  ['an unknown activation', () => tf.moeGroupedMatMul(wide(), w(), [0, 1, 2], {activation: untyped('tanh')}), "Error in moeGroupedMatMul: activation must be one of linear, relu, relu2, silu, swish, gelu, geluTanh, geluNew, swigluOai, but is 'tanh'."],
  ['swigluOai not gated', () => tf.moeGroupedMatMul(wide(), w(), [0, 1, 2], {activation: 'swigluOai'}), "Error in moeGroupedMatMul: activation 'swigluOai' needs gated experts: pass gated: true."],
  ['swigluAlpha not a number', () => tf.moeGroupedMatMul(wide(), w(), [0, 1, 2], {swigluAlpha: NaN}), 'Error in moeGroupedMatMul: swigluAlpha must be a finite number, but is NaN.'],
  ['swigluLimit 0', () => tf.moeGroupedMatMul(wide(), w(), [0, 1, 2], {swigluLimit: 0}), 'Error in moeGroupedMatMul: swigluLimit must be a positive number, but is 0.'],
  ['an unknown gateUp', () => tf.moeGroupedMatMul(wide(), w(), [0, 1, 2], {gateUp: untyped('stacked')}), "Error in moeGroupedMatMul: gateUp must be 'concatenated' or 'interleaved', but is 'stacked'."],
  ['an unknown weightFormat', () => tf.moeGroupedMatMul(wide(), w(), [0, 1, 2], {weightFormat: untyped('in_out')}), "Error in moeGroupedMatMul: weightFormat must be 'outIn' or 'inOut', but is 'in_out'."],
  ['an unknown option', () => tf.moeGroupedMatMul(wide(), w(), [0, 1, 2], untyped({transposeB: true})), "Error in moeGroupedMatMul: unknown option 'transposeB'. The options are weightFormat, bias, activation, gated, gateUp, swigluAlpha, swigluLimit."],
];

const codes = () => tf.zeros([2, 3, 2], 'int32');
const quantized = (other: object = {}) => untyped({format: 'int4', shape: [2, 3, 16], codes: codes(), groupSize: 16, scales: tf.ones([2, 3, 1]), ...other});

const quantizeErrors: ErrorCase[] = [
  ['weights rank 2', () => tf.moeQuantizeWeights(tf.zeros([3, 32])), 'Error in moeQuantizeWeights: weights must be rank 3 [L, D, C], but got rank 2 [3,32].'],
  ['weights int32', () => tf.moeQuantizeWeights(tf.zeros([1, 3, 32], 'int32')), "Argument 'weights' passed to 'moeQuantizeWeights' must be float32 tensor, but got int32 tensor"],
  ['no experts', () => tf.moeQuantizeWeights(tf.zeros([0, 3, 32])), 'Error in moeQuantizeWeights: weights must have at least 1 expert, row and column, but is [0,3,32].'],
  ['half a word', () => tf.moeQuantizeWeights(tf.zeros([1, 3, 36])), 'Error in moeQuantizeWeights: weights must be [L, D, C] with C a multiple of 8 for int4, whole words, but is [1,3,36].'],
  ['an unknown format', () => tf.moeQuantizeWeights(tf.zeros([1, 3, 32]), {format: untyped('q4_0')}), "Error in moeQuantizeWeights: format must be one of int4, int8, fp4, float8, float16, bfloat16, but is 'q4_0'."],
  ['a group size', () => tf.moeQuantizeWeights(tf.zeros([1, 3, 32]), {groupSize: 8}), 'Error in moeQuantizeWeights: groupSize must be a multiple of 16, or C = 32, but is 8.'],
  ['a group size of float16', () => tf.moeQuantizeWeights(tf.zeros([1, 3, 32]), {format: 'float16', groupSize: 32}), 'Error in moeQuantizeWeights: groupSize must not be given for float16, which has no scales.'],
  ['an unknown scale format', () => tf.moeQuantizeWeights(tf.zeros([1, 3, 32]), {scaleFormat: untyped('e4m3')}), "Error in moeQuantizeWeights: scaleFormat must be one of float32, float16, bfloat16, e8m0, but is 'e4m3'."],
  ['e8m0 of integers', () => tf.moeQuantizeWeights(tf.zeros([1, 3, 32]), {scaleFormat: 'e8m0'}), "Error in moeQuantizeWeights: scaleFormat must not be 'e8m0' for int4, whose scales and offsets have a sign."],
  ['floats with offsets', () => tf.moeQuantizeWeights(tf.zeros([1, 3, 32]), {format: 'fp4', symmetric: false}), 'Error in moeQuantizeWeights: symmetric must be true for fp4, which has no offsets.'],
  ['symmetric a number', () => tf.moeQuantizeWeights(tf.zeros([1, 3, 32]), {symmetric: untyped(1)}), 'Error in moeQuantizeWeights: symmetric must be a boolean, but is 1.'],
  ['an unknown option', () => tf.moeQuantizeWeights(tf.zeros([1, 3, 32]), untyped({bits: 4})), "Error in moeQuantizeWeights: unknown option 'bits'. The options are format, groupSize, symmetric, scaleFormat."],
];

const dequantizeErrors: ErrorCase[] = [
  ['codes of another shape', () => tf.moeDequantizeWeights(quantized({codes: tf.zeros([2, 3, 4], 'int32')})), 'Error in moeDequantizeWeights: weights.codes must be int32 [L, D, C/8] = [2,3,2] for int4 of shape [2,3,16], but is [2,3,4].'],
  ['a tensor', () => tf.moeDequantizeWeights(untyped(codes())), 'Error in moeDequantizeWeights: weights must be quantized, but is an int32 tensor [2,3,2].'],
  ['a list', () => tf.moeDequantizeWeights(untyped([quantized()])), 'Error in moeDequantizeWeights: weights must be quantized, but is the array [{format: \'int4\', shape: […], codes: a Tensor, groupSize: 16, scales: a Tensor}].'],
  ['experts past the last', () => tf.moeDequantizeWeights(quantized(), {experts: [1, 2]}), 'Error in moeDequantizeWeights: experts must be [first, count], at least 1 of 2 experts, but is the array [1, 2].'],
  ['no experts', () => tf.moeDequantizeWeights(quantized(), {experts: [0, 0]}), 'Error in moeDequantizeWeights: experts must be [first, count], at least 1 of 2 experts, but is the array [0, 0].'],
  ['experts a number', () => tf.moeDequantizeWeights(quantized(), {experts: untyped(1)}), 'Error in moeDequantizeWeights: experts must be [first, count], at least 1 of 2 experts, but is 1.'],
  ['an unknown option', () => tf.moeDequantizeWeights(quantized(), untyped({dtype: 'float32'})), "Error in moeDequantizeWeights: unknown option 'dtype'. The options are experts."],
];

const registrationErrors: ErrorCase[] = [
  ['like an unknown backend', () => tf.registerMoeKernels('mine', untyped('metal')), "Error in registerMoeKernels: like must be one of cpu, webgl, webgpu, but is 'metal'."],
];

describeWithFlags('errors', ALL_ENVS, ({backendName}) => {
  const tables = {
    moePermute: permuteErrors,
    moeAlignBlockSize: alignErrors,
    moePermuteBlockAligned: blockAlignedErrors,
    moeUnpermute: unpermuteErrors,
    moeUnpermuteAndReduce: reduceErrors,
    moeSum: sumErrors,
    moeTopk: topkErrors,
    'router losses': lossErrors,
    moeExpertMap: expertMapErrors,
    moeGroupedMatMul: groupedErrors,
    moeQuantizeWeights: quantizeErrors,
    moeDequantizeWeights: dequantizeErrors,
    registerMoeKernels: registrationErrors,
  };
  for (const [opName, table] of Object.entries(tables)) {
    for (const [what, call, message] of backendName === 'cpu' ? table : table.slice(0, 1)) {
      it(`${opName}: ${what}`, () => {
        expect(call).toThrowError(message);
      });
    }
  }

  it('leave no tensor behind', () => {
    const arrays = {x: [[1, 2], [3, 4]], ids: [[0, 1], [1, 0]], weights: [[1, 1], [1, 1]]};
    const before = tf.memory().numTensors;
    const calls = [
      () => tf.moePermute(arrays.x, arrays.ids, 2, {a1qScale: arrays.x, expertMap: [0, 1], numLocalExperts: 5}),
      () => tf.moePermute(arrays.x, arrays.ids, 2, {a1qScale: [[1, 1], [1, 1], [1, 1]]}),
      () => tf.moeAlignBlockSize(arrays.ids, 2, 2, {expertMap: [1]}),
      () => tf.moeUnpermute(arrays.x, arrays.weights, [0, 1, 0]),
      () => tf.moeUnpermuteAndReduce(arrays.x, arrays.weights),
      () => tf.moeTopk(arrays.x, 1, {scoreCorrectionBias: [1, 2], numExpertGroups: 2}),
      () => tf.moeLoadBalancingLoss(arrays.x, arrays.ids, {mask: [1, 0, 1]}),
      () => tf.moeGroupedMatMul(arrays.x, [arrays.x], [0, 2], {bias: [[1]]}),
    ];
    for (const call of calls) {
      expect(call).toThrowError();
    }
    expect(tf.memory().numTensors).toBe(before);
  });
});
