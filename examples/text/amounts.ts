import {countOf} from '../shared/count_of';
import type {ModelSize} from './model';

export type Amounts = ModelSize & {
  numSteps: number;
  /** Windows of a step. */
  batchSize: number;
  learningRate: number;
  stepsPerReport: number;
  /** Characters of a sample, after its prompt. */
  sampleLength: number;
};

/** What plain JavaScript does in some two minutes. */
const onCpu: Amounts = {
  numLayers: 2,
  hiddenSize: 64,
  expertSize: 32,
  windowLength: 32,
  numSteps: 120,
  batchSize: 8,
  learningRate: 0.01,
  stepsPerReport: 30,
  sampleLength: 200,
};

const onGpu: Amounts = {
  numLayers: 3,
  hiddenSize: 128,
  expertSize: 128,
  windowLength: 128,
  numSteps: 600,
  batchSize: 64,
  learningRate: 0.003,
  stepsPerReport: 250,
  sampleLength: 300,
};

/** The amounts for a backend. `steps` is of the command line. */
export function amountsFor(backend: string, steps: string | null | undefined): Amounts {
  const amounts = backend === 'cpu' ? onCpu : onGpu;
  return {...amounts, numSteps: steps == null ? amounts.numSteps : countOf('steps', steps, 1_000_000)};
}
