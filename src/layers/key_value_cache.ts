import {
  add,
  cast,
  dispose,
  equal,
  keep,
  matMul,
  mul,
  ones,
  type Rank,
  range,
  reshape,
  sub,
  sum,
  type Tensor1D,
  type Tensor2D,
  type Tensor4D,
  zeros,
} from '@tensorflow/tfjs-core';
import {anglesTable, rotaryTable, type RotaryTable, type Rotation} from './rotary_embedding';
import {type SharedPosition, sharedPosition} from './shared_position';

type Places = {isNew: Tensor2D; isOld: Tensor2D};

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
  isDisposed = false;
  /** Where the device finds `length`. */
  readonly sharedPosition: SharedPosition;
  private readonly rotation: Rotation;
  private table: RotaryTable | undefined;
  private angles: Tensor2D | undefined;

  constructor(
    readonly batchSize: number,
    numHeads: number,
    readonly capacity: number,
    rotation: Rotation,
  ) {
    const shape: [number, number, number, number] = [batchSize, numHeads, capacity, rotation.headDim];
    this.keys = keep(zeros(shape));
    this.values = keep(zeros(shape));
    this.rotation = rotation;
    this.sharedPosition = sharedPosition();
    this.sharedPosition.acquire();
  }

  /** The angles of all positions, made when they are asked for. */
  rotaryTable(): RotaryTable {
    if (this.table == null) {
      const {cos, sin} = rotaryTable(this.capacity, this.rotation);
      this.table = {cos: keep(cos), sin: keep(sin)};
    }
    return this.table;
  }

  /** What kernels take besides keys and values. */
  forKernels(): {angles: Tensor2D; position: Tensor1D} {
    this.angles ??= keep(anglesTable(this.capacity, this.rotation));
    return {angles: this.angles, position: this.sharedPosition.at(this.length)};
  }

  /** Adds the keys and values [B, M, T, D] of the next T positions, and their mask. */
  add(keys: Tensor4D, values: Tensor4D, mask: Tensor2D | undefined): void {
    const numNew = keys.shape[2];
    const places = this.placesOf(numNew);
    const written = [this.written(this.keys, keys, places), this.written(this.values, values, places)];
    this.keys.dispose();
    this.values.dispose();
    [this.keys, this.values] = written as [Tensor4D, Tensor4D];
    this.addPositions(numNew, mask);
  }

  /** Takes T positions for used, whose keys and values are there. `mask`, float32 [B, T], is 0 for padding. */
  addPositions(numNew: number, mask: Tensor2D | undefined): void {
    if (mask != null) {
      const before = this.keyMask ?? ones<Rank.R2>([this.batchSize, this.capacity]);
      const {isNew, isOld} = this.placesOf(numNew);
      const kept = mul(before, reshape(isOld, [1, this.capacity]));
      const keyMask = keep(add(kept, matMul(mask, isNew, false, true)));
      this.keyMask?.dispose();
      this.keyMask = keyMask as Tensor2D;
    }
    this.length += numNew;
  }

  dispose(): void {
    if (!this.isDisposed) {
      this.isDisposed = true;
      dispose([this.keys, this.values, this.keyMask ?? [], this.angles ?? [], this.table ?? []]);
      this.sharedPosition.release();
    }
  }

  private written(before: Tensor4D, news: Tensor4D, {isNew, isOld}: Places): Tensor4D {
    return keep(add(mul(before, isOld), matMul(isNew, news)));
  }

  /** isNew [capacity, T]: 1 where the t-th new position goes. isOld [capacity, 1]: 0 there, else 1. */
  private placesOf(numNew: number): Places {
    const places = reshape(range(0, this.capacity, 1, 'int32'), [this.capacity, 1]);
    const news = reshape(range(this.length, this.length + numNew, 1, 'int32'), [1, numNew]);
    const isNew = cast(equal(places, news), 'float32') as Tensor2D;
    return {isNew, isOld: sub(1, sum(isNew, 1, true))};
  }
}
