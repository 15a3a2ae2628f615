/** Mistakes that only the WebGPU kernels of moeGroupedMatMul can make. */
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {naiveGroupedMatMul} from '../naive/grouped_mat_mul';
import {expectFloats, expectWithin} from '../support/expect';
import {smallIntegers} from '../support/gradient_checks';
import {countLaunches} from '../support/webgpu_launches';

const webgpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'webgpu'};
const backend = () => tf.backend() as WebGPUBackend;

describeWithFlags('moeGroupedMatMul on WebGPU', webgpu, () => {
  it('is one launch, or one for each part, and reads nothing back', async () => {
    const reads = [spyOn(backend(), 'read').and.callThrough(), spyOn(backend(), 'readSync').and.callThrough()];
    const offset = tf.tensor1d([0, 2, 3], 'int32');
    const weights = smallIntegers([2, 8, 4], 1) as tf.Tensor3D;
    const x = smallIntegers([3, 4], 2) as tf.Tensor2D;
    const many = smallIntegers([70, 4], 2) as tf.Tensor2D;
    const options = {bias: tf.zeros([2, 8]), activation: 'silu', gated: true} as const;
    tf.tidy(() => {
      expect(countLaunches(() => tf.moeGroupedMatMul(x, weights, offset, options))).toBe(1);
      expect(countLaunches(() => tf.moeGroupedMatMul(many, weights, offset, options))).toBe(1);
    });
    const parts = [tf.tensor3d([[[1, 0, 0, 0]]]), tf.tensor3d([[[0, 1, 0, 0]]])];
    expect(countLaunches(() => tf.moeGroupedMatMul(x, parts, offset))).toBe(2);
    // z again, dz, and dx.
    const gradient = tf.grad((a: tf.Tensor) => tf.moeGroupedMatMul(a, weights, offset, options));
    expect(countLaunches(() => gradient(x, tf.ones([3, 4])))).toBeLessThanOrEqual(6);
    reads.forEach((read) => expect(read).not.toHaveBeenCalled());
    await x.data();
  });

  // Tiles are chosen by rows an expert and by how many tiles there are.
  for (const [numExperts, rowsOfExpert, numColumns] of [
    [520, 12, 68],
    [520, 30, 68],
    [520, 50, 36],
    [3, 20, 132],
    [3, 60, 132],
  ]) {
    it(`is right for ${numExperts} experts of about ${rowsOfExpert} rows`, async () => {
      const offset = Array.from({length: numExperts + 1}, (_, e) => rowsOfExpert * e + 7 * (e % 2));
      const sizes = {numRows: offset[numExperts], numIn: 20, numColumns, offset};
      const x = smallIntegers([sizes.numRows, sizes.numIn], 1) as tf.Tensor2D;
      const gated = {gated: true, activation: 'silu'} as const;
      for (const options of numExperts > 3 ? [gated] : [gated, {weightFormat: 'inOut'} as const]) {
        const isInOut = 'weightFormat' in options;
        const shape = isInOut ? [numExperts, sizes.numIn, numColumns] : [numExperts, numColumns, sizes.numIn];
        const weights = smallIntegers(shape, 2) as tf.Tensor3D;
        const values = {x: await x.data(), weights: await weights.data()};
        const {values: wanted, bounds} = naiveGroupedMatMul(sizes, values, options);
        await expectWithin(tf.moeGroupedMatMul(x, weights, offset, options), wanted, (i) => bounds[i], JSON.stringify(options));
      }
    });
  }

  it('does not rely on what its buffers hold', async () => {
    const poison = async (shape: number[]) => {
      const poisoned = [0, 1, 2].map(() => tf.div(tf.zeros(shape), tf.zeros(shape)));
      await Promise.all(poisoned.map((tensor) => tensor.data()));
      tf.dispose(poisoned);
    };
    const weights = tf.ones<tf.Rank.R3>([3, 2, 2]);
    for (const numRows of [9, 110]) {
      const offset = [2, 3, 3, numRows - 2];
      const x = tf.ones<tf.Rank.R2>([numRows, 2]);
      const wanted = Array.from({length: 2 * numRows}, (_, i) => (i >= 4 && i < 2 * numRows - 4 ? 2 : 0));
      await poison([numRows, 2]);
      await expectFloats(tf.moeGroupedMatMul(x, weights, offset), wanted, 'y');
      await poison([numRows, 2]);
      await expectFloats(tf.moeGroupedMatMul(x, tf.split(weights, 3), offset), wanted, 'y of parts');
      await poison([3, 2, 2]);
      const dWeights = tf.grad((w: tf.Tensor) => tf.moeGroupedMatMul(x, w, offset))(weights);
      const counts = [1, 0, numRows - 5];
      await expectFloats(dWeights, counts.flatMap((count) => [count, count, count, count]), 'dWeights');
    }
  });

  it('says which tensor is past the limit of a binding, before any work', () => {
    const limit = backend().device.limits.maxStorageBufferBindingSize;
    const numColumns = 2 ** 14;
    const numRows = Math.ceil(limit / (4 * numColumns)) + 1;
    const x = tf.zeros<tf.Rank.R2>([numRows, 1]);
    const weights = tf.zeros<tf.Rank.R3>([1, numColumns, 1]);
    const before = tf.memory().numTensors;
    expect(() => tf.moeGroupedMatMul(x, weights, [0, numRows])).toThrowError(
      `Error in moeGroupedMatMul: the result [${numRows},${numColumns}] takes ${4 * numRows * numColumns} bytes, but ` +
        `this device binds at most ${limit} in one buffer (maxStorageBufferBindingSize).`,
    );
    expect(tf.memory().numTensors).toBe(before);
  });
});
