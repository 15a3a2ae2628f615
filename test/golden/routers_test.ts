/** The routers of other systems, expressed by the options of moeTopk, and their losses. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectInts, expectWithin} from '../support/expect';
import {naiveWeights} from '../naive/topk';
import losses from './router_losses.json';
import routers from './routers.json';
import transformers from './transformers_routers.json';

type Encoded = {shape: number[]; data?: number[]; fill?: number};
type RouterCase = {
  name: string;
  params: {
    k: number;
    score_function: 'softmax' | 'sigmoid' | 'sqrtsoftplus';
    score_before_topk: boolean;
    renormalize: boolean;
    scaling_factor: number;
    n_group?: number;
    topk_group?: number;
  };
  inputs: {logits: Encoded; selection_bias?: Encoded};
  expected: {topk_ids: Encoded; topk_weights: Encoded};
};

const cases = routers.cases as RouterCase[];
const [numbersCase, uniformCase] = losses.cases as unknown as Array<{
  inputs: {logits: Encoded; k: number};
  expected: Record<string, Encoded> & Record<string, number>;
}>;
const tensorOf = ({shape, data, fill}: Encoded) =>
  (data == null ? tf.fill(shape as [number, number], fill!) : tf.tensor2d(data, shape as [number, number]));
const bound = (_: number, wanted: number) => 1e-5 * Math.abs(wanted) + 1e-6;

const scoringOf = ({score_function: name, score_before_topk: before}: RouterCase['params']): tf.MoeTopkScoring =>
  name === 'softmax' && !before ? 'softmaxAfterTopk' : name === 'sqrtsoftplus' ? 'sqrtSoftplus' : name;

describeWithFlags('routers of other systems', ALL_ENVS, () => {
  for (const {name, params, inputs, expected} of cases) {
    it(name, async () => {
      const {topkIds, topkWeights} = tf.moeTopk(tensorOf(inputs.logits), params.k, {
        scoring: scoringOf(params),
        renormalize: params.renormalize,
        scoreCorrectionBias: inputs.selection_bias?.data,
        numExpertGroups: params.n_group,
        topkGroups: params.topk_group,
        routedScalingFactor: params.scaling_factor,
      });
      await Promise.all([
        expectInts(topkIds, expected.topk_ids.data!, 'ids'),
        expectWithin(topkWeights, expected.topk_weights.data!, bound, 'weights'),
      ]);
    });
  }
});

/** Routers of tiny models that transformers made and ran, which gives the chosen experts in any order. */
describeWithFlags('routers of transformers', ALL_ENVS, () => {
  const byId = (ids: ArrayLike<number>, weights: ArrayLike<number>, topk: number) =>
    Array.from({length: ids.length / topk}, (_, t) =>
      Array.from({length: topk}, (__, k) => ({id: ids[t * topk + k], weight: weights[t * topk + k]}))
        .sort((a, b) => a.id - b.id)).flat();

  for (const {name, options, numExperts, topk, logits, topkIds, topkWeights, bias} of transformers.cases) {
    it(name, async () => {
      const given = tf.moeTopk(tf.tensor2d(logits, [logits.length / numExperts, numExperts]), topk, {
        ...(options as tf.MoeTopkOptions),
        scoreCorrectionBias: bias,
      });
      const wanted = byId(topkIds, topkWeights, topk);
      const sorted = byId(await given.topkIds.data(), await given.topkWeights.data(), topk);
      expect(sorted.map(({id}) => id)).toEqual(wanted.map(({id}) => id));
      await expectWithin(tf.tensor1d(sorted.map(({weight}) => weight)), wanted.map(({weight}) => weight), bound, 'weights');
    });
  }
});

/** The inputs of TransformerEngine's router tests. They have no ties, but values that are close together. */
describeWithFlags('routers on the logits of TransformerEngine', ALL_ENVS, () => {
  const [numTokens, numExperts, topk] = [48, 128, 8];
  const upTo = (count: number) => Array.from({length: count}, (_, i) => i);
  const expectRouted = async (logits: number[][], ids: number[], options: tf.MoeTopkOptions) => {
    const {topkIds, topkWeights} = tf.moeTopk(logits, topk, options);
    await expectInts(topkIds, logits.map(() => ids), 'ids');
    const scoring = options.scoring ?? 'softmax';
    const weights = logits.map((row) => naiveWeights(row.map(Math.fround), ids, {topk, scoring}));
    await expectWithin(topkWeights, weights, bound, 'weights');
  };

  it('softmax', async () => {
    const logits = upTo(numTokens).map((t) =>
      upTo(numExperts).map((e) => (t * numExperts + e - (numTokens * numExperts) / 2) * 1e-4));
    await expectRouted(logits, upTo(topk).map((k) => numExperts - 1 - k), {});
  });

  for (const scoring of ['sigmoid', 'sqrtSoftplus'] as const) {
    it(`${scoring} and a bias that reverses the order`, async () => {
      const logits = upTo(numTokens).map((t) =>
        upTo(numExperts).map((e) => (e - numExperts / 2) * 1e-2 + (t - numTokens / 2) * 1e-4));
      const scoreCorrectionBias = upTo(numExperts).map((e) => (numExperts - 1 - e) * 0.1);
      await expectRouted(logits, upTo(topk), {scoring, scoreCorrectionBias});
    });
  }
});

describeWithFlags('router losses of other systems', ALL_ENVS, () => {
  const {inputs, expected} = numbersCase;
  const logits = () => tensorOf(inputs.logits);
  const ids = () => tf.moeTopk(logits(), inputs.k).topkIds;
  /** probs * (dProbs - the mean of dProbs): the gradient that passes the softmax. */
  const throughSoftmax = (dProbabilities: number[]): number[] => {
    const [, numExperts] = inputs.logits.shape;
    return expected.probs.data!.map((p, i, all) => {
      const first = i - (i % numExperts);
      const mean = all.slice(first, first + numExperts).reduce((sum, q, e) => sum + q * dProbabilities[first + e], 0);
      return p * (dProbabilities[i] - mean);
    });
  };

  it('moeLoadBalancingLoss', async () => {
    await expectInts(ids(), expected.topk_ids.data!, 'ids');
    for (const name of ['switch_megatron_te', 'megablocks_one_layer', 'deepspeed_topk']) {
      await expectWithin(tf.moeLoadBalancingLoss(logits(), ids()), [expected[name]], bound, name);
    }
    const first = tf.slice(ids(), [0, 0], [-1, 1]);
    await expectWithin(tf.moeLoadBalancingLoss(logits(), first), [expected.deepspeed_top1], bound, 'deepspeed_top1');
    // The loss of transformers is K at balance.
    const [hf, masked] = [expected.huggingface_load_balancing_loss_func, expected.huggingface_with_attention_mask_1110];
    await expectWithin(tf.moeLoadBalancingLoss(logits(), ids()), [hf / inputs.k], bound, 'transformers');
    const mask = [1, 1, 1, 0];
    await expectWithin(tf.moeLoadBalancingLoss(logits(), ids(), {mask}), [masked / inputs.k], bound, 'transformers, masked');
  });

  it('moeLoadBalancingLoss, gradient', async () => {
    const gradient = tf.grad((x: tf.Tensor) => tf.moeLoadBalancingLoss(x, tf.moeTopk(x, inputs.k).topkIds))(logits());
    await expectWithin(gradient, throughSoftmax(expected.grad_probs_switch.data!), bound, 'gradient');
  });

  it('moeRouterZLoss, and its gradient', async () => {
    await expectWithin(tf.moeRouterZLoss(logits()), [expected.z_loss_mean_square_logsumexp], bound, 'z-loss');
    const gradient = tf.grad((x: tf.Tensor) => tf.moeRouterZLoss(x))(logits());
    await expectWithin(gradient, expected.grad_logits_zloss.data!, bound, 'gradient');
  });

  it('at perfect balance', async () => {
    const uniform = tensorOf(uniformCase.inputs.logits);
    const balanced = [[0, 1], [2, 3], [0, 1], [2, 3], [0, 1], [2, 3], [0, 1], [2, 3]];
    const wanted = [uniformCase.expected.switch_megatron_te];
    for (const scoring of ['softmax', 'softmaxAfterTopk', 'sigmoid', 'sqrtSoftplus'] as const) {
      await expectWithin(tf.moeLoadBalancingLoss(uniform, balanced, {scoring}), wanted, bound, scoring);
    }
    await expectWithin(tf.moeRouterZLoss(uniform), [uniformCase.expected.z], bound, 'z-loss');
  });
});
