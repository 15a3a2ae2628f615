/**
 * The net of examples/digits as a function of its weights and of a visitor's settings: each patch of a digit is a token
 * of a mixture of experts, and a dense layer reads the digit from all of them.
 */
import * as tf from '@tensorflow/tfjs-core';
import {NUM_CLASSES, NUM_PATCHES, PATCH_PIXELS} from '../../examples/digits/digits';
import {dropOverCapacity, expertCapacity} from '../../src/layers/expert_capacity';
import {fusedExperts, moeLoadBalancingLoss, moeTopk} from '../../src/ops/index';
import {fixed} from '../../src/smooth_ops';
import {editedExperts, type ExpertWeights, silenceOf} from './edited_experts';
import {NUM_EXPERTS, type Settings} from './settings';

const HIDDEN_SIZE = 32;
const EXPERT_SIZE = 16;
const NUM_FEATURES = 32;

/** The weights in the order of the model of examples/digits. */
export const weightShapes = {
  embed: [PATCH_PIXELS, HIDDEN_SIZE],
  embedBias: [HIDDEN_SIZE],
  router: [HIDDEN_SIZE, NUM_EXPERTS],
  w1: [NUM_EXPERTS, EXPERT_SIZE, HIDDEN_SIZE],
  w2: [NUM_EXPERTS, HIDDEN_SIZE, EXPERT_SIZE],
  features: [NUM_PATCHES * HIDDEN_SIZE, NUM_FEATURES],
  featuresBias: [NUM_FEATURES],
  classes: [NUM_FEATURES, NUM_CLASSES],
  classesBias: [NUM_CLASSES],
} as const;

export type WeightName = keyof typeof weightShapes;
export const weightNames = Object.keys(weightShapes) as WeightName[];
export type NetWeights = Record<WeightName, tf.Variable>;
export type WeightValues = Record<WeightName, Float32Array>;

export const makeWeights = (values: WeightValues): NetWeights =>
  Object.fromEntries(
    weightNames.map((name) => [
      name,
      tf.tidy(() => tf.variable(tf.tensor(values[name], [...weightShapes[name]], 'float32'))),
    ]),
  ) as NetWeights;

/** New weights, by Glorot's uniform distribution as in examples/digits. Biases are 0. */
export function newWeightValues(random: () => number): WeightValues {
  const valuesOf = (shape: readonly number[]): Float32Array => {
    const values = new Float32Array(tf.util.sizeFromShape([...shape]));
    const [fanIn, fanOut] = shape.slice(-2);
    const limit = Math.sqrt(6 / (fanIn + fanOut));
    return shape.length === 1 ? values : values.map(() => limit * (2 * random() - 1));
  };
  return Object.fromEntries(weightNames.map((name) => [name, valuesOf(weightShapes[name])])) as WeightValues;
}

export type RouteOptions = {
  /** As in the settings. Default 0. */
  jitter?: number;
  /** [E]: added to the router's probabilities for the choice alone. Default: none. */
  scoreCorrectionBias?: tf.Tensor1D;
};

export type Routing = {
  /** [T, H]: what the router and the experts read. */
  tokens: tf.Tensor2D;
  routerLogits: tf.Tensor2D;
  topkIds: tf.Tensor2D;
  topkWeights: tf.Tensor2D;
  /** topkIds with -1 for each patch past the capacity of its expert. */
  keptIds: tf.Tensor2D;
};

/** From patches [T, PATCH_PIXELS] to experts. Call it within tf.tidy, as the functions below. */
export function route(
  weights: NetWeights,
  patches: tf.Tensor2D,
  settings: Settings,
  options: RouteOptions = {},
): Routing {
  const {topk, capacityFactor, silenced} = settings;
  const {jitter = 0, scoreCorrectionBias} = options;
  const tokens = tf.relu(tf.add(tf.matMul(patches, weights.embed as tf.Tensor2D), weights.embedBias)) as tf.Tensor2D;
  const seen = jitter === 0 ? tokens : tf.mul(tokens, tf.randomUniform(tokens.shape, 1 - jitter, 1 + jitter));
  const silence = silenceOf(settings);
  const routerLogits: tf.Tensor2D = tf.add(tf.matMul(seen as tf.Tensor2D, weights.router as tf.Tensor2D), silence);
  const {topkIds, topkWeights} = moeTopk(routerLogits, topk, {
    renormalize: topk > 1,
    scoreCorrectionBias: scoreCorrectionBias && tf.add(scoreCorrectionBias, silence),
  });
  // More slots than experts that speak leave some for silenced experts.
  const heardIds =
    silenced.filter((isSilenced) => !isSilenced).length < topk ? withoutSilenced(topkIds, silenced) : topkIds;
  const keptIds =
    capacityFactor == null
      ? heardIds
      : dropOverCapacity(heardIds, topkWeights, expertCapacity(patches.shape[0], topk, NUM_EXPERTS, capacityFactor), {
          numExperts: NUM_EXPERTS,
          numZeroExperts: 0,
          dropPolicy: 'probability',
        });
  return {tokens, routerLogits, topkIds: heardIds, topkWeights, keptIds};
}

/** The choice is held fixed in a gradient, as moeTopk's. */
function withoutSilenced(topkIds: tf.Tensor2D, silenced: boolean[]): tf.Tensor2D {
  const experts = silenced.flatMap((isSilenced, expert) => (isSilenced ? [expert] : []));
  const noExperts = () => tf.fill<tf.Rank.R2>(topkIds.shape, -1, 'int32');
  return fixed(() =>
    experts.reduce((ids, expert) => tf.where(tf.equal(ids, tf.scalar(expert, 'int32')), noExperts(), ids), topkIds),
  ) as tf.Tensor2D;
}

/** The logits of digits [B, NUM_CLASSES] from their routed patches. */
export function classify(
  weights: NetWeights,
  {tokens, topkWeights, keptIds}: Routing,
  settings: Settings,
): tf.Tensor2D {
  const {w1, w2} = editedExperts(weights as Pick<NetWeights, 'w1' | 'w2'> as ExpertWeights, settings);
  const experts = fusedExperts(tokens, w1, w2, topkWeights, keptIds, {activation: 'relu', gated: false});
  const mixed = tf.reshape<tf.Rank.R2>(tf.add(tokens, experts), [-1, NUM_PATCHES * HIDDEN_SIZE]);
  const features = tf.relu(tf.add(tf.matMul(mixed, weights.features as tf.Tensor2D), weights.featuresBias));
  return tf.add(tf.matMul(features as tf.Tensor2D, weights.classes as tf.Tensor2D), weights.classesBias);
}

export type Losses = {loss: tf.Scalar; balancingLoss: tf.Scalar; keptIds: tf.Tensor2D; topkIds: tf.Tensor2D};

/** The cross-entropy of a batch, and its balancing loss without its factor. */
export function lossesOf(
  weights: NetWeights,
  patches: tf.Tensor2D,
  targets: tf.Tensor2D,
  settings: Settings,
  scoreCorrectionBias?: tf.Tensor1D,
): Losses {
  const routing = route(weights, patches, settings, {jitter: settings.jitter, scoreCorrectionBias});
  const logits = classify(weights, routing, settings);
  const loss: tf.Scalar = tf.mean(tf.sub(tf.logSumExp(logits, 1), tf.sum(tf.mul(logits, targets), 1)));
  const balancingLoss = moeLoadBalancingLoss(routing.routerLogits, routing.topkIds);
  return {loss, balancingLoss, keptIds: routing.keptIds, topkIds: routing.topkIds};
}
