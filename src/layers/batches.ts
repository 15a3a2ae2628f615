import {engine} from '@tensorflow/tfjs-core';

/** Stands for one batch: the calls that belong together have the same object. */
export type Batch = object;

/**
 * Tells which calls of a layer belong to one batch. A batch is what one gradient records; without a gradient it is what
 * runs within one outermost tf.tidy, as all of a predict, an evaluate and a model.apply do. A call outside of both is a
 * batch by itself. Training and prediction have batches of their own.
 */
export class Batches {
  private readonly training = new WeakMap<object, Batch>();
  private readonly prediction = new WeakMap<object, Batch>();

  /** The batch that a call belongs to. */
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

  /** Whether a gradient that is being recorded, if one is, has `batch`. */
  isOfTape(batch: Batch | undefined): boolean {
    const tape = currentTape();
    return tape == null || (batch != null && this.training.get(tape) === batch);
  }

  /** Ends the batch under way, which is whole for whoever asks for its numbers; but not that of a gradient. */
  end(): void {
    const scope = outermostScope();
    if (scope != null && currentTape() == null) {
      this.training.delete(scope);
      this.prediction.delete(scope);
    }
  }
}

/** The operations that are being recorded for a gradient; another object for each gradient. */
function currentTape(): object | null {
  const {activeTape, gradientDepth} = engine().state;
  // The tape of a gradient that threw stays there.
  return gradientDepth > 0 ? (activeTape ?? null) : null;
}

function outermostScope(): object | undefined {
  return engine().state.scopeStack[0];
}
