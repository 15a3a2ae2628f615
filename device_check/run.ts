/** Runs the checks on each backend that starts, and makes the report. */
import {jasmineEnv} from './jasmine';
import * as tf from '../src/tf';
import {type AbsentBackend, backendNames, startBackend, type StartedBackend} from './backends';
import {type Check, loadChecks} from './checks';
import type {DescribedSpecs} from './described_specs';
import {randomRoutings} from './random_routings';
import {addFailure, type BackendReport, type CheckReport, hasPassed, type Report, verdict} from './report';
import {compileShaders} from './shader_compilation';
import {results} from '../test/support/expect';
import '../test/runner/webgpu_errors';

export type Events = {
  onStart: (backends: BackendReport[], absent: AbsentBackend[], numSpecs: number) => void;
  /** The shaders of a backend are compiled from now on. */
  onShaders: (backend: BackendReport) => void;
  /** A spec or some routings of a check are through. */
  onProgress: (check: CheckReport, numDone: number) => void;
  /** A check begins or ends. */
  onCheck: (backend: BackendReport, check: CheckReport, isOver: boolean) => void;
};

/** A check takes 20 s at most on a GPU: the random routings that are under way at the end take some more. */
export const SECONDS_OF_BACKEND = 18;
const SPEC_TIMEOUT_MS = 120_000;
/** A software GPU on a busy machine takes minutes. */
const SHADERS_TIMEOUT_MS = 600_000;
const secondsSince = (start: number): number => Math.round((performance.now() - start) / 100) / 10;

/** Describes the checks on a backend. The scopes are those of tfjs's own specs. */
function describeBackend(
  {env}: StartedBackend,
  checks: Check[],
  {seconds, noteShaders}: {seconds: number; noteShaders: (seconds: number) => void},
): void {
  const fits = ({constraints}: DescribedSpecs) => constraints.predicate?.(env) ?? true;
  describe(env.name, () => {
    beforeAll(async () => {
      tf.env().setFlags({...env.flags});
      expect(await tf.setBackend(env.backendName)).toBeTrue();
      const start = performance.now();
      randomRoutings.end = start + 1000 * seconds;
      await compileShaders(
        env,
        checks.flatMap(({groups}) => groups.filter(fits)),
      );
      noteShaders(secondsSince(start));
      expect(results.areLookedAt).toBeTrue();
    }, SHADERS_TIMEOUT_MS);
    beforeEach(() => {
      // On wasm tfjs copies what a custom gradient saves, and its check of kernels takes the copies for a leak.
      tf.env().set('IS_TEST', env.name !== 'wasm');
      tf.engine().startScope();
    });
    afterEach(() => {
      tf.engine().endScope();
      tf.disposeVariables();
    });
    for (const {title, groups} of checks) {
      describe(title, () => {
        groups.filter(fits).forEach(({name, specs}) => describe(name, () => specs(env)));
      });
    }
  });
}

/** Follows jasmine's suites: the outermost is a backend, the next a check. */
function reporterOf(backends: BackendReport[], events: Events): jasmine.CustomReporter {
  const suites: string[] = [];
  let numDone = 0;
  let checkStart = 0;
  const current = () => {
    const backend = backends.find(({name}) => name === suites[0])!;
    // What fails outside of a check, such as the start of a backend, counts as a failure of its first check.
    const check = backend.checks.find(({title}) => title === suites[1]) ?? backend.checks[0];
    return {backend, check};
  };
  const addFailures = (name: string, failures: Array<{message: string}> | undefined) =>
    failures?.forEach(({message}) => addFailure(current().check, `${name}: ${message}`));
  return {
    suiteStarted: ({description}) => {
      suites.push(description);
      if (suites.length === 1) {
        events.onShaders(current().backend);
      }
      if (suites.length === 2) {
        checkStart = performance.now();
        const {backend, check} = current();
        randomRoutings.onProgress = (done) => {
          check.routings = {done, wanted: randomRoutings.wanted};
          events.onProgress(check, numDone);
        };
        events.onCheck(backend, check, false);
      }
    },
    specDone: ({description, status, failedExpectations}) => {
      const {check} = current();
      check[status === 'passed' ? 'passed' : 'failed']++;
      addFailures(description, failedExpectations);
      numDone++;
      events.onProgress(check, numDone);
    },
    suiteDone: ({description, failedExpectations}) => {
      const {backend, check} = current();
      check.failed += failedExpectations?.length ?? 0;
      addFailures(description, failedExpectations);
      if (suites.length === 2) {
        check.seconds = secondsSince(checkStart);
        events.onCheck(backend, check, true);
      }
      suites.pop();
    },
  };
}

/** Starts the wanted backends; cpu only where wasm does not start, or where it alone is wanted. */
async function startBackends(names: string[]): Promise<{started: StartedBackend[]; absent: AbsentBackend[]}> {
  const started: StartedBackend[] = [];
  const absent: AbsentBackend[] = [];
  for (const name of backendNames.filter((known) => names.includes(known))) {
    if (name === 'cpu' && started.some(({env}) => env.name === 'wasm')) {
      continue;
    }
    const backend = await startBackend(name);
    if ('env' in backend) {
      started.push(backend);
    } else {
      absent.push(backend);
    }
  }
  return {started, absent};
}

/** Draws random routings from `seed`, for what the other checks leave of a backend's `seconds`. */
export async function checkDevice(
  names: string[],
  {seed, seconds}: {seed: number; seconds: number},
  events: Events,
): Promise<Report> {
  const start = performance.now();
  randomRoutings.seed = seed;
  const {started, absent} = await startBackends(names);
  const checks = loadChecks();
  const backends = started.map(({env, device}): BackendReport => ({
    name: env.name,
    device,
    shaderSeconds: 0,
    checks: checks.map(({title}) => ({title, passed: 0, failed: 0, seconds: 0, failures: []})),
  }));
  jasmine.DEFAULT_TIMEOUT_INTERVAL = SPEC_TIMEOUT_MS;
  started.forEach((backend, b) => {
    const noteShaders = (ofShaders: number) => (backends[b].shaderSeconds = ofShaders);
    describeBackend(backend, checks, {seconds, noteShaders});
  });
  jasmineEnv.addReporter({
    jasmineStarted: ({totalSpecsDefined}) => events.onStart(backends, absent, totalSpecsDefined),
    ...reporterOf(backends, events),
  });
  await jasmineEnv.execute();
  return {
    package: `tfjs-moe ${tf.version_moe}`,
    tfjs: tf.version.tfjs,
    date: new Date().toISOString(),
    page: location.href,
    userAgent: navigator.userAgent,
    seed,
    seconds: secondsSince(start),
    passed: hasPassed(backends),
    verdict: verdict(backends, absent),
    backends,
    absent,
  };
}
