/** The arguments of the layer: their types, their checks and their defaults. */
import type {layers} from '@tensorflow/tfjs-layers';
import type {MoeActivation} from '../contract/kernel_names';
import {
  assert,
  assertPositiveInteger,
  checkBoolean,
  checkCount,
  checkOneOf,
  checkOptions,
  describeValue,
} from '../arguments/checks';
import {checkActivation, SWIGLU_LIMIT} from '../arguments/experts';
import type {MoeLoadBalancingScope} from '../ops/moe_load_balancing_loss';
import {type MoeTopkScoring} from '../ops/moe_topk';
import {checkRouting} from '../arguments/routing';
import {checkArgsOfEveryLayer, type LayerArgs, layerArgNames, toCamelCase} from './layer_arguments';
import {checkExpertFormat, type ExpertFormat, type ExpertFormatArgs, expertFormatArgNames} from './expert_format';

type DenseArgs = Parameters<typeof layers.dense>[0];

/** Which tokens an expert keeps if it has more than its capacity. */
export type MoeDropPolicy = 'probability' | 'position';

/** Names, configs or objects, as tf.layers.dense takes them. */
export type MixtureOfExpertsWeightArgs = {
  /**
   * The initializer of experts, shared experts and shared_gate. Default `'glorotNormal'`. Each expert is drawn like a
   * dense layer of its size. A seed is the seed of the first expert; all other experts have seeds of their own.
   */
  kernelInitializer?: DenseArgs['kernelInitializer'] | null;
  /** The initializer of router_kernel. Default `'glorotNormal'`. */
  routerInitializer?: DenseArgs['kernelInitializer'] | null;
  /** The initializer of the biases. Default `'zeros'`. */
  biasInitializer?: DenseArgs['biasInitializer'] | null;
  /** The regularizer of router_kernel and of all kernels of experts. */
  kernelRegularizer?: DenseArgs['kernelRegularizer'] | null;
  /** The regularizer of the biases. */
  biasRegularizer?: DenseArgs['biasRegularizer'] | null;
  /**
   * The constraint of the kernels, applied to each expert's matrix [in, out] separately. tf.layers 4.22 applies
   * constraints when weights are set or loaded, but not in fit.
   */
  kernelConstraint?: DenseArgs['kernelConstraint'] | null;
  /** The constraint of the biases. */
  biasConstraint?: DenseArgs['biasConstraint'] | null;
};

export type MixtureOfExpertsArgs = LayerArgs &
  MixtureOfExpertsWeightArgs &
  ExpertFormatArgs & {
    /** E, the number of experts. */
    numExperts: number;
    /**
     * Z, the number of zero experts, as in fusedExperts. The router chooses among all E+Z experts. The losses, the
     * loads and the score correction bias count all of them. A capacity limits only the E experts. Default 0.
     */
    numZeroExperts?: number | null;
    /** I, the width of one expert. */
    intermediateSize: number;
    /** K, the number of experts for each token. Default 2. */
    topk?: number | null;
    /** As in moeTopk. Default `'softmax'`. */
    scoring?: MoeTopkScoring | null;
    /** As in moeTopk. Default: true if topk > 1. */
    renormalize?: boolean | null;
    /** As in moeTopk, with `topkGroups`. */
    numExpertGroups?: number | null;
    /** As in moeTopk. */
    topkGroups?: number | null;
    /** As in moeTopk. Default 0.01. */
    sparsemixerJitter?: number | null;
    /** As in moeTopk. Default 1. */
    routedScalingFactor?: number | null;
    /** As in moeGroupedMatMul. Default `'silu'`. */
    activation?: MoeActivation | null;
    /** Whether an expert is activation(gate) * up. Default true. */
    gated?: boolean | null;
    /** Alpha of activation `'swigluOai'`. Default 1.702. */
    swigluAlpha?: number | null;
    /** As in moeGroupedMatMul: the limit of `'swigluOai'`, default 7, or of a clamped `'silu'`, default none. */
    swigluLimit?: number | null;
    /** As in fusedExperts: multiply a token by its router weights before w1, as Llama-4 does. Default false. */
    applyRouterWeightOnInput?: boolean | null;
    /** Whether experts have biases. Default false. */
    useBias?: boolean | null;
    /** Whether the router has a bias. Default false. */
    useRouterBias?: boolean | null;
    /** The number of experts for every token. They are computed as one expert of their total width. Default 0. */
    numSharedExperts?: number | null;
    /** F, the total width of the shared experts. Default numSharedExperts * intermediateSize. */
    sharedIntermediateSize?: number | null;
    /** Whether the shared experts' output is multiplied by sigmoid(x . shared_gate). Default false. */
    sharedExpertGate?: boolean | null;
    /** The factor of moeLoadBalancingLoss in the loss of training. Default 0.01. */
    loadBalancingLossWeight?: number | null;
    /**
     * What moeLoadBalancingLoss balances. `'batch'` (default): all tokens of a call. `'sequence'`: each sequence by
     * itself, for inputs [B, ..., H] of rank 3 or more, which have B sequences.
     */
    loadBalancingLossPer?: MoeLoadBalancingScope | null;
    /** The factor of moeRouterZLoss in the loss of training. Default 0. */
    routerZLossWeight?: number | null;
    /**
     * Whether the layer has moeTopk's score correction bias. Default: true if its update rate is not 0. With true and a
     * rate of 0 the bias does not change, as for the bias of a checkpoint.
     */
    useScoreCorrectionBias?: boolean | null;
    /**
     * How far a training step moves the score correction bias of an expert. Default 0. Not with scoring
     * `'softmaxAfterTopk'` or `'sparsemixer'`.
     */
    scoreCorrectionBiasUpdateRate?: number | null;
    /**
     * In training, multiply the router's input by random numbers from 1 - jitter to 1 + jitter, as Switch Transformers
     * do. Default 0.
     */
    routerJitter?: number | null;
    /** The seed of the jitter: a new layer with the same seed has the same jitter in the same calls. */
    seed?: number | null;
    /**
     * In training an expert takes at most ceil(capacityFactor * T * topk / E) of T tokens. Default: nothing is dropped.
     */
    capacityFactor?: number | null;
    /**
     * Which tokens a full expert keeps. `'probability'` (default): the tokens with the largest weights, and of equal
     * weights the first tokens. `'position'`: the first tokens.
     */
    dropPolicy?: MoeDropPolicy | null;
  };

/** Which argument of tf.layers.dense each one is like. */
export const weightArgParts = {
  kernelInitializer: 'kernelInitializer',
  routerInitializer: 'kernelInitializer',
  biasInitializer: 'biasInitializer',
  kernelRegularizer: 'kernelRegularizer',
  biasRegularizer: 'biasRegularizer',
  kernelConstraint: 'kernelConstraint',
  biasConstraint: 'biasConstraint',
} as const;
const weightArgNames = Object.keys(weightArgParts) as Array<keyof typeof weightArgParts>;

const argNames = [
  'numExperts',
  'numZeroExperts',
  'intermediateSize',
  'topk',
  'scoring',
  'renormalize',
  'numExpertGroups',
  'topkGroups',
  'sparsemixerJitter',
  'routedScalingFactor',
  'activation',
  'gated',
  'swigluAlpha',
  'swigluLimit',
  'applyRouterWeightOnInput',
  'useBias',
  'useRouterBias',
  'numSharedExperts',
  'sharedIntermediateSize',
  'sharedExpertGate',
  'loadBalancingLossWeight',
  'loadBalancingLossPer',
  'routerZLossWeight',
  'useScoreCorrectionBias',
  'scoreCorrectionBiasUpdateRate',
  'routerJitter',
  'seed',
  'capacityFactor',
  'dropPolicy',
  ...expertFormatArgNames,
  ...weightArgNames,
  ...layerArgNames,
] as const;

/** The first is the default. */
const dropPolicies: MoeDropPolicy[] = ['probability', 'position'];
const lossScopes: MoeLoadBalancingScope[] = ['batch', 'sequence'];

function oneOf<Word extends string>(
  given: Word | null | undefined,
  words: Word[],
  argName: string,
  opName: string,
): Word {
  return checkOneOf(toCamelCase(given) ?? words[0], words, argName, opName);
}

export type MixtureOfExpertsOptions = ReturnType<typeof checkOptionsOfMixture> & ExpertFormat;

/** The layer's own options, each with a value or null, as a config holds them. */
export function checkArgs(args: MixtureOfExpertsArgs, opName: string): MixtureOfExpertsOptions {
  type Known = MixtureOfExpertsArgs & {customObjects?: unknown};
  assert(args != null, opName, () => 'args must have numExperts and intermediateSize, but are not given.');
  const given = checkOptions<Known>(args, argNames, opName) as MixtureOfExpertsArgs;
  const {numExperts, intermediateSize} = given;
  assertPositiveInteger(numExperts, 'numExperts', opName);
  assertPositiveInteger(intermediateSize, 'intermediateSize', opName);
  checkArgsOfEveryLayer(given, opName);
  return {...checkOptionsOfMixture(given, opName), ...checkExpertFormat(given, opName)};
}

/** All options but those of how experts are stored. */
function checkOptionsOfMixture(given: MixtureOfExpertsArgs, opName: string) {
  const {numExperts, intermediateSize, numExpertGroups, topkGroups} = given;
  const numZeroExperts = checkCount(given.numZeroExperts ?? 0, 'numZeroExperts', opName);
  const {topk, scoring, renormalize, sparsemixerJitter, routedScalingFactor} = checkRouting(
    numExperts + numZeroExperts,
    given.topk ?? 2,
    {...given, scoring: toCamelCase(given.scoring)},
    opName,
  );
  const activation = toCamelCase(given.activation) ?? 'silu';
  const {gated, swigluAlpha} = checkActivation({...given, activation, gated: given.gated ?? true}, opName);
  const swigluLimit = given.swigluLimit ?? (activation === 'swigluOai' ? SWIGLU_LIMIT : null);
  const boolean = (name: BooleanName) => checkBoolean(given[name], name, opName);
  const amount = (name: AmountName, byDefault: number) => checkAmount(given[name] ?? byDefault, name, opName);
  return {
    numExperts,
    numZeroExperts,
    intermediateSize,
    topk,
    scoring,
    renormalize,
    numExpertGroups: numExpertGroups ?? null,
    topkGroups: topkGroups ?? null,
    sparsemixerJitter,
    routedScalingFactor,
    activation,
    gated,
    swigluAlpha,
    swigluLimit,
    applyRouterWeightOnInput: boolean('applyRouterWeightOnInput'),
    useBias: boolean('useBias'),
    useRouterBias: boolean('useRouterBias'),
    ...checkSharedExperts(given, opName),
    loadBalancingLossWeight: amount('loadBalancingLossWeight', 0.01),
    loadBalancingLossPer: oneOf(given.loadBalancingLossPer, lossScopes, 'loadBalancingLossPer', opName),
    routerZLossWeight: amount('routerZLossWeight', 0),
    ...checkScoreCorrection(given, scoring, opName),
    ...checkJitter(given, opName),
    ...checkCapacity(given, opName),
  };
}

type BooleanName = 'applyRouterWeightOnInput' | 'useBias' | 'useRouterBias';
type AmountName = 'loadBalancingLossWeight' | 'routerZLossWeight';

function checkAmount(value: number, argName: string, opName: string): number {
  assert(
    typeof value === 'number' && value >= 0 && Number.isFinite(Math.fround(value)),
    opName,
    () => `${argName} must be a number of at least 0 that fits float32, but is ${describeValue(value)}.`,
  );
  return value;
}

function checkSharedExperts(given: MixtureOfExpertsArgs, opName: string) {
  const numSharedExperts = checkCount(given.numSharedExperts ?? 0, 'numSharedExperts', opName);
  const byDefault = numSharedExperts * given.intermediateSize;
  const sharedIntermediateSize = checkCount(
    given.sharedIntermediateSize ?? byDefault,
    'sharedIntermediateSize',
    opName,
  );
  assert(
    numSharedExperts === 0 || sharedIntermediateSize > 0,
    opName,
    () => `sharedIntermediateSize must be positive for numSharedExperts = ${numSharedExperts}, but is 0.`,
  );
  const sharedExpertGate = checkBoolean(given.sharedExpertGate, 'sharedExpertGate', opName);
  assert(
    !sharedExpertGate || sharedIntermediateSize > 0,
    opName,
    () => 'sharedExpertGate needs shared experts: numSharedExperts or sharedIntermediateSize must be positive.',
  );
  return {numSharedExperts, sharedIntermediateSize, sharedExpertGate};
}

function checkScoreCorrection(given: MixtureOfExpertsArgs, scoring: MoeTopkScoring, opName: string) {
  const rateName = 'scoreCorrectionBiasUpdateRate';
  const scoreCorrectionBiasUpdateRate = checkAmount(given[rateName] ?? 0, rateName, opName);
  const useScoreCorrectionBias = checkBoolean(
    given.useScoreCorrectionBias ?? scoreCorrectionBiasUpdateRate > 0,
    'useScoreCorrectionBias',
    opName,
  );
  assert(
    useScoreCorrectionBias || scoreCorrectionBiasUpdateRate === 0,
    opName,
    () => `${rateName} must be 0 without the bias (useScoreCorrectionBias: false), but is ${given[rateName]}.`,
  );
  assert(
    !useScoreCorrectionBias || (scoring !== 'softmaxAfterTopk' && scoring !== 'sparsemixer'),
    opName,
    () =>
      'useScoreCorrectionBias and scoreCorrectionBiasUpdateRate must not be given with scoring ' +
      `'${scoring}', which has no scores before the choice of experts.`,
  );
  return {useScoreCorrectionBias, scoreCorrectionBiasUpdateRate};
}

function checkJitter(given: MixtureOfExpertsArgs, opName: string) {
  const routerJitter = checkAmount(given.routerJitter ?? 0, 'routerJitter', opName);
  assert(routerJitter < 1, opName, () => `routerJitter must be less than 1, but is ${routerJitter}.`);
  const seed = given.seed ?? null;
  assert(seed == null || Number.isFinite(seed), opName, () => `seed must be a number, but is ${describeValue(seed)}.`);
  return {routerJitter, seed};
}

function checkCapacity(given: MixtureOfExpertsArgs, opName: string) {
  const capacityFactor = given.capacityFactor ?? null;
  assert(
    capacityFactor == null || (Number.isFinite(capacityFactor) && capacityFactor > 0),
    opName,
    () => `capacityFactor must be a positive number, but is ${describeValue(capacityFactor)}.`,
  );
  const dropPolicy = oneOf(given.dropPolicy, dropPolicies, 'dropPolicy', opName);
  return {capacityFactor, dropPolicy};
}
