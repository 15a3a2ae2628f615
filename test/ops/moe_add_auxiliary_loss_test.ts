import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectFloats, expectWithin} from '../support/expect';

describeWithFlags('moeAddAuxiliaryLoss', ALL_ENVS, () => {
  it('is y, of any shape, in a handle of its own', async () => {
    for (const shape of [[], [3], [2, 3], [0, 4], [1, 2, 3, 4]]) {
      const y = tf.randomNormal(shape);
      const wanted = (await y.data()) as Float32Array;
      const result = tf.moeAddAuxiliaryLoss(y, tf.scalar(5));
      expect(result.shape).toEqual(shape);
      y.dispose();
      await expectFloats(result, wanted, `[${shape}]`);
    }
    await expectFloats(tf.moeAddAuxiliaryLoss([1, 2], 3), [1, 2], 'of arrays');
  });

  it('passes dy on, and gives the loss the gradient 1 whatever dy is', async () => {
    const [x, dy] = [tf.tensor1d([1, 2, 3]), tf.tensor1d([10, 0, -2])];
    // x is also the input of its auxiliary loss, and dy belongs to the caller.
    const [dx, dLoss] = tf.grads((y: tf.Tensor, loss: tf.Tensor) => tf.moeAddAuxiliaryLoss(y, loss as tf.Scalar))([x, tf.scalar(7)], dy);
    await expectFloats(dx, [10, 0, -2], 'dy');
    await expectFloats(dLoss, [1], 'of the loss');
    const both = tf.grad((y: tf.Tensor) => tf.moeAddAuxiliaryLoss(y, tf.sum(tf.square(y)) as tf.Scalar));
    await expectFloats(both(x, dy), [12, 4, 4], 'dy and that of the loss');
    await expectFloats(both(x, dy), [12, 4, 4], 'again: dy lives');
    await expectFloats(dy, [10, 0, -2], 'dy itself');
  });

  it('has derivatives of any order', async () => {
    const cube = (x: tf.Tensor) => tf.mul(x, tf.square(x));
    const f = (x: tf.Tensor) => tf.moeAddAuxiliaryLoss(cube(x), tf.sum(tf.mul(cube(x), 2)) as tf.Scalar);
    const [first, second] = [tf.grad(f), tf.grad((x: tf.Tensor) => tf.grad(f)(x))];
    const third = tf.grad((x: tf.Tensor) => second(x));
    const x = tf.tensor1d([1, -2]);
    await expectFloats(first(x), [9, 36], 'first');
    await expectFloats(second(x), [18, -36], 'second');
    await expectFloats(third(x), [18, 18], 'third');
  });

  it('trains like the sum of the losses', async () => {
    const router = tf.tensor2d([[0.5, -1, 0.25], [1, 0, -0.5]]);
    const x = tf.tensor2d([[1, 2], [0.5, -1], [2, 2], [-1, 1]]);
    const parts = (kernel: tf.Tensor) => {
      const logits = tf.matMul(x, kernel as tf.Tensor2D);
      const {topkWeights, topkIds} = tf.moeTopk(logits, 2);
      return {topkWeights, loss: tf.mul(tf.moeLoadBalancingLoss(logits, topkIds), 0.5) as tf.Scalar};
    };
    const inside = tf.grad((kernel: tf.Tensor) => {
      const {topkWeights, loss} = parts(kernel);
      return tf.sum(tf.square(tf.moeAddAuxiliaryLoss(topkWeights, loss)));
    });
    const outside = tf.grad((kernel: tf.Tensor) => {
      const {topkWeights, loss} = parts(kernel);
      return tf.add(tf.sum(tf.square(topkWeights)), loss);
    });
    const wanted = (await outside(router).data()) as Float32Array;
    await expectWithin(inside(router), wanted, (_, value) => 1e-5 * Math.abs(value) + 1e-6, 'gradient');
  });
});
