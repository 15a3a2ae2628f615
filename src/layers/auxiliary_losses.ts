import {addN, div, engine, keep, scalar, type Scalar} from '@tensorflow/tfjs-core';

/**
 * The auxiliary losses of a layer's last training step: of its calls under one gradient tape, of which a layer that
 * a model uses twice has two; without a tape, of its last call.
 *
 * They are kept, because a model's own call ends a scope before the loss is asked for, and disposed by the next step.
 */
export class AuxiliaryLosses {
  private losses: Scalar[] = [];
  private readonly tapes = new WeakSet<object>();

  add(loss: Scalar): void {
    const tape = currentTape();
    if (tape == null || !this.tapes.has(tape)) {
      this.dispose();
    }
    if (tape != null) {
      this.tapes.add(tape);
    }
    this.losses.push(keep(loss));
  }

  /** Their mean, since a model asks once for each time it uses the layer; 0 under the tape of another step. */
  mean(): Scalar {
    const tape = currentTape();
    const isOfThisStep = tape == null || this.tapes.has(tape);
    return isOfThisStep && this.losses.length > 0 ? div(addN(this.losses), this.losses.length) : scalar(0);
  }

  dispose(): void {
    this.losses.forEach((loss) => loss.dispose());
    this.losses = [];
  }
}

/** The operations that are being recorded for a gradient; another object for each gradient. */
function currentTape(): object | null {
  const {activeTape, gradientDepth} = engine().state;
  // The tape of a gradient that threw stays there.
  return gradientDepth > 0 ? (activeTape ?? null) : null;
}
