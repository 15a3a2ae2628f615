import {addN, div, keep, scalar, type Scalar} from '@tensorflow/tfjs-core';
import type {Batch} from './batches';

/**
 * The auxiliary losses of a layer's last batch of training, in which a model that uses the layer twice calls it twice.
 *
 * They are kept, because a model's own call ends a scope before the loss is asked for, and disposed by the next batch.
 */
export class AuxiliaryLosses {
  private losses: Scalar[] = [];
  /** The batch that the losses are of. */
  batch: Batch | undefined;

  add(loss: Scalar, batch: Batch): void {
    if (batch !== this.batch) {
      this.dispose();
      this.batch = batch;
    }
    this.losses.push(keep(loss));
  }

  /** Their mean, since a model asks once for each time it uses the layer. */
  mean(): Scalar {
    return this.losses.length > 0 ? div(addN(this.losses), this.losses.length) : scalar(0);
  }

  dispose(): void {
    this.losses.forEach((loss) => loss.dispose());
    this.losses = [];
    this.batch = undefined;
  }
}
