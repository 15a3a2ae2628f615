/** Type-checked, never run: the types as a strict project sees them. Copied to .mts and .cts as well. */
import * as tf from '@tensorflow/tfjs';
import {fusedMoe, moePermute, moeUnpermute, registerMoeKernels} from 'tfjs-moe';
import type {
  FusedMoeOptions,
  FusedMoeResult,
  MoeExpertWeights,
  MoeIndices,
  MoePermuteOptions,
  MoePermuteResult,
  MoeSharedExperts,
  MoeTopkOptions,
  MoeTopkResult,
  MoeTopkScoring,
} from 'tfjs-moe';
import {moeGraphModel, type MoeGraphModelOptions, registerMoeGraphOps} from 'tfjs-moe/graph';
import 'tfjs-moe/kernels/cpu';
import {
  CausalSelfAttention,
  causalSelfAttention,
  type CausalSelfAttentionArgs,
  type KeyValueCache,
  mixtureOfExperts,
  MixtureOfExperts,
  type MixtureOfExpertsArgs,
  registerMoeLayers,
  reversibleEmbedding,
  rmsNormalization,
  type RotaryScaling,
} from 'tfjs-moe/layers';
import {moeSum} from 'tfjs-moe/ops';
import * as all from 'tfjs-moe/tf';

const x = tf.tensor2d([[1, 1], [2, 2], [3, 3]]);
const topkIds = tf.tensor2d([[2, 0], [0, 1], [2, 1]], [3, 2], 'int32');
const options: MoePermuteOptions = {alignBlockSize: 16, expertMap: [0, 1, -1, -1], numLocalExperts: 2};

export const result: MoePermuteResult = tf.tidy(() => moePermute(tf.matMul(x, x, true), topkIds, 4, options));
export const rows: tf.Tensor2D = result.permutedHiddenStates;
export const offset: tf.Tensor1D = result.expertFirstTokenOffset;
export const summed: tf.Tensor2D = moeUnpermute(rows, [[0.5, 0.5]], result.invPermutedIdx, offset);
tf.dispose(result);

export const chained: MoePermuteResult = x.moePermute(topkIds, 4);
export const chainedRows: tf.Tensor2D = chained.permutedHiddenStates.moeUnpermute([[1]], chained.invPermutedIdx);
export const ofAll: all.Tensor2D = all.moeSum(all.tensor3d([[[1]]]));
export const version: string = all.version_moe;
export const nested = moePermute([[1, 2]], [[0, 1]], 2);
registerMoeKernels('my-cpu', 'cpu');

registerMoeGraphOps();
registerMoeGraphOps(tf);
all.registerMoeGraphOps();
const graphOptions: MoeGraphModelOptions = {topk: 2, scoring: 'sigmoid', gated: false};
export const artifacts: Promise<tf.io.ModelArtifacts> = moeGraphModel({routerKernel: x, w1: [[[1]]], w2: [[[1]]]}, graphOptions);

const scoring: MoeTopkScoring = 'sigmoid';
const topkOptions: MoeTopkOptions = {scoring, scoreCorrectionBias: [0, 1], routedScalingFactor: 2.5};
export const routed: MoeTopkResult = tf.tidy(() => x.moeTopk(1, topkOptions));
export const balance: tf.Scalar = all.moeLoadBalancingLoss(x, routed.topkIds, {mask: [true, true, false]});

const sequences = tf.zeros<tf.Rank.R3>([2, 3, 4]);
const expertWeights: MoeExpertWeights[] = [[tf.zeros([1, 4, 4]), tf.zeros([1, 4, 4])], tf.zeros([2, 4, 2])];
const sharedExperts: MoeSharedExperts = {w1: [[1, 1, 1, 1], [1, 1, 1, 1]], w2: [[1], [1], [1], [1]]};
const moeOptions: FusedMoeOptions = {scoring, sharedExperts};
const [w1, w2] = expertWeights;
const logits = tf.zeros<tf.Rank.R3>([2, 3, 2]);
export const output: tf.Tensor3D = fusedMoe(sequences, w1, w2, logits, 2, moeOptions);
export const withRouting: FusedMoeResult<tf.Rank.R3> = fusedMoe(sequences, w1, w2, logits, 2, {...moeOptions, returnRouting: true});
export const without: tf.Tensor3D = sequences.fusedMoe(w1, w2, logits, 2, {returnRouting: false});
export const chosen: tf.Tensor3D = sequences.fusedMoe(w1, w2, logits, 2, {returnRouting: true}).topkIds;
export const either: tf.Tensor | FusedMoeResult = fusedMoe(sequences, w1, w2, logits, 2, {returnRouting: Boolean(1)});
export const chosenAlone: MoeTopkResult<tf.Rank.R3> = all.moeTopk(logits, 1);
export const ofUnknownRank: tf.Tensor = all.moeTopk(tf.matMul(logits, sequences), 1).topkIds;
export const inPlace: tf.Tensor2D = moeUnpermute(rows, [[1]], [0], {out: tf.variable(x)});
export const indices: MoeIndices[] = [[[0, 1]], Int32Array.of(1), [Int32Array.of(1)], topkIds, new Uint8Array(2)];

const layerArgs: MixtureOfExpertsArgs = {numExperts: 4, intermediateSize: 8, scoring, inputShape: [2]};
export const experts: MixtureOfExperts = mixtureOfExperts(layerArgs);
export const asLayer: tf.layers.Layer = new MixtureOfExperts({...layerArgs, kernelInitializer: 'heNormal'});
export const ofAllLayers: all.layers.Layer = all.layers.mixtureOfExperts(layerArgs);
export const dense: all.layers.Layer = all.layers.dense({units: 1});
export const model: tf.Sequential = tf.sequential({layers: [experts, registerMoeLayers(tf).mixtureOfExperts(layerArgs)]});
export const load: tf.Tensor1D = experts.expertLoad();

const rotaryScaling: RotaryScaling = {type: 'yarn', factor: 4, originalMaxPositions: 4096, truncate: false};
const attentionArgs: CausalSelfAttentionArgs = {numHeads: 4, numKeyValueHeads: 2, rotaryScaling, queryKeyNormalization: 'head'};
export const attention: CausalSelfAttention = causalSelfAttention(attentionArgs);
export const cache: KeyValueCache = attention.makeCache(1, 8);
export const attended: tf.Tensor3D = new CausalSelfAttention(attentionArgs).attend(sequences, cache, tf.ones<tf.Rank.R2>([2, 3]));
export const norms: tf.layers.Layer[] = [rmsNormalization(), registerMoeLayers(tf).rmsNormalization({epsilon: 1e-5})];
export const embedding: all.layers.Layer = all.layers.reversibleEmbedding({vocabSize: 8, units: 4, padTokenId: 0});

// @ts-expect-error the input is missing
moePermute(undefined, topkIds, 4);
// @ts-expect-error numExperts is a number
moePermute(x, topkIds, '4');
// @ts-expect-error an option that does not exist
moePermute(x, topkIds, 4, {alignment: 16});
// @ts-expect-error an option of the wrong type
x.moePermute(topkIds, 4, {alignBlockSize: '16'});
// @ts-expect-error a number is no list of ids
all.moeLoadBalancingLoss(x, 2);
// @ts-expect-error nor is a string
moePermute(x, '2', 4);
// @ts-expect-error an option of moeUnpermute that does not exist
moeUnpermute(rows, [[1]], [0], {offset: [0]});
// @ts-expect-error the output alone
export const noRouting: FusedMoeResult = fusedMoe(sequences, w1, w2, logits, 2, {returnRouting: false});
// @ts-expect-error shared experts have both of their weights
fusedMoe(x, w1, w2, x, 2, {sharedExperts: {w1: x}});
// @ts-expect-error a scoring that does not exist
x.moeTopk(2, {scoring: 'relu'});
// @ts-expect-error the result is a matrix
export const wrongRank: tf.Tensor3D = moeSum(tf.tensor3d([[[1]]]));
// @ts-expect-error topk is missing
void moeGraphModel({routerKernel: x, w1: [[[1]]], w2: [[[1]]]}, {scoring: 'sigmoid'});
// @ts-expect-error a tensor is a weight, not an option
void moeGraphModel({routerKernel: x, w1: [[[1]]], w2: [[[1]]]}, {topk: 1, w1Bias: x});
// @ts-expect-error nothing to register with
registerMoeGraphOps({});
// @ts-expect-error no kernels of that name
registerMoeKernels('my-backend', 'toaster');
// @ts-expect-error a layer needs its sizes
mixtureOfExperts({numExperts: 4});
// @ts-expect-error an argument that does not exist
mixtureOfExperts({numExperts: 4, intermediateSize: 8, capacity: 2});
// @ts-expect-error a scaling without its factor
causalSelfAttention({numHeads: 2, rotaryScaling: {type: 'linear'}});
// @ts-expect-error an embedding needs its sizes
reversibleEmbedding({vocabSize: 8});
