/** The draws of the fuzzer: an op with its input, or an event, ready to be tried. */
import * as fc from 'fast-check';
import {type Call, checkCall} from './call';
import {coreOps} from './core_ops';
import {oneOf} from './numbers';

export type Attempt = {
  name: string;
  /** The draw as text, to be printed if it fails. */
  input: object;
  /** N, or the number of rows of an op without routing. */
  numAssignments: number;
  check: () => Promise<void>;
};
export type Attempts = {weight: number; arbitrary: fc.Arbitrary<Attempt>};

/** Calls of one op, each with a core op for its results, and with small tensors of tfjs's ops on the host or not. */
export const callsOf = <Draw extends object>(
  weight: number,
  name: string,
  draws: fc.Arbitrary<Draw>,
  numAssignments: (draw: Draw) => number,
  callOf: (draw: Draw) => Call,
): Attempts => ({
  weight,
  arbitrary: fc.tuple(draws, oneOf(...coreOps), fc.boolean()).map(([draw, coreOp, forwardsToHost]) => ({
    name,
    input: {...draw, coreOp, forwardsToHost},
    numAssignments: numAssignments(draw),
    check: () => checkCall(callOf(draw), {coreOp, forwardsToHost}),
  })),
});
