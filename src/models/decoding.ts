/** A model that reads positions one after the other, with the keys and values of those before them. */
import {cast, reshape, slice, type Tensor, type Tensor2D, type Tensor3D, tidy} from '@tensorflow/tfjs-core';
import type {layers} from '@tensorflow/tfjs-layers';
import type {KeyValueCache} from '../layers/key_value_cache';
import {type Apply, type DecoderParts, hiddenStates, logitsOf} from './decoder';
import {DecodingStep} from './decoding_step';

export class Decoding {
  private readonly caches = new Map<layers.Layer, KeyValueCache>();
  private readonly step: DecodingStep;

  /** Room for `capacity` positions of `batchSize` sequences. */
  constructor(
    private readonly parts: DecoderParts,
    batchSize: number,
    capacity: number,
  ) {
    try {
      for (const {attention} of parts.blocks) {
        this.caches.set(attention, attention.makeCache(batchSize, capacity));
      }
    } catch (error) {
      this.dispose();
      throw error;
    }
    this.step = new DecodingStep(parts, [...this.caches.values()], (ids) => this.read(ids));
  }

  /**
   * The logits [B, V] after the next positions, ids [B, T]. `mask`, float32 [B, T], is 0 for padding, which no position
   * sees.
   */
  read(ids: Tensor2D, mask?: Tensor2D): Tensor2D {
    return tidy(() => {
      const apply: Apply<Tensor> = (layer, input) => {
        const cache = this.caches.get(layer);
        return cache == null
          ? (layer.apply(input) as Tensor)
          : (layer as DecoderParts['blocks'][number]['attention']).attend(input as Tensor3D, cache, mask);
      };
      const states = hiddenStates<Tensor>(this.parts, cast(ids, 'int32'), apply) as Tensor3D;
      const [batchSize, numNew, hiddenSize] = states.shape;
      const last = numNew === 1 ? states : slice(states, [0, numNew - 1, 0], [batchSize, 1, hiddenSize]);
      const logits = logitsOf<Tensor>(this.parts, last, apply);
      return reshape(logits, [batchSize, logits.size / batchSize]);
    });
  }

  /** The logits [B, V] after the next position of each sequence. */
  next(ids: readonly number[]): Tensor2D {
    return this.step.run(ids);
  }

  dispose(): void {
    this.step?.dispose();
    this.caches.forEach((cache) => cache.dispose());
  }
}
