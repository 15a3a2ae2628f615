/** What a routing gave each expert, as tensors on the device. */
import {
  add,
  cast,
  div,
  equal,
  greaterEqual,
  log,
  maximum,
  mul,
  neg,
  type Scalar,
  slice,
  sub,
  sum,
  type Tensor1D,
  type Tensor2D,
  zeros,
} from '@tensorflow/tfjs-core';
import {moePermute} from '../ops/moe_permute';

/** int32 [E]: how many assignments each expert has. */
export function loadOf(topkIds: Tensor2D, numExperts: number): Tensor1D {
  const {expertFirstTokenOffset} = moePermute(zeros([topkIds.shape[0], 1]), topkIds, numExperts);
  return sub(slice(expertFirstTokenOffset, 1, numExperts), slice(expertFirstTokenOffset, 0, numExperts));
}

/** The entropy of the shares of a load, in nats; 0 of nothing. */
export function entropyOf(load: Tensor1D): Scalar {
  const counts = cast(load, 'float32');
  const shares = div(counts, maximum(sum(counts), 1));
  // An expert without a share adds 0, and no logarithm of it.
  const logarithms = log(add(shares, cast(equal(shares, 0), 'float32')));
  return neg(sum<Scalar>(mul(shares, logarithms)));
}

/** The part of the assignments of `chosenIds` that `keptIds` lacks; 0 of none. */
export function droppedShareOf(chosenIds: Tensor2D, keptIds: Tensor2D): Scalar {
  const countOf = (ids: Tensor2D) => sum(cast(greaterEqual(ids, 0), 'float32'));
  const numChosen = countOf(chosenIds);
  return div(sub(numChosen, countOf(keptIds)), maximum(numChosen, 1));
}
