import {addN, div, keep, scalar, type Scalar} from '@tensorflow/tfjs-core';
import type {Batch} from './batches';

/**
 * The auxiliary losses of a layer's last batch of training. There are two if a model uses the layer twice. They are
 * kept because a model's own call ends a scope before the loss is asked for. The next batch disposes of them.
 */
export class AuxiliaryLosses {
  private losses: Scalar[] = [];
  /** The batch of the losses. */
  batch: Batch | undefined;

  add(loss: Scalar, batch: Batch): void {
    if (batch !== this.batch) {
      this.dispose();
      this.batch = batch;
    }
    this.losses.push(keep(loss));
  }

  /** The mean of the losses: a model asks once for each of its uses of the layer. */
  mean(): Scalar {
    return this.losses.length > 0 ? div(addN(this.losses), this.losses.length) : scalar(0);
  }

  dispose(): void {
    this.losses.forEach((loss) => loss.dispose());
    this.losses = [];
    this.batch = undefined;
  }
}
