/** Times contenders that compute the same thing, and prints what was measured. */
import * as tf from '../src/tf';

/** T tokens, H hidden size, K experts per token, E experts in all. */
export type Shape = {T: number; H: number; K: number; E: number};

export type Contender = {
  name: string;
  /**
   * The op itself; a composition of core ops that gives the same outputs, as anyone would write it or tuned for
   * this backend; or a part of the work alone.
   */
  kind: 'op' | 'plain' | 'tuned' | 'part';
  numRuns: number;
  run: () => tf.Tensor[];
};

/** One op: the bytes that any implementation has to read and write, and the contenders, the op itself first. */
export type Benchmark = {
  numBytes: (shape: Shape) => number;
  contenders: (shape: Shape, numRuns: number) => Contender[];
};

export type Timing = {
  name: string;
  kind: Contender['kind'];
  numRuns: number;
  minimumMs: number;
  medianMs: number;
  maximumMs: number;
  gigabytesPerSecond: number;
};

const NUM_WARM_UP_RUNS = 2;

export async function timeContender({name, kind, numRuns, run}: Contender, numBytes: number): Promise<Timing> {
  const times: number[] = [];
  for (let i = -NUM_WARM_UP_RUNS; i < numRuns; i++) {
    const start = performance.now();
    const outputs = tf.tidy(run);
    // A backend that queues its work has done it once an output can be read; on the host this costs nothing.
    await outputs[outputs.length - 1].data();
    const elapsed = performance.now() - start;
    tf.dispose(outputs);
    if (i >= 0) {
      times.push(elapsed);
    }
  }
  times.sort((a, b) => a - b);
  const middle = times.length >> 1;
  const medianMs = times.length % 2 === 1 ? times[middle] : (times[middle - 1] + times[middle]) / 2;
  return {
    name,
    kind,
    numRuns,
    minimumMs: times[0],
    medianMs,
    maximumMs: times[times.length - 1],
    gigabytesPerSecond: numBytes / medianMs / 1e6,
  };
}

/** Throws unless both lists hold the same values, bit for bit except for the sign of 0. */
export function assertSameOutputs(name: string, actual: tf.Tensor[], expected: tf.Tensor[]): void {
  const same =
    actual.length === expected.length &&
    actual.every((tensor, i) => {
      const values = tensor.dataSync();
      return (
        tf.util.arraysEqual(tensor.shape, expected[i].shape) &&
        expected[i].dataSync().every((value, at) => value === values[at])
      );
    });
  if (!same) {
    throw new Error(`${name} does not compute what the op computes; nothing was timed.`);
  }
}

/** A line a contender; `x op` is its median over that of the op, which comes first. */
export function formatTimings(timings: Timing[]): string {
  const header = ['', 'runs', 'min ms', 'median ms', 'max ms', 'GB/s', 'x op'];
  const lines = timings.map((timing) => [
    timing.name,
    String(timing.numRuns),
    ...[timing.minimumMs, timing.medianMs, timing.maximumMs].map((ms) => ms.toFixed(2)),
    timing.gigabytesPerSecond.toFixed(2),
    (timing.medianMs / timings[0].medianMs).toFixed(2),
  ]);
  const table = [header, ...lines];
  const widths = header.map((_, column) => Math.max(...table.map((cells) => cells[column].length)));
  return table
    .map((cells) =>
      cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join('  '),
    )
    .join('\n');
}
