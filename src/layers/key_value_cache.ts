import {
  add,
  cast,
  equal,
  keep,
  matMul,
  mul,
  ones,
  range,
  reshape,
  sub,
  sum,
  type Tensor,
  type Tensor2D,
  type Tensor4D,
  tidy,
  zeros,
} from '@tensorflow/tfjs-core';
import {rotaryTable, type RotaryTable, type Rotation} from './rotary_embedding';

/**
 * The keys and values that an attention layer has computed, for `attend`. It has room for `capacity` positions from the
 * beginning, so that its memory does not grow. Dispose it when decoding is over.
 */
export class KeyValueCache {
  /** Float32 [B, M, capacity, D], rotated. Positions from `length` on are not used yet. */
  keys: Tensor4D;
  /** Float32 [B, M, capacity, D]. */
  values: Tensor4D;
  /** The number of positions that are used. */
  length = 0;
  /** Float32 [B, capacity]: 0 for keys of padding. Undefined if there is none. */
  keyMask: Tensor2D | undefined;
  /** The angles of all positions. */
  readonly rotaryTable: RotaryTable;
  isDisposed = false;

  constructor(
    readonly batchSize: number,
    numHeads: number,
    readonly capacity: number,
    rotation: Rotation,
  ) {
    const shape: [number, number, number, number] = [batchSize, numHeads, capacity, rotation.headDim];
    this.keys = keep(zeros(shape));
    this.values = keep(zeros(shape));
    const {cos, sin} = rotaryTable(capacity, rotation);
    this.rotaryTable = {cos: keep(cos), sin: keep(sin)};
  }

  /** Adds the keys and values [B, M, T, D] of the next T positions. `mask`, float32 [B, T], is 0 for padding. */
  add(keys: Tensor4D, values: Tensor4D, mask: Tensor2D | undefined): void {
    const numNew = keys.shape[2];
    tidy(() => {
      const {isNew, isOld} = this.placesOf(numNew);
      const written = <T extends Tensor>(before: T, after: Tensor, kept: Tensor): T =>
        keep(add(mul(before, kept), after));
      const next = {
        keys: written(this.keys, matMul(isNew, keys), isOld),
        values: written(this.values, matMul(isNew, values), isOld),
      };
      this.keys.dispose();
      this.values.dispose();
      Object.assign(this, next);
      if (mask != null) {
        const before = this.keyMask ?? ones([this.batchSize, this.capacity]);
        const keyMask = written(before, matMul(mask, isNew, false, true), reshape(isOld, [1, this.capacity]));
        this.keyMask?.dispose();
        this.keyMask = keyMask as Tensor2D;
      }
    });
    this.length += numNew;
  }

  dispose(): void {
    if (!this.isDisposed) {
      this.isDisposed = true;
      [this.keys, this.values, this.keyMask, this.rotaryTable.cos, this.rotaryTable.sin].forEach((tensor) =>
        tensor?.dispose(),
      );
    }
  }

  /** isNew [capacity, T]: 1 where the t-th new position goes. isOld [capacity, 1]: 0 there, else 1. */
  private placesOf(numNew: number): {isNew: Tensor2D; isOld: Tensor2D} {
    const places = reshape(range(0, this.capacity, 1, 'int32'), [this.capacity, 1]);
    const news = reshape(range(this.length, this.length + numNew, 1, 'int32'), [1, numNew]);
    const isNew = cast(equal(places, news), 'float32') as Tensor2D;
    return {isNew, isOld: sub(1, sum(isNew, 1, true))};
  }
}
