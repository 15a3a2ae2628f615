/** fusedMoe and fusedExperts against the loops, for any small sizes and any options. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as fc from 'fast-check';
import * as tf from '../../src/tf';
import {expectWithin} from '../support/expect';
import {caseOf, type Sizes, tensors} from '../support/fused_cases';
import {naiveFusedExperts} from '../naive/fused_experts';
import {naiveFusedMoe} from '../naive/fused_moe';
import {lcg} from '../support/routings';

const anySizes = fc
  .record({
    T: fc.integer({min: 1, max: 6}),
    E: fc.integer({min: 1, max: 9}),
    H: fc.integer({min: 1, max: 9}),
    I: fc.integer({min: 1, max: 6}),
  })
  .chain((sizes) => fc.integer({min: 1, max: sizes.E}).map((K): Sizes => ({...sizes, K})));

const anyExpertOptions = fc
  .record({
    activation: fc.constantFrom('linear', 'relu', 'relu2', 'silu', 'swish', 'gelu', 'geluTanh', 'geluNew', 'swigluOai'),
    gated: fc.boolean(),
    gateUp: fc.constantFrom('concatenated', 'interleaved'),
    weightFormat: fc.constantFrom('outIn', 'inOut'),
    applyRouterWeightOnInput: fc.boolean(),
    swigluLimit: fc.constantFrom(0.25, 7),
    numZeroExperts: fc.constantFrom(0, 0, 1, 3),
  })
  .map((options) => ({...options, gated: options.gated || options.activation === 'swigluOai'}));

/** The other draws of experts: which are local, how many tensors their weights have, whether they have biases. */
const anyExperts = fc.record({withBiases: fc.boolean(), inParts: fc.boolean(), numHidden: fc.nat({max: 3}), seed: fc.nat()});

const anyRouter = fc.record({
  scoring: fc.constantFrom('softmax', 'softmaxAfterTopk', 'sigmoid', 'sqrtSoftplus'),
  renormalize: fc.boolean(),
  routedScalingFactor: fc.constantFrom(1, 2.5),
  withBias: fc.boolean(),
  inGroups: fc.boolean(),
});

/** The drawn experts as numbers and as arguments. The last numHidden of E are on no shard. */
function drawn(sizes: Sizes, options: object, {withBiases, inParts, numHidden, seed}: {
  withBiases: boolean;
  inParts: boolean;
  numHidden: number;
  seed: number;
}) {
  const {w1Bias, w2Bias, ...fused} = caseOf(sizes, options, seed);
  const numHere = Math.max(1, sizes.E - numHidden);
  const here = <V>(values: V[]) => values.slice(0, numHere);
  const experts = {
    ...fused,
    w1: here(fused.w1),
    w2: here(fused.w2),
    ...(withBiases ? {w1Bias: here(w1Bias), w2Bias: here(w2Bias)} : {}),
    expertMap: fused.expertMap.map((e) => (e < numHere ? numHere - 1 - e : -1)),
  };
  const {x, topkWeights, w1, w2} = tensors(experts, sizes);
  const weights = (tensor: tf.Tensor): tf.MoeExpertWeights =>
    inParts && numHere > 1 ? tf.split(tensor, [1, numHere - 1]) : tensor;
  const {expertMap, w1Bias: b1, w2Bias: b2} = {w1Bias: undefined, w2Bias: undefined, ...experts};
  return {experts, x, topkWeights, w1: weights(w1), w2: weights(w2), given: {expertMap, w1Bias: b1, w2Bias: b2}};
}

const isNear = (magnitudes: number[]) => (i: number) => 2e-5 * magnitudes[i] + 1e-5;

describeWithFlags('any experts', ALL_ENVS, (env) => {
  const runs = {numRuns: env.backendName.startsWith('web') ? 6 : 60};

  it('fusedMoe is the naive computation', () =>
    fc.assert(
      fc.asyncProperty(anySizes, anyRouter, anyExpertOptions, anyExperts, async (sizes, router, options, others) => {
        const {withBias, inGroups, ...scoringOptions} = router;
        const {experts, x, w1, w2, given} = drawn(sizes, options, others);
        const {T, K} = sizes;
        const E = sizes.E + options.numZeroExperts;
        const next = lcg(others.seed);
        const logits = Array.from({length: T}, () => Array.from({length: E}, () => Math.fround(6 * next() - 3)));
        // Far apart, so that float32 and float64 choose the same experts.
        const scoreCorrectionBias = withBias && router.scoring !== 'softmaxAfterTopk'
          ? Array.from({length: E}, (_, e) => 8 * 2 ** ((e + others.seed) % E))
          : undefined;
        const groups = inGroups && E % 2 === 0 && 2 * K <= E ? {numExpertGroups: 2, topkGroups: 1} : {};
        const topkOptions = {...scoringOptions, scoreCorrectionBias, ...groups};

        const out = tf.fusedMoe(x, w1, w2, logits, K, {...topkOptions, ...options, ...given} as tf.FusedMoeOptions);
        const {values, magnitudes} = naiveFusedMoe(
          experts,
          logits,
          {topk: K, ...topkOptions} as Parameters<typeof naiveFusedMoe>[2],
          options as tf.FusedExpertsOptions,
        );
        await expectWithin(out, values, isNear(magnitudes), 'fusedMoe');
      }),
      runs,
    ));

  it('fusedExperts is the naive computation, whatever the ids', () =>
    fc.assert(
      fc.asyncProperty(anySizes, anyExpertOptions, anyExperts, async (sizes, options, others) => {
        const {experts, x, topkWeights, w1, w2, given} = drawn(sizes, options, others);
        const {T, E, K} = sizes;
        const next = lcg(others.seed);
        const outside = [-(2 ** 31), -1, E, 2 ** 24 + 2, 2 ** 31 - 1];
        const ids = Array.from({length: T}, () => Array.from({length: K}, () =>
          next() < 0.7 ? Math.floor(next() * E) : outside[Math.floor(next() * outside.length)]));
        const out = tf.fusedExperts(x, w1, w2, topkWeights, ids, {...options, ...given} as tf.FusedExpertsOptions);
        const {values, magnitudes} = naiveFusedExperts({...experts, ids}, options as tf.FusedExpertsOptions);
        await expectWithin(out, values, isNear(magnitudes), 'fusedExperts');
      }),
      runs,
    ));
});
