/** The load of each expert in a batch, as tensors on the device. */
import {
  add,
  cast,
  dispose,
  div,
  equal,
  keep,
  log,
  maximum,
  mul,
  type Scalar,
  sub,
  sum,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
} from '@tensorflow/tfjs-core';
import type {Batch} from './batches';
import {differencesOf, offsetsOf} from '../ops/expert_counts';

/** The expert ids of a call. chosenIds are -1 for masked tokens; keptIds are -1 for dropped assignments too. */
export type Routing = {chosenIds: Tensor2D; keptIds: Tensor2D};
/** int32 [E] each: the number of assignments of each expert. */
type Loads = {chosen: Tensor1D; kept: Tensor1D};
/** int32 [E+1] each. An expert's load is the difference of two entries, so offsets of several calls can be added. */
type Offsets = {chosen: Tensor1D; kept: Tensor1D};
type Counted = Routing & {batch: Batch; earlierCalls: Offsets | undefined};

/**
 * The load of all calls of the last batch. Only the ids of the last call are kept. They are counted when another call
 * comes or when the load is asked for. Most batches have one call, and nobody asks for their load.
 */
export class BatchLoad {
  private last: Counted | undefined;

  constructor(private readonly numExperts: number) {}

  add({chosenIds, keptIds}: Routing, batch: Batch): void {
    const earlierCalls = this.last?.batch === batch ? this.offsetsOf(this.last) : undefined;
    const next = {batch, chosenIds, keptIds, earlierCalls};
    tensorsOf(next).forEach((tensor) => keep(tensor));
    this.dispose();
    this.last = next;
  }

  /** Undefined before the first call. */
  loads(): Loads | undefined {
    if (this.last == null) {
      return undefined;
    }
    const {chosen, kept} = this.offsetsOf(this.last);
    return {chosen: differencesOf(chosen), kept: differencesOf(kept)};
  }

  private offsetsOf({chosenIds, keptIds, earlierCalls}: Counted): Offsets {
    const countedWith = (ids: Tensor2D, earlier: Tensor1D | undefined): Tensor1D => {
      const offsets = offsetsOf(ids, this.numExperts);
      return earlier == null ? offsets : add(offsets, earlier);
    };
    const chosen = countedWith(chosenIds, earlierCalls?.chosen);
    const hasDropped = keptIds !== chosenIds || earlierCalls?.kept !== earlierCalls?.chosen;
    return {chosen, kept: hasDropped ? countedWith(keptIds, earlierCalls?.kept) : chosen};
  }

  dispose(): void {
    if (this.last != null) {
      dispose(tensorsOf(this.last));
      this.last = undefined;
    }
  }
}

/** The list may hold a tensor twice. */
const tensorsOf = ({chosenIds, keptIds, earlierCalls}: Counted): Tensor[] => [
  chosenIds,
  keptIds,
  ...Object.values(earlierCalls ?? {}),
];

/** The entropy of a load's shares, in nats; 0 if the load is empty. */
export function entropyOf(load: Tensor1D): Scalar {
  const counts = cast(load, 'float32');
  const shares = div(counts, maximum(sum(counts), 1));
  // An expert without a share adds 0: the sum below has log(1) for it instead of log(0).
  const logarithms = log(add(shares, cast(equal(shares, 0), 'float32')));
  // neg would turn 0 into -0.
  return sub(0, sum<Scalar>(mul(shares, logarithms)));
}

/** The part of the chosen assignments that was dropped; 0 if none was chosen. */
export function droppedShareOf({chosen, kept}: Loads): Scalar {
  const numChosen = sum(cast(chosen, 'float32'));
  const numKept = sum(cast(kept, 'float32'));
  return div(sub(numChosen, numKept), maximum(numChosen, 1));
}
