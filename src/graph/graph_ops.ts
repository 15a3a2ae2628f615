/** Every op that a GraphModel can have, by its name in the graph. */
import type {Tensor} from '@tensorflow/tfjs-core';
import {moeActivations} from '../arguments/experts';
import {
  fusedExperts,
  fusedMoe,
  moeAlignBlockSize,
  moeGroupedMatMul,
  moePermute,
  moeSum,
  moeTopk,
  moeUnpermute,
} from '../ops/index';
import {moeScorings} from '../arguments/routing';
import {boolean, integer, number, oneOf} from './attr_types';
import {type GraphNode, type GraphOp, graphOp} from './graph_node';

const topkAttrs = {
  scoring: oneOf(moeScorings),
  renormalize: boolean,
  numExpertGroups: integer,
  topkGroups: integer,
  sparsemixerJitter: number,
  routedScalingFactor: number,
};

const matMulAttrs = {
  weightFormat: oneOf(['outIn', 'inOut']),
  activation: oneOf(moeActivations),
  gated: boolean,
  gateUp: oneOf(['concatenated', 'interleaved']),
  swigluAlpha: number,
  swigluLimit: number,
};

const expertsAttrs = {...matMulAttrs, numZeroExperts: integer, applyRouterWeightOnInput: boolean};

/** The last inputs of fusedExperts and fusedMoe, in this order. */
const expertsInputs = ['w1Bias', 'w2Bias', 'expertMap', 'sharedW1', 'sharedW2', 'sharedGate'] as const;

/** The shared experts are one option of the ops, but separate inputs in a graph. */
function withSharedExperts<Options extends {sharedW1?: Tensor; sharedW2?: Tensor; sharedGate?: Tensor}>({
  sharedW1,
  sharedW2,
  sharedGate,
  ...options
}: Options) {
  const isGiven = sharedW1 != null || sharedW2 != null || sharedGate != null;
  return {...options, sharedExperts: isGiven ? {w1: sharedW1!, w2: sharedW2!, gate: sharedGate} : undefined};
}

export const graphOps = {
  MoePermute: graphOp(
    {
      inputs: ['hiddenStates', 'topkIds'],
      optionalInputs: ['a1qScale', 'expertMap'],
      attrs: {numExperts: integer},
      optionalAttrs: {numLocalExperts: integer, alignBlockSize: integer, fillInvalidExpert: integer},
    },
    ({hiddenStates, topkIds, numExperts}, options) => {
      const permuted = moePermute(hiddenStates, topkIds, numExperts, options);
      return [
        permuted.permutedHiddenStates,
        permuted.expertFirstTokenOffset,
        permuted.invPermutedIdx,
        permuted.mIndices,
        permuted.permutedIdx,
        ...(permuted.a1qScale == null ? [] : [permuted.a1qScale]),
      ];
    },
  ),

  MoeUnpermute: graphOp(
    {
      inputs: ['permutedHiddenStates', 'topkWeights', 'invPermutedIdx'],
      optionalInputs: ['expertFirstTokenOffset'],
      attrs: {},
      optionalAttrs: {},
    },
    ({permutedHiddenStates, topkWeights, invPermutedIdx}, {expertFirstTokenOffset}) =>
      moeUnpermute(permutedHiddenStates, topkWeights, invPermutedIdx, expertFirstTokenOffset),
  ),

  MoeAlignBlockSize: graphOp(
    {
      inputs: ['topkIds'],
      optionalInputs: ['expertMap'],
      attrs: {blockSize: integer, numExperts: integer},
      optionalAttrs: {padSortedIds: boolean, ignoreInvalidExperts: boolean},
    },
    ({topkIds, blockSize, numExperts}, options) => {
      const aligned = moeAlignBlockSize(topkIds, blockSize, numExperts, options);
      return [aligned.sortedTokenIds, aligned.expertIds, aligned.numTokensPostPad];
    },
  ),

  MoeTopK: graphOp(
    {
      inputs: ['routerLogits'],
      optionalInputs: ['scoreCorrectionBias'],
      attrs: {topk: integer},
      optionalAttrs: topkAttrs,
    },
    ({routerLogits, topk}, options) => {
      const {topkWeights, topkIds} = moeTopk(routerLogits, topk, options);
      return [topkWeights, topkIds];
    },
  ),

  MoeGroupedMatMul: graphOp(
    {
      inputs: ['x', 'weights', 'expertFirstTokenOffset'],
      weights: ['weights'],
      optionalInputs: ['bias'],
      attrs: {},
      optionalAttrs: matMulAttrs,
    },
    ({x, weights, expertFirstTokenOffset}, options) => moeGroupedMatMul(x, weights, expertFirstTokenOffset, options),
  ),

  FusedExperts: graphOp(
    {
      inputs: ['hiddenStates', 'w1', 'w2', 'topkWeights', 'topkIds'],
      weights: ['w1', 'w2'],
      optionalInputs: expertsInputs,
      attrs: {},
      optionalAttrs: expertsAttrs,
    },
    ({hiddenStates, w1, w2, topkWeights, topkIds}, options) =>
      fusedExperts(hiddenStates, w1, w2, topkWeights, topkIds, withSharedExperts(options)),
  ),

  FusedMoe: graphOp(
    {
      inputs: ['hiddenStates', 'w1', 'w2', 'routerLogits'],
      weights: ['w1', 'w2'],
      optionalInputs: ['scoreCorrectionBias', ...expertsInputs],
      attrs: {topk: integer},
      optionalAttrs: {...topkAttrs, ...expertsAttrs},
    },
    ({hiddenStates, w1, w2, routerLogits, topk}, options) => {
      const given = {...withSharedExperts(options), returnRouting: true as const};
      const {output, topkWeights, topkIds} = fusedMoe(hiddenStates, w1, w2, routerLogits, topk, given);
      return [output, topkWeights, topkIds];
    },
  ),

  MoeSum: graphOp({inputs: ['x'], optionalInputs: [], attrs: {}, optionalAttrs: {}}, ({x}) => moeSum(x)),
} satisfies {[name: string]: GraphOp};

/** A module of tfjs that registers ops for GraphModels: @tensorflow/tfjs or @tensorflow/tfjs-converter. */
export type MoeGraphOpRegistry = {
  /** Registers `execute` for the nodes whose op has this name. */
  registerOp(name: string, execute: (node: GraphNode) => Tensor | Tensor[]): void;
};

export function registerGraphOps(tf: MoeGraphOpRegistry): void {
  if (typeof tf?.registerOp !== 'function') {
    throw new Error(
      'Error in registerMoeGraphOps: tf must be @tensorflow/tfjs or @tensorflow/tfjs-converter, but has no registerOp.',
    );
  }
  for (const [name, op] of Object.entries(graphOps)) {
    tf.registerOp(name, (node) => op.execute(node, name));
  }
}
