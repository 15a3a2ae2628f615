/** GPU time and launches of what a backend is asked to do. */
export type GpuTime = {
  /** Milliseconds on the GPU, gaps between launches included. */
  ms: number;
  /** Stretches of work that were timed one by one, and summed. */
  numPasses: number;
  numLaunches: number;
};

export type LaunchTime = {name: string; ms: number};

export type GpuTimer = {
  /** False where the browser tells no GPU times; then only the wall time is known. */
  hasGpuTime: boolean;
  /** Waits until the GPU has done what the backend was asked to do. */
  workDone(): Promise<void>;
  /**
   * Times `work`. With `reusesBuffers` what is disposed serves the next call at once, which tfjs's WebGL backend does
   * anyway, its WebGPU backend only when a batch is submitted.
   */
  time(work: () => void, reusesBuffers?: boolean): Promise<GpuTime>;
  /** The time of every launch of `work` alone, where the backend can tell. */
  timeLaunches?(work: () => void): Promise<LaunchTime[]>;
};
