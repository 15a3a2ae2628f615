/**
 * The weights of the layer: their names, shapes and order, and how the objects of tf.layers see one expert at a time.
 */
import {type serialization, stack, type Tensor, tidy, transpose, unstack} from '@tensorflow/tfjs-core';
import type {MixtureOfExpertsOptions, weightArgParts} from './mixture_of_experts_options';
import {seedOf} from './seeds';
import {type Constraint, type Initializer, type PartsOf, type WeightSpec, zeroInitializer} from './weight_parts';
import type {LayerWeightName, WeightName} from '../contract/block_weights';
import {expertFormatNames} from './expert_format';
import {codesSpecs, weightFormatOf} from './weight_format';

type WeightParts = PartsOf<typeof weightArgParts>;

type ExpertWeightSpec = WeightSpec<LayerWeightName>;

/** The weights for these options, in the order of weightNames, with quantizedWeightNames in place of w1 and w2. */
export function weightSpecs(
  options: MixtureOfExpertsOptions,
  parts: WeightParts,
  hiddenSize: number,
): ExpertWeightSpec[] {
  const {numExperts: E, intermediateSize: I, sharedIntermediateSize: F} = options;
  const numRouted = E + options.numZeroExperts;
  const gateAndUp = options.gated ? 2 : 1;
  const kernel = {regularizer: parts.kernelRegularizer, constraint: parts.kernelConstraint};
  const bias = {regularizer: parts.biasRegularizer, constraint: parts.biasConstraint};
  // With a seed, each matrix draws with a seed of its own: equal experts would stay equal.
  const seeds = {w1: 0, w1Bias: 0, w2: E, w2Bias: E, sharedW1: 2 * E, sharedW2: 2 * E + 1, sharedGate: 2 * E + 2};
  const kernelInitializer = (seed: number) => withSeedOf(parts.kernelInitializer, seed);
  const trainableExperts = (name: WeightName, shape: number[], seed: number): ExpertWeightSpec => ({
    name,
    shape,
    ...kernel,
    initializer: perExpert(parts.kernelInitializer, (e, one) => drawOutIn(kernelInitializer(seed + e), one)),
    constraint: kernel.constraint && mapExperts((weight) => constrainOutIn(kernel.constraint!, weight)),
  });
  const experts = (name: 'w1' | 'w2', shape: number[], seed: number): ExpertWeightSpec[] =>
    options.expertFormat === 'float32'
      ? [trainableExperts(name, shape, seed)]
      : codesSpecs(name, shape, weightFormatOf(options, expertFormatNames));
  const expertBias = (name: WeightName, shape: number[], seed: number): ExpertWeightSpec => ({
    name,
    shape,
    ...bias,
    initializer: perExpert(parts.biasInitializer, (e, one) =>
      withSeedOf(parts.biasInitializer, seed + e).apply(one, 'float32'),
    ),
    constraint: bias.constraint && mapExperts((weight) => bias.constraint!.apply(weight)),
  });
  const shared = (name: WeightName, shape: number[], seed: number): ExpertWeightSpec => ({
    name,
    shape,
    ...kernel,
    initializer: unlessConstant(parts.kernelInitializer, (one) => drawOutIn(kernelInitializer(seed), one)),
    constraint: kernel.constraint && {apply: (weight) => constrainOutIn(kernel.constraint!, weight)},
  });

  const specs: Array<ExpertWeightSpec | false> = [
    {name: 'router_kernel', shape: [hiddenSize, numRouted], initializer: parts.routerInitializer, ...kernel},
    options.useRouterBias && {name: 'router_bias', shape: [numRouted], initializer: parts.biasInitializer, ...bias},
    ...experts('w1', [E, gateAndUp * I, hiddenSize], seeds.w1),
    options.useBias && expertBias('w1_bias', [E, gateAndUp * I], seeds.w1Bias),
    ...experts('w2', [E, hiddenSize, I], seeds.w2),
    options.useBias && expertBias('w2_bias', [E, hiddenSize], seeds.w2Bias),
    F > 0 && shared('shared_w1', [gateAndUp * F, hiddenSize], seeds.sharedW1),
    F > 0 && shared('shared_w2', [hiddenSize, F], seeds.sharedW2),
    options.sharedExpertGate && {
      name: 'shared_gate',
      shape: [hiddenSize, 1],
      initializer: kernelInitializer(seeds.sharedGate),
      ...kernel,
    },
    options.useScoreCorrectionBias && {
      name: 'score_correction_bias',
      shape: [numRouted],
      initializer: zeroInitializer,
      trainable: false,
    },
  ];
  return specs.filter((spec) => spec !== false);
}

/** `draw`, except for an initializer of one value, which costs nothing: such a layer is made to be filled later. */
const unlessConstant = (
  initializer: Initializer,
  draw: (shape: number[]) => Tensor,
): ExpertWeightSpec['initializer'] =>
  ['Zeros', 'Ones', 'Constant'].includes(initializer.getClassName()) ? initializer : {apply: draw};

/** An initializer of [experts, ...] that draws each expert separately. */
const perExpert = (initializer: Initializer, draw: (expert: number, shape: number[]) => Tensor) =>
  unlessConstant(initializer, ([numExperts, ...shape]) =>
    tidy(() => stack(Array.from({length: numExperts}, (_, e) => draw(e, shape)))),
  );

const mapExperts = (constrain: (weight: Tensor) => Tensor): Constraint => ({
  apply: (weight) => tidy(() => stack(unstack(weight).map(constrain))),
});

/** Draws as [in, out], because tf.layers computes fans and norms from kernels of that shape. */
function drawOutIn(initializer: Initializer, [numOut, numIn]: number[]): Tensor {
  return tidy(() => transpose(initializer.apply([numIn, numOut], 'float32')));
}

function constrainOutIn(constraint: Constraint, weight: Tensor): Tensor {
  return tidy(() => transpose(constraint.apply(transpose(weight))));
}

function withSeedOf(initializer: Initializer, index: number): Initializer {
  const config = initializer.getConfig();
  if (typeof config.seed !== 'number') {
    return initializer;
  }
  const InitializerClass = initializer.constructor as new (config: serialization.ConfigDict) => Initializer;
  return new InitializerClass({...config, seed: seedOf(config.seed, index)});
}
