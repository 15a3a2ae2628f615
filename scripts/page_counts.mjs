/** What the checks of pages count: what is as it should be, and a line for each failure. */
const failures = [];
let numPassed = 0;

export function fails(line) {
  failures.push(line);
}

export function passes() {
  numPassed++;
}

export function expect(isMet, line) {
  if (isMet) {
    passes();
  } else {
    fails(line);
  }
}

/** Ends with `N passed, N failed`, as runners of checks read it. */
export function printPageCounts() {
  failures.forEach((line) => console.log(`FAILED ${line}`));
  console.log(`${numPassed} passed, ${failures.length} failed`);
  process.exitCode = failures.length === 0 ? 0 : 1;
}
