/**
 * Results as inputs of tfjs's own ops: a result may look right when it is read, and be something else on its device.
 */
import * as tf from '../../src/tf';
import {valuesOf} from './backend';
import {type Bounded, exact, Sum, zeros} from './bounded';
import {assertWanted, type Wanted} from './wanted';

export const coreOps = ['none', 'neg', 'concat', 'sum', 'matMul'] as const;
export type CoreOp = (typeof coreOps)[number];

/** The programs of core ops compute integers in floats, and leave subnormals out. */
const MAX_EXACT = 2 ** 23;
const MIN_NORMAL = 2 ** -126;

export async function checkCoreOp(op: CoreOp, name: string, tensor: tf.Tensor, given: ArrayLike<number>): Promise<void> {
  const values = Array.from(given);
  const isExact = tensor.dtype === 'float32' || values.every((value) => Math.abs(value) < MAX_EXACT);
  if (op === 'none' || tensor.size === 0 || tensor.rank === 0 || !isExact) {
    return;
  }
  const {result, wanted} = RESULTS[op](tensor, values);
  if (result == null) {
    return;
  }
  try {
    assertWanted(`${op} of ${name}`, result, await valuesOf(result), {...wanted, shape: result.shape, dtype: tensor.dtype as Wanted['dtype']});
  } finally {
    result.dispose();
  }
}

type Result = {result?: tf.Tensor; wanted: Bounded};

const RESULTS: Record<Exclude<CoreOp, 'none'>, (tensor: tf.Tensor, values: number[]) => Result> = {
  neg: (tensor, values) => ({result: tf.neg(tensor), wanted: copied(values.map((value) => -value))}),
  concat: (tensor, values) => ({result: tf.concat([tensor, tensor], 0), wanted: copied([...values, ...values])}),
  sum: (tensor, values) => ({result: tf.sum(tensor, -1), wanted: rowSums(tensor, values, 1)}),
  matMul: (tensor, values) =>
    tensor.rank === 2 && tensor.dtype === 'float32'
      ? {
          result: tf.tidy(() => tf.matMul(tensor as tf.Tensor2D, tf.ones([tensor.shape[1] ?? 0, 2]))),
          wanted: rowSums(tensor, values, 2),
        }
      : {wanted: zeros(0)},
};

function copied(values: number[]): Bounded {
  const bounded = exact(values);
  values.forEach((value, i) => {
    bounded.errors[i] = Math.abs(value) < MIN_NORMAL ? MIN_NORMAL : 0;
  });
  return bounded;
}

/** The sum of each row, `times` times; any value for a row that is not finite. */
function rowSums({shape, size}: tf.Tensor, values: number[], times: number): Bounded {
  const rowSize = shape[shape.length - 1];
  const sums = zeros((size / rowSize) * times);
  for (let at = 0; at < sums.values.length; at++) {
    const row = Math.floor(at / times);
    const sum = new Sum();
    for (let c = 0; c < rowSize; c++) {
      const value = values[row * rowSize + c];
      sum.add(value, 1, Number.isFinite(value) ? 0 : Infinity);
    }
    sum.to(sums, at, {relative: 1e-5, absolute: 1e-6});
  }
  return sums;
}
