import {engine} from '@tensorflow/tfjs-core';

/** Tells the calls of a layer in one training step, which are under one gradient tape, from those of another step. */
export class TrainingSteps {
  private readonly tapes = new WeakSet<object>();

  /** Whether this call is the first of its step. Without a tape each call is a step. */
  begin(): boolean {
    const tape = currentTape();
    const isFirst = tape == null || !this.tapes.has(tape);
    if (tape != null) {
      this.tapes.add(tape);
    }
    return isFirst;
  }

  /** Whether what is recorded now, if anything, is a step that has begun. */
  isUnderWay(): boolean {
    const tape = currentTape();
    return tape == null || this.tapes.has(tape);
  }
}

/** The operations that are being recorded for a gradient; another object for each gradient. */
function currentTape(): object | null {
  const {activeTape, gradientDepth} = engine().state;
  // The tape of a gradient that threw stays there.
  return gradientDepth > 0 ? (activeTape ?? null) : null;
}
