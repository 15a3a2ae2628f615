/** fusedExperts of one or two tokens, which a kernel of its own runs without a sort. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectFloats, expectWithin} from '../support/expect';
import {caseOf, type Sizes, tensors} from '../support/fused_cases';
import {naiveFusedExperts, type NaiveFusedOptions} from '../naive/fused_experts';

const options: NaiveFusedOptions[] = [
  {},
  {gated: false, activation: 'gelu'},
  {gateUp: 'interleaved', activation: 'swigluOai', swigluLimit: 0.5},
  {weightFormat: 'inOut', activation: 'geluTanh'},
  {weightFormat: 'inOut', gateUp: 'interleaved'},
];

async function expectRight(sizes: Sizes, given: NaiveFusedOptions): Promise<void> {
  const fused = caseOf(sizes, given);
  const {x, ids, topkWeights, w1, w2} = tensors(fused, sizes);
  const biases = {w1Bias: tf.tensor2d(fused.w1Bias!), w2Bias: tf.tensor2d(fused.w2Bias!)};
  const out = tf.fusedExperts(x, w1, w2, topkWeights, ids, {...given, ...biases});
  const {values, magnitudes} = naiveFusedExperts({...fused, expertMap: undefined}, given);
  await expectWithin(out, values, (i) => 2e-5 * magnitudes[i] + 1e-5, JSON.stringify({sizes, given}));
}

describeWithFlags('fusedExperts of few tokens', ALL_ENVS, () => {
  for (const sizes of [
    {T: 1, K: 1, E: 1, H: 4, I: 4},
    {T: 2, K: 2, E: 3, H: 7, I: 3},
    {T: 2, K: 4, E: 9, H: 36, I: 20},
    {T: 1, K: 11, E: 12, H: 8, I: 4},
    {T: 1, K: 3, E: 4, H: 260, I: 132},
  ]) {
    it(`is the sum over slots: ${JSON.stringify(sizes)}`, async () => {
      for (const given of options) {
        await expectRight(sizes, given);
      }
    });
  }

  it('reads nothing of a slot whose expert is not here', async () => {
    const w1 = tf.tensor3d([[[1, 0], [0, 1]], [[NaN, NaN], [NaN, NaN]]]);
    const w2 = tf.tensor3d([[[2], [3]], [[NaN], [NaN]]]);
    const weights = [[1, NaN, NaN, NaN], [NaN, NaN, NaN, NaN]];
    const ids = [[2, 0, -1, 7], [0, 1, 3, -5]];
    const x = tf.tensor2d([[1, 1], [NaN, Infinity]]);
    // Expert 2 is the local 0; experts 0, 1 and 3 are elsewhere.
    const out = tf.fusedExperts(x, w1, w2, weights, ids, {expertMap: [-1, -1, 0, 5], activation: 'linear'});
    await expectFloats(out, [2, 3, 0, 0], 'out');
  });

  it('gives the same bits on every call', async () => {
    const sizes = {T: 2, K: 8, E: 16, H: 64, I: 32};
    const {x, ids, topkWeights, w1, w2} = tensors(caseOf(sizes), sizes);
    const run = async () => Array.from(await tf.fusedExperts(x, w1, w2, topkWeights, ids).data());
    const first = await run();
    for (let call = 0; call < 3; call++) {
      expect(await run()).toEqual(first);
    }
  });
});
