/** As test/ops/long_sums_test.ts: sums of very many terms have an error of at most 64 * 2^-24 of sum|terms|. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectWithin} from '../support/expect';

const CONSTANT = Math.fround(0.17222);
const BOUND = 64 * 2 ** -24;

describeWithFlags('sums of very many terms in mixtureOfExperts', ALL_ENVS, () => {
  it('of constants: gradients of its router', async () => {
    const numTokens = 32_768;
    const layer = tf.layers.mixtureOfExperts({
      numExperts: 2, intermediateSize: 1, topk: 1, useRouterBias: true, loadBalancingLossWeight: 0, routerZLossWeight: 1,
      kernelInitializer: 'zeros', routerInitializer: 'zeros',
    });
    const x = tf.fill([numTokens, 1], CONSTANT);
    layer.build([null, 1]);
    const [kernel, bias] = layer.weights.map((weight) => weight.read() as tf.Variable);
    const {grads} = tf.variableGrads(() => {
      layer.apply(x, {training: true});
      return layer.calculateLosses()[0];
    }, [kernel, bias]);
    // Both logits are 0, so that their logsumexp is ln 2.
    const bound = (_: number, wanted: number) => BOUND * wanted;
    const wanted = [Math.LN2, Math.LN2];
    await expectWithin(grads[bias.name], wanted, bound, 'bias');
    await expectWithin(grads[kernel.name], wanted.map((value) => CONSTANT * value), bound, 'kernel');
    layer.weights.forEach((weight) => weight.dispose());
  });
});
