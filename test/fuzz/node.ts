/** The fuzzer in Node.js, for scripts/fuzz.mjs. */
import {parseArgs} from 'node:util';
import '../runner/webgpu_globals';
import {fuzzOptions, runFuzz} from './run';

const string = {type: 'string'} as const;
const {values} = parseArgs({options: {backend: string, seed: string, minutes: string, count: string}});

runFuzz(fuzzOptions(values), console.log).then(
  // Dawn keeps the process alive.
  ({numFailures}) => process.exit(numFailures === 0 ? 0 : 1),
  (error: unknown) => {
    console.error(error);
    process.exit(1);
  },
);
