import {backend, getBackend, keep, type KernelBackend, type Tensor1D, tensor1d} from '@tensorflow/tfjs-core';

/**
 * The place of the next position on the device, for the caches of all layers: in a step of a model they have the same.
 * A kernel that took it as an attribute would be another one for each position.
 */
export class SharedPosition {
  private numUsers = 0;
  private pinned: Tensor1D | undefined;
  private last: {position: number; backendName: string; tensor: Tensor1D} | undefined;

  acquire(): void {
    this.numUsers++;
  }

  release(): void {
    this.numUsers--;
    if (this.numUsers === 0) {
      this.forget();
    }
  }

  /** int32 [1], valid until another position is asked for. */
  at(position: number): Tensor1D {
    if (this.pinned != null) {
      return this.pinned;
    }
    const backendName = getBackend();
    if (this.last?.position !== position || this.last.backendName !== backendName || this.last.tensor.isDisposed) {
      this.forget();
      this.last = {position, backendName, tensor: keep(tensor1d([position], 'int32'))};
    }
    return this.last.tensor;
  }

  /** In `run`, the place is in this tensor, whatever position is asked for. */
  in<Result>(position: Tensor1D, run: () => Result): Result {
    this.pinned = position;
    try {
      return run();
    } finally {
      this.pinned = undefined;
    }
  }

  private forget(): void {
    this.last?.tensor.dispose();
    this.last = undefined;
  }
}

const ofBackends = new WeakMap<KernelBackend, SharedPosition>();

/** The place for caches that are made now. A new instance of the backend, as after tf.engine().reset(), has its own. */
export function sharedPosition(): SharedPosition {
  const ofBackend = ofBackends.get(backend()) ?? new SharedPosition();
  ofBackends.set(backend(), ofBackend);
  return ofBackend;
}
