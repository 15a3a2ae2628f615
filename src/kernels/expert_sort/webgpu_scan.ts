/**
 * WGSL: exclusiveScan(thread, value), for the first 256 threads the sum of the values of the threads before, and
 * `scanTotal`, the sum of all; the type of a value is u32 or vec2<u32>. Every thread of the workgroup must call it.
 * Threads are summed 16 at a time, then these sums: reading a few values more takes less time than a barrier.
 */
export function exclusiveScan(type: 'u32' | 'vec2<u32>'): string {
  const forEach = (count: number, statement: (j: number) => string) =>
    Array.from({length: count}, (_, j) => statement(j)).join('');
  return `
  var<workgroup> scanValues : array<${type}, 256>;
  var<workgroup> scanSums : array<${type}, 16>;
  var<private> scanTotal : ${type};
  fn exclusiveScan(thread : u32, value : ${type}) -> ${type} {
    let isScanned = thread < 256;
    let sixteen = thread / 16;
    let lane = thread % 16;
    let first = sixteen * 16;
    if (isScanned) { scanValues[thread] = value; }
    workgroupBarrier();
    var before = ${type}();
    if (isScanned) {
      ${forEach(15, (j) => `before += select(${type}(), scanValues[first + ${j}], ${j} < lane);`)}
      if (lane == 15) { scanSums[sixteen] = before + value; }
    }
    workgroupBarrier();
    scanTotal = ${type}();
    if (isScanned) {
      ${forEach(
        16,
        (j) => `
      let sum${j} = scanSums[${j}];
      scanTotal += sum${j};
      before += select(${type}(), sum${j}, ${j} < sixteen);`,
      )}
    }
    return before;
  }`;
}
