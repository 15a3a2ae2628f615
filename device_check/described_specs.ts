/**
 * Takes the place of tfjs's `jasmine_util` in the page. tfjs makes a new backend for each group of specs, and compiles
 * every shader again; here all groups run on one backend after the other, each started once.
 */
import type {Constraints, TestEnv} from '@tensorflow/tfjs-core/dist/jasmine_util';

export type DescribedSpecs = {name: string; constraints: Constraints; specs: (env: TestEnv) => void};

const described: DescribedSpecs[] = [];

export const ALL_ENVS: Constraints = {};

export function describeWithFlags(name: string, constraints: Constraints, specs: (env: TestEnv) => void): void {
  described.push({name, constraints, specs});
}

/** The groups that were described since the last call. */
export const takeDescribed = (): DescribedSpecs[] => described.splice(0);
