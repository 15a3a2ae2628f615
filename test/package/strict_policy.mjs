/** In a page and in a module worker, under a policy that forbids eval. `wasm` runs where the policy allows it. */
import {runsOn} from './every_backend.mjs';

const backendNames = location.search === '?wasm' ? ['wasm'] : ['cpu', 'webgl', 'webgpu'];

function inWorker() {
  const worker = new Worker('module_worker.bundle.js', {type: 'module'});
  return new Promise((resolve, reject) => {
    worker.onmessage = ({data: error}) => (error == null ? resolve() : reject(new Error(`In a worker: ${error}`)));
    worker.onerror = ({message}) => reject(new Error(`The worker did not start: ${message}`));
    worker.postMessage(backendNames);
  });
}

/** What was forbidden: tfjs's dependency `long` asks for WebAssembly, and does without. */
const forbidden = [];
addEventListener('securitypolicyviolation', ({blockedURI, sourceFile, lineNumber}) => {
  if (blockedURI !== 'wasm-eval') {
    forbidden.push(`${blockedURI} at ${sourceFile}:${lineNumber}`);
  }
});

async function run() {
  try {
    new Function('')();
  } catch {
    // Reported like every other use of eval.
  }
  await runsOn(backendNames);
  await inWorker();
  if (forbidden.length !== 1) {
    throw new Error(`Besides this page's own eval, the policy should forbid nothing, but forbade [${forbidden}].`);
  }
}

// Not in the call of `check`: code that a browser's debugger calls may use eval.
const result = run();
result.catch(() => {});
globalThis.check = () => result;
