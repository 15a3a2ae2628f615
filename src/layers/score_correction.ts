import {add, clone, keep, mean, mul, sign, sub, type Tensor1D} from '@tensorflow/tfjs-core';
import type {LayerVariable} from '@tensorflow/tfjs-layers';
import type {Batch} from './batches';

/** The bias, each entry moved by `rate`: up if the entry of `load`, float32 [E], is below the mean, else down. */
export const correctedBias = (bias: Tensor1D, load: Tensor1D, rate: number): Tensor1D =>
  add(bias, mul(sign(sub(mean(load), load)), rate));

/**
 * Moves the score correction bias of a layer as DeepSeek-V3 does: once for a batch of training, by the load of all its
 * calls. All calls of the batch choose by the bias from its beginning.
 */
export class ScoreCorrection {
  private step: {batch: Batch; bias: Tensor1D; load: Tensor1D} | undefined;

  /** The bias for the choice. */
  biasOf(variable: LayerVariable, batch: Batch): Tensor1D {
    return this.step?.batch === batch ? this.step.bias : (variable.read() as Tensor1D);
  }

  /** Moves the bias as correctedBias does. */
  update(variable: LayerVariable, load: Tensor1D, rate: number, batch: Batch): void {
    const before = this.step?.batch === batch ? this.step : undefined;
    const bias = keep(clone(before?.bias ?? (variable.read() as Tensor1D)));
    const total = keep(before == null ? load : add(before.load, load)) as Tensor1D;
    this.dispose();
    this.step = {batch, bias, load: total};
    variable.write(correctedBias(bias, total, rate));
  }

  dispose(): void {
    this.step?.bias.dispose();
    this.step?.load.dispose();
    this.step = undefined;
  }
}
