/** The arguments of the layer: their types, and what becomes of them once checked, defaults filled in. */
import type {layers} from '@tensorflow/tfjs-layers';
import type {MoeActivation} from '../kernel_names';
import {assert, assertPositiveInteger, checkBoolean, checkOptions} from '../ops/checks';
import {checkActivation} from '../ops/expert_arguments';
import {checkRouting, type MoeTopkScoring} from '../ops/moe_topk';

type LayerArgs = NonNullable<ConstructorParameters<typeof layers.Layer>[0]>;
type DenseArgs = Parameters<typeof layers.dense>[0];

/** Which of an expert's tokens stay when it has more than its capacity. */
export type MoeDropPolicy = 'probability' | 'position';

/** Names, configs or objects, as tf.layers.dense takes them. */
export type MixtureOfExpertsWeightArgs = {
  kernelInitializer?: DenseArgs['kernelInitializer'] | null;
  routerInitializer?: DenseArgs['kernelInitializer'] | null;
  biasInitializer?: DenseArgs['biasInitializer'] | null;
  kernelRegularizer?: DenseArgs['kernelRegularizer'] | null;
  biasRegularizer?: DenseArgs['biasRegularizer'] | null;
  kernelConstraint?: DenseArgs['kernelConstraint'] | null;
  biasConstraint?: DenseArgs['biasConstraint'] | null;
};

export type MixtureOfExpertsArgs = LayerArgs &
  MixtureOfExpertsWeightArgs & {
    numExperts: number;
    intermediateSize: number;
    topk?: number | null;
    scoring?: MoeTopkScoring | null;
    renormalize?: boolean | null;
    numExpertGroups?: number | null;
    topkGroups?: number | null;
    routedScalingFactor?: number | null;
    activation?: MoeActivation | null;
    gated?: boolean | null;
    useBias?: boolean | null;
    useRouterBias?: boolean | null;
    numSharedExperts?: number | null;
    sharedIntermediateSize?: number | null;
    sharedExpertGate?: boolean | null;
    loadBalancingLossWeight?: number | null;
    routerZLossWeight?: number | null;
    useScoreCorrectionBias?: boolean | null;
    scoreCorrectionBiasUpdateRate?: number | null;
    routerJitter?: number | null;
    seed?: number | null;
    capacityFactor?: number | null;
    dropPolicy?: MoeDropPolicy | null;
  };

export const weightArgNames = [
  'kernelInitializer',
  'routerInitializer',
  'biasInitializer',
  'kernelRegularizer',
  'biasRegularizer',
  'kernelConstraint',
  'biasConstraint',
] as const;

const argNames = [
  'numExperts',
  'intermediateSize',
  'topk',
  'scoring',
  'renormalize',
  'numExpertGroups',
  'topkGroups',
  'routedScalingFactor',
  'activation',
  'gated',
  'useBias',
  'useRouterBias',
  'numSharedExperts',
  'sharedIntermediateSize',
  'sharedExpertGate',
  'loadBalancingLossWeight',
  'routerZLossWeight',
  'useScoreCorrectionBias',
  'scoreCorrectionBiasUpdateRate',
  'routerJitter',
  'seed',
  'capacityFactor',
  'dropPolicy',
  ...weightArgNames,
  // Those of every layer, and what deserialization adds.
  'name',
  'trainable',
  'inputShape',
  'batchInputShape',
  'batchSize',
  'dtype',
  'inputDType',
  'weights',
  'customObjects',
] as const;

const dropPolicies: MoeDropPolicy[] = ['probability', 'position'];

/** tf.layers saves the strings of a config in snake_case. */
export function toCamelCase<Value>(value: Value): Value {
  const isSnakeCase = typeof value === 'string' && /^[a-z]\w*$/.test(value);
  return isSnakeCase ? (value.replace(/_+(\w)/g, (_, letter: string) => letter.toUpperCase()) as Value) : value;
}

export type MixtureOfExpertsOptions = ReturnType<typeof checkArgs>;

/** The layer's own options, each with a value or null, as a config holds them. */
export function checkArgs(args: MixtureOfExpertsArgs, opName: string) {
  type Known = MixtureOfExpertsArgs & {customObjects?: unknown};
  assert(args != null, opName, () => 'its arguments must have numExperts and intermediateSize, but are not given.');
  const given = checkOptions<Known>(args, argNames, opName) as MixtureOfExpertsArgs;
  const {numExperts, intermediateSize} = given;
  assertPositiveInteger(numExperts, 'numExperts', opName);
  assertPositiveInteger(intermediateSize, 'intermediateSize', opName);

  const {numExpertGroups, topkGroups} = given;
  const {topk, scoring, renormalize, routedScalingFactor} = checkRouting(
    numExperts,
    given.topk ?? 2,
    {...given, scoring: toCamelCase(given.scoring)},
    opName,
  );
  const activation = toCamelCase(given.activation) ?? 'silu';
  const {gated} = checkActivation({activation, gated: given.gated ?? true}, opName);
  const boolean = (name: BooleanName) => checkBoolean(given[name], name, opName);
  const amount = (name: AmountName, byDefault: number) => checkAmount(given[name] ?? byDefault, name, opName);
  return {
    numExperts,
    intermediateSize,
    topk,
    scoring,
    renormalize,
    numExpertGroups: numExpertGroups ?? null,
    topkGroups: topkGroups ?? null,
    routedScalingFactor,
    activation,
    gated,
    useBias: boolean('useBias'),
    useRouterBias: boolean('useRouterBias'),
    ...checkSharedExperts(given, opName),
    loadBalancingLossWeight: amount('loadBalancingLossWeight', 0.01),
    routerZLossWeight: amount('routerZLossWeight', 0),
    ...checkScoreCorrection(given, scoring, opName),
    ...checkJitter(given, opName),
    ...checkCapacity(given, opName),
  };
}

type BooleanName = 'useBias' | 'useRouterBias';
type AmountName = 'loadBalancingLossWeight' | 'routerZLossWeight';

function checkAmount(value: number, argName: string, opName: string): number {
  assert(
    Number.isFinite(value) && value >= 0,
    opName,
    () => `${argName} must be a number of at least 0, but is ${String(value)}.`,
  );
  return value;
}

function checkSharedExperts(given: MixtureOfExpertsArgs, opName: string) {
  const checkCount = (value: number, argName: string) => {
    assert(
      Number.isInteger(value) && value >= 0,
      opName,
      () => `${argName} must be an integer of at least 0, but is ${String(value)}.`,
    );
    return value;
  };
  const numSharedExperts = checkCount(given.numSharedExperts ?? 0, 'numSharedExperts');
  const byDefault = numSharedExperts * given.intermediateSize;
  const sharedIntermediateSize = checkCount(given.sharedIntermediateSize ?? byDefault, 'sharedIntermediateSize');
  assert(
    numSharedExperts === 0 || sharedIntermediateSize > 0,
    opName,
    () => `sharedIntermediateSize must be positive for numSharedExperts = ${numSharedExperts}, but is 0.`,
  );
  const sharedExpertGate = checkBoolean(given.sharedExpertGate, 'sharedExpertGate', opName);
  assert(
    !sharedExpertGate || sharedIntermediateSize > 0,
    opName,
    () => 'sharedExpertGate takes shared experts: numSharedExperts or sharedIntermediateSize must be positive.',
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
    !useScoreCorrectionBias || scoring !== 'softmaxAfterTopk',
    opName,
    () =>
      'useScoreCorrectionBias and scoreCorrectionBiasUpdateRate must not be given with scoring ' +
      "'softmaxAfterTopk', which has no scores before the choice that a bias could correct.",
  );
  return {useScoreCorrectionBias, scoreCorrectionBiasUpdateRate};
}

function checkJitter(given: MixtureOfExpertsArgs, opName: string) {
  const routerJitter = checkAmount(given.routerJitter ?? 0, 'routerJitter', opName);
  assert(routerJitter < 1, opName, () => `routerJitter must be less than 1, but is ${routerJitter}.`);
  const seed = given.seed ?? null;
  assert(seed == null || Number.isFinite(seed), opName, () => `seed must be a number, but is ${String(seed)}.`);
  return {routerJitter, seed};
}

function checkCapacity(given: MixtureOfExpertsArgs, opName: string) {
  const capacityFactor = given.capacityFactor ?? null;
  assert(
    capacityFactor == null || (Number.isFinite(capacityFactor) && capacityFactor > 0),
    opName,
    () => `capacityFactor must be a positive number, but is ${String(capacityFactor)}.`,
  );
  const dropPolicy = toCamelCase(given.dropPolicy) ?? 'probability';
  assert(
    dropPolicies.includes(dropPolicy),
    opName,
    () => `dropPolicy must be one of ${dropPolicies.join(', ')}, but is ${String(dropPolicy)}.`,
  );
  return {capacityFactor, dropPolicy};
}
