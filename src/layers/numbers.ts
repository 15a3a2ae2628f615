/** Checks of the numbers among the arguments of layers. */
import {assert, describeValue} from '../arguments/checks';

/** Asserts a number above 0 that float32 holds, and returns it. */
export function checkPositive(value: number, argName: string, opName: string): number {
  assert(
    typeof value === 'number' && Math.fround(value) > 0 && Number.isFinite(Math.fround(value)),
    opName,
    () => `${argName} must be a positive number that fits float32, but is ${describeValue(value)}.`,
  );
  return value;
}
