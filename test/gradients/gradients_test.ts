import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectFloats} from '../support/expect';
import {expectAdjoint, expectFiniteDifferences, smallIntegers} from '../support/gradient_checks';
import {nastyMaps, nastyRoutings} from '../support/routings';
import {idsTensor, webglTakesFloats} from '../support/tensors';

const smallRoutings = nastyRoutings.filter(({ids}) => ids.length <= 65);
/**
 * On GPUs only the routings for which moeUnpermute, the gradient of a permute, launches different kernels. The specs of
 * moeUnpermute have all routings.
 */
const routingsOfPermutes = (backendName: string) =>
  ['cpu', 'wasm'].includes(backendName)
    ? smallRoutings
    : smallRoutings.filter(({name}) =>
        ['T = 0', 'T = 1, K = 1, E = 1, H = 1', 'K > E, repeated experts', 'odd H', 'E = 257', 'ids -1 and E'].includes(name));
const ids = [[2, 0], [0, -1], [2, 1], [1, 1]];

/** 1 in rows of assignments, 0 in all other rows. */
function assignedRows(permutedIdx: tf.Tensor, numAssignments: number, rowShape: number[]): tf.Tensor {
  const mask = tf.cast(tf.less(permutedIdx, tf.scalar(numAssignments, 'int32')), 'float32');
  return tf.mul(tf.reshape(mask, [-1, ...rowShape.map(() => 1)]), tf.ones([1, ...rowShape]));
}

describeWithFlags('gradient of moePermute', ALL_ENVS, ({backendName}) => {
  for (const {name, ids: nastyIds, topk, numExperts, hiddenSize} of routingsOfPermutes(backendName)) {
    it(`to hiddenStates and a1qScale is the exact adjoint: ${name}`, async () => {
      const topkIds = idsTensor(nastyIds, topk);
      const [{expertMap, numLocalExperts}] = nastyMaps(numExperts);
      for (const options of [{}, {alignBlockSize: 3}, {expertMap, numLocalExperts, alignBlockSize: 4}]) {
        const x = tf.zeros<tf.Rank.R2>([nastyIds.length, hiddenSize]);
        const toRows = (h: tf.Tensor) => tf.moePermute(h, topkIds, numExperts, options).permutedHiddenStates;
        await expectAdjoint(toRows, x.shape);
        const toScale = (a1qScale: tf.Tensor) => tf.moePermute(x, topkIds, numExperts, {...options, a1qScale}).a1qScale!;
        const {permutedIdx} = tf.moePermute(x, topkIds, numExperts, options);
        await expectAdjoint(toScale, [nastyIds.length, 2, 2], assignedRows(permutedIdx, topkIds.size, [2, 2]));
      }
    });
  }

  it('matches finite differences', async () => {
    const f = (x: tf.Tensor) =>
      tf.sum(tf.square(tf.moePermute(x, ids, 3, {alignBlockSize: 2}).permutedHiddenStates)) as tf.Scalar;
    await expectFiniteDifferences(f, [smallIntegers([4, 3], 5)]);
  });

  it('ignores dy of rows of no assignment, NaN too', async () => {
    const permute = (x: tf.Tensor) => tf.moePermute(x, ids, 3, {alignBlockSize: 4}).permutedHiddenStates;
    const x = smallIntegers([4, 2], 1);
    const {permutedIdx} = tf.moePermute(x, ids, 3, {alignBlockSize: 4});
    const assigned = tf.cast(assignedRows(permutedIdx, 8, [2]), 'bool');
    const dy = tf.where(assigned, tf.onesLike(assigned).cast('float32'), tf.fill(assigned.shape, NaN));
    await expectFloats(tf.grad(permute)(x, dy), [2, 2, 1, 1, 2, 2, 2, 2], 'gradient');
  });

  it('passes through a scale of the whole tensor', async () => {
    const f = (scale: tf.Tensor) => tf.moePermute(tf.ones([4, 2]), ids, 3, {a1qScale: scale}).a1qScale!;
    await expectFloats(tf.grad(f)(tf.scalar(3), tf.scalar(7)), [7], 'gradient');
  });

  it('is float32 zeros for int32 rows and scales, if the backend takes them', async () => {
    const rows = tf.ones<tf.Rank.R2>([4, 2], 'int32');
    const toSum = (x: tf.Tensor) =>
      tf.sum(tf.cast(tf.moePermute(x, ids, 3).permutedHiddenStates, 'float32')) as tf.Scalar;
    if (backendName === 'webgl') {
      expect(() => tf.grad(toSum)(rows)).toThrowError(webglTakesFloats('moePermute', 'hiddenStates'));
      return;
    }
    await expectFloats(tf.grad(toSum)(rows), new Array<number>(8).fill(0), 'int32 rows');
    const scaleToSum = (a1qScale: tf.Tensor) =>
      tf.sum(tf.cast(tf.moePermute(rows, ids, 3, {a1qScale}).a1qScale!, 'float32')) as tf.Scalar;
    await expectFloats(tf.grad(scaleToSum)(rows), new Array<number>(8).fill(0), 'int32 scales');
  });

  it('is float32 zeros for indices', async () => {
    const fromIds = (topkIds: tf.Tensor) => tf.sum(tf.moePermute(tf.ones([4, 2]), topkIds, 3).permutedHiddenStates);
    await expectFloats(tf.grad(fromIds)(idsTensor(ids, 2)), new Array<number>(8).fill(0), 'ids');
    const fromMap = (expertMap: tf.Tensor) =>
      tf.sum(tf.moePermute(tf.ones([4, 2]), ids, 3, {expertMap}).permutedHiddenStates);
    await expectFloats(tf.grad(fromMap)(tf.tensor1d([0, 1, 2], 'int32')), [0, 0, 0], 'expertMap');
  });

  it('flows to the rows when ids come from the same rows', async () => {
    const f = (x: tf.Tensor) => {
      const topkIds = tf.cast(x, 'int32');
      return tf.sum(tf.moePermute(x, topkIds, 2).permutedHiddenStates) as tf.Scalar;
    };
    await expectFloats(tf.grad(f)(tf.tensor2d([[0], [1]])), [1, 1], 'gradient');
  });

  it('flows through a result that was assigned to out', async () => {
    const out = tf.variable(tf.zeros<tf.Rank.R2>([2, 1]));
    const f = (x: tf.Tensor) => tf.sum(tf.square(tf.moePermute(x, [[1], [0]], 2, {out}).permutedHiddenStates)) as tf.Scalar;
    await expectFloats(tf.grad(f)(tf.tensor2d([[3], [5]])), [6, 10], 'gradient');
    await expectFloats(out, [5, 3], 'out');
  });
});

describeWithFlags('gradient of moePermuteBlockAligned', ALL_ENVS, ({backendName}) => {
  for (const {name, ids: nastyIds, topk, numExperts, hiddenSize} of routingsOfPermutes(backendName)) {
    it(`is the exact adjoint over rows of assignments: ${name}`, async () => {
      const topkIds = idsTensor(nastyIds, topk);
      const x = tf.zeros<tf.Rank.R2>([nastyIds.length, hiddenSize]);
      const {permutedIdx} = tf.moePermute(x, topkIds, numExperts, {alignBlockSize: 3});
      const toRows = (h: tf.Tensor) => tf.moePermuteBlockAligned(h, topkIds, numExperts, 3).permutedHiddenStates;
      await expectAdjoint(toRows, x.shape, assignedRows(permutedIdx, topkIds.size, [hiddenSize]));
      if (nastyIds.length > 0) {
        const toScale = (a1qScale: tf.Tensor) =>
          tf.moePermuteBlockAligned(x, topkIds, numExperts, 3, {a1qScale}).a1qScale!;
        await expectAdjoint(toScale, [nastyIds.length, 2], assignedRows(permutedIdx, topkIds.size, [2]));
      }
    });
  }
});

describeWithFlags('gradient of moeUnpermute', ALL_ENVS, () => {
  for (const {name, ids: nastyIds, topk, numExperts, hiddenSize} of smallRoutings) {
    it(`to rows and weights is the exact adjoint: ${name}`, async () => {
      const permuted = tf.moePermute(tf.zeros([nastyIds.length, 1]), idsTensor(nastyIds, topk), numExperts, {
        alignBlockSize: 2,
      });
      const {invPermutedIdx, expertFirstTokenOffset} = permuted;
      const rows = smallIntegers([permuted.permutedHiddenStates.shape[0], hiddenSize], 11);
      const weights = smallIntegers([nastyIds.length, topk], 12);
      const unpermute = (y: tf.Tensor, w: tf.Tensor) => tf.moeUnpermute(y, w, invPermutedIdx, expertFirstTokenOffset);
      await expectAdjoint((y) => unpermute(y, weights), rows.shape);
      await expectAdjoint((w) => unpermute(rows, w), weights.shape);
    });
  }

  it('sums over slots that read the same row', async () => {
    const unpermute = (y: tf.Tensor) => tf.moeUnpermute(y, [[1, 10], [100, 1000]], [1, 1, 0, 1]);
    await expectFloats(tf.grad(unpermute)(tf.zeros([3, 1]), [[1], [2]]), [200, 2011, 0], 'gradient');
  });

  it('gives a skipped slot the gradient 0, whatever its row holds', async () => {
    const toWeights = (w: tf.Tensor) => tf.moeUnpermute([[3], [NaN]], w, [0, 1, -1], [0, 1]);
    await expectFloats(tf.grad(toWeights)(tf.ones([1, 3]), [[5]]), [15, 0, 0], 'weights');
    const toRows = (y: tf.Tensor) => tf.moeUnpermute(y, [[2, NaN, NaN]], [0, 1, -1], [0, 1]);
    await expectFloats(tf.grad(toRows)(tf.tensor2d([[3], [NaN]]), [[5]]), [10, 0], 'rows');
  });

  it('matches finite differences, first and second order', async () => {
    const inverse = [1, 4, 0, 9, 2, 2];
    const square = (y: tf.Tensor, w: tf.Tensor) => tf.sum(tf.square(tf.moeUnpermute(y, w, inverse, [0, 4]))) as tf.Scalar;
    const linear = (y: tf.Tensor, w: tf.Tensor) => tf.sum(tf.moeUnpermute(y, w, inverse, [0, 4])) as tf.Scalar;
    const rows = smallIntegers([5, 2], 21);
    const weights = smallIntegers([3, 2], 22);
    await expectFiniteDifferences(square, [rows, weights]);
    const gradientNorm = (y: tf.Tensor, w: tf.Tensor) => {
      const [dRows, dWeights] = tf.grads(linear)([y, w]);
      return tf.add(tf.sum(tf.square(dRows)), tf.sum(tf.square(dWeights))) as tf.Scalar;
    };
    await expectFiniteDifferences(gradientNorm, [rows, weights]);
  });

  it('has a third order, through the gradients of the gradients', async () => {
    // f = (w*y)^3 at one slot: f''' to y is 6 w^3.
    const f = (y: tf.Tensor) => tf.sum(tf.pow(tf.moeUnpermute(y, [[2]], [0]), tf.scalar(3))) as tf.Scalar;
    const first = (y: tf.Tensor) => tf.sum(tf.grad(f)(y)) as tf.Scalar;
    const second = (y: tf.Tensor) => tf.sum(tf.grad(first)(y)) as tf.Scalar;
    const third = tf.grad(second)(tf.tensor2d([[3]]));
    expect(Math.abs((await third.data())[0] - 48)).toBeLessThan(1e-2);
  });

  it('is float32 zeros for the indices', async () => {
    const fromInverse = (inv: tf.Tensor) => tf.sum(tf.moeUnpermute([[1], [2]], [[1, 1]], inv)) as tf.Scalar;
    await expectFloats(tf.grad(fromInverse)(tf.tensor2d([[0, 1]], [1, 2], 'int32')), [0, 0], 'inverse');
    const fromOffset = (offset: tf.Tensor) => tf.sum(tf.moeUnpermute([[1], [2]], [[1, 1]], [0, 1], offset)) as tf.Scalar;
    await expectFloats(tf.grad(fromOffset)(tf.tensor1d([0, 2], 'int32')), [0, 0], 'offset');
  });
});

describeWithFlags('gradient of moeUnpermuteAndReduce', ALL_ENVS, () => {
  it('is the exact adjoint, with and without an inverse', async () => {
    const weights = smallIntegers([3, 2], 31);
    const inverse = [1, 4, 0, 9, 2, 3];
    await expectAdjoint((y) => tf.moeUnpermuteAndReduce(y, weights, inverse), [5, 3]);
    await expectAdjoint((y) => tf.moeUnpermuteAndReduce(y, weights), [6, 3]);
    await expectAdjoint((y) => tf.moeUnpermuteAndReduce(y, weights), [3, 2, 3]);
    await expectAdjoint((w) => tf.moeUnpermuteAndReduce(smallIntegers([5, 3], 32), w, inverse), [3, 2]);
  });

  it('to the weights is zeros if they are applied already', async () => {
    const f = (y: tf.Tensor, w: tf.Tensor) =>
      tf.sum(tf.moeUnpermuteAndReduce(y, w, null, {applyRouterWeightOnInput: true})) as tf.Scalar;
    const [dRows, dWeights] = tf.grads(f)([smallIntegers([2, 3], 1), smallIntegers([1, 2], 2)]);
    await expectFloats(dRows, [1, 1, 1, 1, 1, 1], 'rows');
    await expectFloats(dWeights, [0, 0], 'weights');
  });
});

describeWithFlags('gradient of moeSum', ALL_ENVS, () => {
  it('is the exact adjoint', async () => {
    await expectAdjoint((x) => tf.moeSum(x as tf.Tensor3D), [4, 3, 5]);
    await expectAdjoint((x) => tf.moeSum(x as tf.Tensor3D), [1, 1, 1]);
  });

  it('matches finite differences', () =>
    expectFiniteDifferences((x) => tf.sum(tf.square(tf.moeSum(x as tf.Tensor3D))) as tf.Scalar, [smallIntegers([2, 3, 2], 4)]));
});

describeWithFlags('gradients through a whole router', ALL_ENVS, () => {
  it('pass moeAlignBlockSize on the tape', async () => {
    const f = (x: tf.Tensor) => {
      const topkIds = tf.cast(x, 'int32');
      const {expertIds} = tf.moeAlignBlockSize(topkIds, 2, 2);
      return tf.add(tf.sum(x), tf.sum(tf.cast(expertIds, 'float32'))) as tf.Scalar;
    };
    await expectFloats(tf.grad(f)(tf.tensor2d([[0], [1]])), [1, 1], 'gradient');
  });

  it('train weights and experts: an optimizer step lowers the loss', async () => {
    const x = smallIntegers([6, 3], 51) as tf.Tensor2D;
    const expert = tf.variable(tf.mul(smallIntegers([3, 3], 52), tf.scalar(0.1)) as tf.Tensor2D);
    const weights = tf.variable(tf.fill<tf.Rank.R2>([6, 2], 0.5));
    const loss = () => {
      const permuted = tf.moePermute(x, [[0, 1], [1, 2], [2, 0], [0, 0], [1, -1], [2, 1]], 3);
      const outputs = tf.matMul(permuted.permutedHiddenStates, expert);
      const merged = tf.moeUnpermute(outputs, weights, permuted.invPermutedIdx, permuted.expertFirstTokenOffset);
      return tf.mean(tf.squaredDifference(merged, x)) as tf.Scalar;
    };
    const before = (await loss().data())[0];
    const optimizer = tf.train.sgd(0.01);
    for (let step = 0; step < 5; step++) {
      optimizer.minimize(loss);
    }
    expect((await loss().data())[0]).toBeLessThan(0.9 * before);
    expert.dispose();
    weights.dispose();
  });
});
