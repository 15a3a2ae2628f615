/** The fuzzer in Node.js, for scripts/fuzz.mjs: its one argument is the options, as JSON. */
import '../support/webgpu_globals';
import {type FuzzOptions, runFuzz} from './run';

runFuzz(JSON.parse(process.argv[2]) as FuzzOptions, console.log).then(
  // Dawn keeps the process alive.
  ({numFailures}) => process.exit(numFailures === 0 ? 0 : 1),
  (error: unknown) => {
    console.error(error);
    process.exit(1);
  },
);
