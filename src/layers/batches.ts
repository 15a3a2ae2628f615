import {engine} from '@tensorflow/tfjs-core';

/** Identifies one batch: all calls of a batch have the same object. */
export type Batch = object;

/**
 * Tells which calls of a layer belong to one batch. All calls that one gradient records are a batch. Without a
 * gradient, all calls within one outermost tf.tidy are a batch, such as all calls of a predict, an evaluate or a
 * model.apply. A call outside both is a batch by itself. Training and prediction have separate batches.
 */
export class Batches {
  private readonly training = new WeakMap<object, Batch>();
  private readonly prediction = new WeakMap<object, Batch>();

  /** The batch of the current call. */
  batchOf(isTraining: boolean): Batch {
    const batches = isTraining ? this.training : this.prediction;
    const run = currentTape() ?? outermostScope();
    const underWay = run && batches.get(run);
    if (underWay != null) {
      return underWay;
    }
    const batch: Batch = {};
    if (run != null) {
      batches.set(run, batch);
      // A scope of engine().startScope() may stay open for ever, but no model waits for anything within a batch.
      void Promise.resolve().then(() => batches.delete(run));
    }
    return batch;
  }

  /** Whether `batch` belongs to the gradient that is being recorded. True if no gradient is being recorded. */
  isOfTape(batch: Batch | undefined): boolean {
    const tape = currentTape();
    return tape == null || (batch != null && this.training.get(tape) === batch);
  }

  /** Ends the current batch, because its numbers are asked for. The batch of a gradient goes on. */
  end(): void {
    const scope = outermostScope();
    if (scope != null && currentTape() == null) {
      this.training.delete(scope);
      this.prediction.delete(scope);
    }
  }
}

/** The operations that are being recorded for a gradient. Each gradient has another object. */
function currentTape(): object | null {
  const {activeTape, gradientDepth} = engine().state;
  // After a gradient has thrown, tfjs still has its tape.
  return gradientDepth > 0 ? (activeTape ?? null) : null;
}

function outermostScope(): object | undefined {
  return engine().state.scopeStack[0];
}
