/**
 * The fuzzer in a page, for scripts/fuzz.mjs. Options are in its address; it posts its lines and at last the result.
 */
import {fuzzOptions, runFuzz} from './run';

let posted: Promise<unknown> = Promise.resolve();
const post = (path: string, body: string) => (posted = posted.then(() => fetch(path, {method: 'POST', body})));

runFuzz(fuzzOptions(Object.fromEntries(new URLSearchParams(location.search))), (line) => void post('line', line))
  .catch((error: unknown) => {
    void post('line', String(error));
    return {numFailures: 1};
  })
  .then((result) => post('done', JSON.stringify(result)))
  .catch(console.error);
