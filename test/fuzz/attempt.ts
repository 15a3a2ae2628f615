/** What the fuzzer draws: an op with its input, or an event, ready to be tried. */
import * as fc from 'fast-check';
import {type Call, checkCall} from './call';

export type Attempt = {
  name: string;
  /** What was drawn, to be printed where it fails. */
  input: object;
  /** N, or the rows of what has no routing. */
  numAssignments: number;
  check: () => Promise<void>;
};
export type Attempts = {weight: number; arbitrary: fc.Arbitrary<Attempt>};

/** Calls of one op. */
export const callsOf = <Draw extends object>(
  weight: number,
  name: string,
  draws: fc.Arbitrary<Draw>,
  numAssignments: (draw: Draw) => number,
  callOf: (draw: Draw) => Call,
): Attempts => ({
  weight,
  arbitrary: draws.map((input) => ({
    name,
    input,
    numAssignments: numAssignments(input),
    check: () => checkCall(callOf(input)),
  })),
});
