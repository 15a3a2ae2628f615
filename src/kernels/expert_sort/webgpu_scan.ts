/** A prefix sum over the threads of a workgroup. */
import {repeat} from '../shared/repeat';

/**
 * WGSL: exclusiveScan(thread, value), for the first 256 threads the sum of the values of the threads before, and
 * `scanTotal`, the sum of all. The page says what type a value is: `alias Scanned`, u32 or vec2<u32>. Every thread of
 * the workgroup must call it.
 *
 * Threads are summed 16 at a time, then these sums: reading a few values more takes less time than a barrier. Text is
 * repeated over the 16, so that the reads go out together.
 */
export const EXCLUSIVE_SCAN = /* wgsl */ `
  var<workgroup> scanValues : array<Scanned, 256>;
  var<workgroup> scanSums : array<Scanned, 16>;
  var<private> scanTotal : Scanned;
  fn exclusiveScan(thread : u32, value : Scanned) -> Scanned {
    let isScanned = thread < 256;
    let sixteen = thread / 16;
    let lane = thread % 16;
    let first = sixteen * 16;
    if (isScanned) { scanValues[thread] = value; }
    workgroupBarrier();
    var before = Scanned();
    if (isScanned) {
      ${repeat(15, (j) => `before += select(Scanned(), scanValues[first + ${j}], ${j} < lane);`)}
      if (lane == 15) { scanSums[sixteen] = before + value; }
    }
    workgroupBarrier();
    scanTotal = Scanned();
    if (isScanned) {
      ${repeat(
        16,
        (j) => /* wgsl */ `
      let sum${j} = scanSums[${j}];
      scanTotal += sum${j};
      before += select(Scanned(), sum${j}, ${j} < sixteen);`,
      )}
    }
    return before;
  }`;
