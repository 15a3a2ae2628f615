/** The report of a device: what was checked, with which result, and the verdict in words. */
import type {AbsentBackend, Device} from './backends';

export type CheckReport = {
  title: string;
  passed: number;
  failed: number;
  seconds: number;
  /** Random routings that were tried, where the check is of these. */
  routings?: {done: number; wanted: number};
  /** The first failures, as sentences. */
  failures: string[];
};
export type BackendReport = {
  name: string;
  device: Device;
  /** How long the compilation of all shaders took, before the checks. */
  shaderSeconds: number;
  checks: CheckReport[];
};
export type Report = {
  package: string;
  tfjs: string;
  date: string;
  page: string;
  userAgent: string;
  /** `?seed=` of the page draws the same routings again. */
  seed: number;
  seconds: number;
  passed: boolean;
  verdict: string[];
  backends: BackendReport[];
  absent: AbsentBackend[];
};

const MAX_FAILURES = 5;
const MAX_LENGTH = 600;

export function addFailure({failures}: CheckReport, message: string): void {
  if (failures.length < MAX_FAILURES) {
    failures.push(message.length > MAX_LENGTH ? `${message.slice(0, MAX_LENGTH)} …` : message);
  }
}

const sum = (checks: CheckReport[], what: 'passed' | 'failed') =>
  checks.reduce((total, check) => total + check[what], 0);
const counted = (count: number) => count.toLocaleString('en-US');

export const hasFailed = ({checks}: BackendReport): boolean => sum(checks, 'failed') > 0;

/** Whether something ran, and nothing of it failed. */
export const hasPassed = (backends: BackendReport[]): boolean =>
  backends.some(({checks}) => sum(checks, 'passed') > 0) && !backends.some(hasFailed);

function verdictOf(backend: BackendReport): string {
  const {name, device, checks} = backend;
  const all = sum(checks, 'passed') + sum(checks, 'failed');
  if (hasFailed(backend)) {
    const failed = checks.filter((check) => check.failed > 0).map(({title}) => title.toLowerCase());
    return `${name} gives wrong results: ${counted(sum(checks, 'failed'))} of ${counted(all)} checks failed (${failed.join(', ')}). Device: ${device.name}.`;
  }
  return `${name} is right: all of its ${counted(all)} checks passed. Device: ${device.name}.`;
}

/** The number of routings, where there was no time for them all. */
function routingsOf({name, device, checks}: BackendReport): string[] {
  return checks.flatMap(({routings}) =>
    routings == null || routings.done >= routings.wanted
      ? []
      : [
          `${name} had time for ${counted(routings.done)} of ${counted(routings.wanted)} random routings` +
            `${device.isSoftware ? ', because its GPU is made of software' : ''}.`,
        ],
  );
}

/** A sentence for each backend, and for what was not there. */
export const verdict = (backends: BackendReport[], absent: AbsentBackend[]): string[] => [
  ...backends.map(verdictOf),
  ...backends.flatMap(routingsOf),
  ...absent.map(({name, reason}) => `${name} was not there. ${reason}`),
];
