import {add, clone, dispose, keep, mean, mul, sign, sub, type Tensor1D} from '@tensorflow/tfjs-core';
import type {LayerVariable} from '@tensorflow/tfjs-layers';

/**
 * Moves the score correction bias of a layer as DeepSeek-V3 does: once for a training step, by the load of all its
 * calls, which all choose by the bias that the step began with.
 */
export class ScoreCorrection {
  private step: {bias: Tensor1D; load: Tensor1D} | undefined;

  /** The bias to choose by. */
  biasOf(variable: LayerVariable, isFirstOfStep: boolean): Tensor1D {
    return isFirstOfStep || this.step == null ? (variable.read() as Tensor1D) : this.step.bias;
  }

  /** Moves the bias of an expert by `rate`, up where it has less than the mean of `load`, float32 [E], else down. */
  update(variable: LayerVariable, load: Tensor1D, rate: number, isFirstOfStep: boolean): void {
    const before = isFirstOfStep ? undefined : this.step;
    const bias = keep(clone(before?.bias ?? (variable.read() as Tensor1D)));
    const total = keep(before == null ? load : add(before.load, load)) as Tensor1D;
    this.dispose();
    this.step = {bias, load: total};
    variable.write(add(bias, mul(sign(sub(mean(total), total)), rate)));
  }

  dispose(): void {
    dispose(this.step);
    this.step = undefined;
  }
}
