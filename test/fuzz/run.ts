/** Tries draws until there were enough assignments or the time is over, and reports failures. */
import * as fc from 'fast-check';
import type {Attempt} from './attempt';
import {type BackendName, deviceName, isLost, startBackend} from './backend';
import {badInputs} from './bad_input';
import {fusedExpertsCalls, fusedMoeCalls} from './fused';
import {groupedMatMulCalls} from './grouped_mat_mul';
import {layers} from './layer';
import {lostDevice} from './lost_device';
import {loadBalancingLossCalls, zLossCalls} from './losses';
import {alignCalls, permuteBlockAlignedCalls, permuteCalls} from './permute';
import {topkCalls} from './topk';
import {sumCalls, unpermuteAndReduceCalls, unpermuteCalls} from './unpermute';

export type FuzzOptions = {
  backend: BackendName;
  /** Draw i has the seed `seed` + i, so that any draw can be repeated as the first. */
  seed: number;
  minutes: number;
  /** The number of assignments. */
  count: number;
};

/** The options of flags. A limit that is not given is infinite. */
export const fuzzOptions = ({backend, seed, minutes, count}: Record<string, string | undefined>): FuzzOptions => ({
  backend: backend as BackendName,
  seed: Number(seed),
  minutes: Number(minutes ?? Infinity),
  count: Number(count ?? Infinity),
});

const attempts = [
  permuteCalls, permuteBlockAlignedCalls, alignCalls, unpermuteCalls, unpermuteAndReduceCalls, sumCalls, topkCalls,
  groupedMatMulCalls, fusedExpertsCalls, fusedMoeCalls, zLossCalls, loadBalancingLossCalls, badInputs, layers,
];
const anyAttempt: fc.Arbitrary<Attempt> = fc.noBias(fc.oneof(...attempts));
/** Rarely, because a new device compiles all programs again. */
const LOSS_EVERY = 1000;

const SHRINKING_MS = 60_000;
const PROGRESS_MS = 5_000;
/** Longer than any draw takes, also on a software GPU of a busy machine. */
const TIMEOUT_MS = 600_000;
const MAX_PRINTED = 3_000;

export async function runFuzz(
  {backend, seed, minutes, count}: FuzzOptions,
  print: (line: string) => void,
): Promise<{numFailures: number}> {
  await startBackend(backend);
  const device = await deviceName();
  print(`Fuzzing ${backend} (${device}) from seed ${seed}`);
  const end = performance.now() + 60_000 * minutes;
  let nextReport = performance.now() + PROGRESS_MS;
  let numAssignments = 0;
  let numDraws = 0;
  const failures = new Map<string, number>();
  const numFailures = () => Array.from(failures.values()).reduce((sum, times) => sum + times, 0);

  while (numAssignments < count && performance.now() < end) {
    const drawSeed = (seed + numDraws) | 0;
    numDraws++;
    const failure = await failureOf(drawSeed, backend, (attempt) => (numAssignments += attempt.numAssignments), failures);
    if (failure != null) {
      failures.set(failure.kind, (failures.get(failure.kind) ?? 0) + 1);
      print(failure.message);
      if (failure.isStuck) {
        break;
      }
    }
    if (performance.now() >= nextReport) {
      print(`… ${numAssignments} assignments in ${numDraws} draws, ${numFailures()} failures`);
      nextReport = performance.now() + PROGRESS_MS;
    }
  }
  print(`fuzz: ${numAssignments} assignments in ${numDraws} draws on ${backend} (${device}), ${numFailures()} failures`);
  return {numFailures: numFailures()};
}

type Failure = {
  kind: string;
  message: string;
  /** Whether the draw is still running. Then later failures cannot be told apart from its own. */
  isStuck: boolean;
};

/** Tries the draw of a seed. A failing draw is shrunk, unless a draw of its kind has failed before. */
async function failureOf(
  seed: number,
  backend: BackendName,
  onDraw: (attempt: Attempt) => void,
  known: Map<string, number>,
): Promise<Failure | undefined> {
  let isFirst = true;
  let deadline = Infinity;
  const property = fc.asyncProperty(seed % LOSS_EVERY === 0 ? lostDevice : anyAttempt, async (attempt) => {
    if (isFirst) {
      isFirst = false;
      onDraw(attempt);
    }
    // With fast-check's own limits, draws would go on running.
    if (performance.now() > deadline) {
      return;
    }
    try {
      await withinTime(attempt.check());
    } catch (error) {
      if (await isLost()) {
        await startBackend(backend);
      }
      throw error;
    }
  });
  const first = await fc.check(property, {seed, numRuns: 1, endOnFailure: true});
  if (!first.failed) {
    return undefined;
  }
  const kind = kindOf(first);
  const isStuck = first.errorInstance instanceof StuckError;
  const again = `seed ${seed}, --seed ${seed} --count 1 runs it again`;
  if (known.has(kind)) {
    return {kind, isStuck, message: `FAILED once more, ${again}: ${kind}`};
  }
  deadline = performance.now() + SHRINKING_MS;
  const shrunk = isStuck ? first : await fc.check(property, {seed, numRuns: 1});
  const [attempt] = (shrunk.counterexample ?? first.counterexample)!;
  const input = fc.stringify(attempt.input).replaceAll('__proto__:null,', '');
  const lines = [
    `FAILED ${attempt.name}: ${messageOf(shrunk.failed ? shrunk : first)}`,
    `  ${again}; after ${shrunk.numShrinks} shrinks:`,
    `  ${input.length > MAX_PRINTED ? `${input.slice(0, MAX_PRINTED)} …` : input}`,
  ];
  return {kind, isStuck, message: lines.join('\n')};
}

type Failed = fc.RunDetails<[Attempt]>;
const messageOf = ({errorInstance}: Failed) =>
  errorInstance instanceof Error ? errorInstance.message : String(errorInstance);
/** The op and its failure, without the numbers. */
const kindOf = (details: Failed) =>
  `${details.counterexample?.[0].name}: ${messageOf(details).replace(/-?\b\d[\d.e+-]*|NaN|-?Infinity/g, '#').slice(0, 100)}`;

class StuckError extends Error {}

async function withinTime(work: Promise<void>): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new StuckError(`did not end in ${TIMEOUT_MS / 1000} s`)), TIMEOUT_MS);
  });
  try {
    await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
