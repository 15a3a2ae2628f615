/** Gradients of experts that one kernel computes are those that have gradients of their own. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectWithin} from '../support/expect';
import {caseOf} from '../support/fused_cases';

const sizes = {T: 5, K: 3, E: 4, H: 4, I: 4};
const forms = [
  ...(['linear', 'relu', 'relu2', 'silu', 'gelu', 'geluTanh', 'swigluOai'] as const).map((activation) =>
    ({activation, gated: true, gateUp: 'concatenated' as const, weightFormat: 'outIn' as const})),
  {activation: 'swigluOai', gated: true, gateUp: 'interleaved', weightFormat: 'inOut', swigluLimit: 0.5},
  {activation: 'silu', gated: false, weightFormat: 'outIn'},
] as const;

/** More columns than a workgroup has threads. */
const wide = {...sizes, I: 70};

describeWithFlags('gradients of fusedExperts', ALL_ENVS, () => {
  for (const [options, of] of [...forms.map((form) => [form, sizes] as const), [forms[3], wide] as const]) {
    it(`are the same with and without a second gradient: ${JSON.stringify(options)}, I = ${of.I}`, async () => {
      // Ids of no expert, of an expert that is not local, and of one expert twice.
      const {ids, ...given} = caseOf(of, options);
      const topkIds = [[-1, 0, 0], ...ids.slice(1)];
      const expertMap = [2, 0, -1, 1];
      const local = [given.w1, given.w2, given.w1Bias, given.w2Bias].map((weights) => tf.tensor(weights.slice(0, 3)));
      const xs = [tf.tensor(given.x), tf.tensor(given.topkWeights), ...local];
      const dy = tf.tensor(caseOf(of, {}, 7).x);
      const f = (...[x, topkWeights, w1, w2, w1Bias, w2Bias]: tf.Tensor[]) =>
        tf.fusedExperts(x, w1, w2, topkWeights, topkIds, {...options, expertMap, w1Bias, w2Bias});
      const once = tf.grads(f)(xs, dy);
      let recorded: tf.Tensor[] = [];
      tf.grad((x: tf.Tensor) => {
        recorded = tf.grads(f)([x, ...xs.slice(1)], dy).map((gradient) => tf.keep(gradient));
        return tf.sum(recorded[1]);
      })(xs[0]);
      for (const [i, gradient] of once.entries()) {
        const wanted = Float32Array.from(await recorded[i].data());
        await expectWithin(gradient, wanted, (_, value) => 1e-5 * Math.max(1, Math.abs(value)), `by input ${i}`);
      }
      tf.dispose(recorded);
    });
  }
});
