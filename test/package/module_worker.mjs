/** A module worker: WebGL there has an OffscreenCanvas. Answers a list of backends by the error, or undefined. */
import {runsOn} from './every_backend.mjs';

globalThis.onmessage = ({data}) =>
  runsOn(data).then(
    () => postMessage(undefined),
    (error) => postMessage(String(error)),
  );
