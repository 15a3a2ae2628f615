/** Gives Node.js what the specs take from a browser and from Karma. Imported before anything of tfjs. */
import {readFile} from 'node:fs/promises';
import {createRequire} from 'node:module';
import {join} from 'node:path';
import './webgpu_globals';

const require = createRequire(__filename);
const root = join(__dirname, '..');
const [backendName] = process.argv.slice(2);

type SpecResult = {
  fullName: string;
  status: string;
  failedExpectations: Array<{message: string; stack: string}>;
};
type JasmineEnv = jasmine.Env & {execute(): Promise<{overallStatus: string; incompleteReason?: string}>};
type JasmineCore = {boot(core: JasmineCore): {getEnv(): JasmineEnv; DEFAULT_TIMEOUT_INTERVAL: number}};

const jasmineCore = require('jasmine-core') as JasmineCore;
const jasmineOfNode = jasmineCore.boot(jasmineCore);
jasmineOfNode.DEFAULT_TIMEOUT_INTERVAL = 120_000;
const jasmineEnv = jasmineOfNode.getEnv();
jasmineEnv.configure({random: false});

Object.assign(globalThis, {__karma__: {config: {args: ['--backends', backendName]}}});

/** Karma serves the repository below /base. */
const fetchOfNode = globalThis.fetch;
globalThis.fetch = async (input, init) => {
  const [, path] = /^\/base\/(.*)$/.exec(String(input)) ?? [];
  return path == null ? fetchOfNode(input, init) : new Response(await readFile(join(root, path)));
};

/** Runs what was described, writes failures and the last line `N passed, N failed`, and ends the process. */
export async function specsAreDone(): Promise<void> {
  const counts = {passed: 0, failed: 0};
  jasmineEnv.addReporter({
    specDone({fullName, status, failedExpectations}: SpecResult) {
      counts[status === 'passed' ? 'passed' : 'failed']++;
      if (status !== 'passed') {
        const reasons = failedExpectations.map(({message, stack}) => `${message}\n${stack}`);
        console.log(`FAILED ${fullName}\n${reasons.join('\n') || status}`);
      }
    },
    suiteDone({fullName, failedExpectations}: SpecResult) {
      for (const {message, stack} of failedExpectations) {
        counts.failed++;
        console.log(`FAILED ${fullName}\n${message}\n${stack}`);
      }
    },
  } as unknown as jasmine.CustomReporter);
  const {overallStatus, incompleteReason} = await jasmineEnv.execute();
  if (overallStatus !== 'passed' && counts.failed === 0) {
    counts.failed++;
    console.log(`FAILED: ${incompleteReason ?? overallStatus}`);
  }
  console.log(`${counts.passed} passed, ${counts.failed} failed`);
  // Dawn keeps the process alive.
  process.exit(counts.failed === 0 ? 0 : 1);
}
