/**
 * Steps of a model that a backend can repeat: the launches of a computation, without the JavaScript that asked for
 * them.
 */
import {backend, getBackend, type KernelBackend, type Tensor} from '@tensorflow/tfjs-core';

/** A step that can be repeated. The tensor that it computed stays until `dispose`, and each run changes its values. */
export type RecordedStep = {
  /** False if the step must be recorded anew: the backend has given up what it needs, or times its programs. */
  isCurrent(): boolean;
  /** Repeats the step with these values of its inputs. */
  run(inputValues: readonly Int32Array[]): void;
  dispose(): void;
};

/** `recorded` is absent if the step cannot be repeated. */
export type RecordedOutput<Output extends Tensor> = {output: Output; recorded?: RecordedStep};

/**
 * Runs a step and records it. `inputs` are int32. All other tensors that the step reads must stay as long as the
 * recording. The step waits for nothing, and has run before with inputs of the same shapes.
 */
export type StepRecorder<Backend extends KernelBackend = KernelBackend> = <Output extends Tensor>(
  backend: Backend,
  inputs: readonly Tensor[],
  step: () => Output,
) => RecordedOutput<Output>;

const recorders = new Map<string, StepRecorder>();

/** Gives backends of this name a recorder. */
export function registerStepRecorder(backendName: string, recorder: StepRecorder): void {
  recorders.set(backendName, recorder);
}

export const canRecordSteps = (): boolean => recorders.has(getBackend());

/** Records a step on the current backend, as {@link StepRecorder} says. */
export const recordStep = <Output extends Tensor>(
  inputs: readonly Tensor[],
  step: () => Output,
): RecordedOutput<Output> => recorders.get(getBackend())!(backend(), inputs, step);
