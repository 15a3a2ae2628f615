/**
 * What a kernel does on a GPU, kept for the next call with the same shapes, dtypes and attributes.
 *
 * A kernel reads no value of a tensor. So its steps, which are to make tensors, to launch programs on them, and to
 * dispose of what is between launches, follow from these, from flags of tfjs, and from what it asks about its inputs.
 * The first call runs the kernel and notes the steps; later calls repeat them on other tensors, and do not compute
 * shapes, uniforms and keys again.
 */
import type {DataType, KernelBackend, TensorInfo} from '@tensorflow/tfjs-core';
import {disposeAll} from './gpu_kernel';

type DataId = TensorInfo['dataId'];

export type Step<Backend> = {
  /** Does the step on these tensors. The result is the tensor that it makes, if it makes one. */
  run: (backend: Backend, tensors: readonly TensorInfo[]) => TensorInfo | undefined;
  /** Gives back what the step holds on the device. */
  free?: () => void;
};

/** What the tensor of an input is like, besides its shape and dtype. */
export type Question<Backend> = (backend: Backend, input: TensorInfo) => boolean;

/** A tensor of a call by its number: inputs come first, in order, then what the kernel makes. */
type Slot = number;

type Output = {name: string; slot: Slot; shape: number[]; dtype: DataType};

type Recording<Backend> = {
  asked: Array<{slot: Slot; question: Question<Backend>; answer: boolean}>;
  steps: Array<{step: Step<Backend>; slots: Slot[]}>;
  outputs: Output[];
};

/** Shapes and dtypes of inputs by name, and attributes. */
type Signature = {names: string[]; shapes: number[][]; dtypes: DataType[]; attrs: Record<string, unknown>};

/** More calls than these differ, as where T is another each time: the kernel then runs anew. */
const MAX_RECORDINGS = 64;

type Kept<Backend> = Array<{signature: Signature; recording: Recording<Backend>}>;

type KeptOfBackend<Backend> = {flags: readonly unknown[]; byKernel: Map<string, Kept<Backend>>};

type Running<Backend> = Omit<Recording<Backend>, 'outputs'> & {numInputs: number; slots: Map<DataId, Slot>};

type RecorderOptions<Backend> = {
  /** The flags of tfjs that kernels depend on. */
  flags?: () => unknown[];
  /** Called before steps give back what they hold: launches under way may use it. */
  beforeFree?: (backend: Backend) => void;
};

const disposal: Step<KernelBackend> = {
  run: (backend, tensors) => {
    disposeAll(backend, tensors);
    return undefined;
  },
};

/** The recordings of one kind of backend. */
export class Recorder<Backend extends KernelBackend> {
  private readonly options: RecorderOptions<Backend>;
  /** Launches belong to one device, and so to one backend. */
  private kept = new WeakMap<Backend, KeptOfBackend<Backend>>();
  private running: Running<Backend> | undefined;
  /** How often steps have given back what they hold. What was launched before then cannot be launched again. */
  numFreed = 0;

  constructor(options: RecorderOptions<Backend>) {
    this.options = options;
  }

  /** Does a step of the running kernel. */
  step(backend: Backend, step: Step<Backend>, tensors: readonly TensorInfo[]): TensorInfo | undefined {
    const made = step.run(backend, tensors);
    if (this.running != null) {
      const {slots, steps} = this.running;
      steps.push({step, slots: tensors.map(({dataId}) => slots.get(dataId)!)});
      if (made != null) {
        slots.set(made.dataId, slots.size);
      }
    }
    return made;
  }

  /** Gives back intermediate tensors. What was launched on them runs first: tfjs keeps their memory until then. */
  dispose(backend: Backend, tensors: readonly TensorInfo[]): void {
    this.step(backend, disposal, tensors);
  }

  /** Answers a question about a tensor. About an input, it is asked again before the steps are repeated. */
  ask(backend: Backend, tensor: TensorInfo, question: Question<Backend>): boolean {
    const answer = question(backend, tensor);
    const slot = this.running?.slots.get(tensor.dataId);
    if (slot != null && slot < this.running!.numInputs) {
      this.running!.asked.push({slot, question, answer});
    }
    return answer;
  }

  /** Runs the kernel, or repeats its steps where it has run with the same attributes and inputs of the same shapes. */
  run<Outputs extends Record<string, TensorInfo | undefined>>(
    backend: Backend,
    kernelName: string,
    inputs: Record<string, TensorInfo | undefined>,
    attrs: object,
    run: () => Outputs,
  ): Outputs {
    const given: TensorInfo[] = [];
    const names: string[] = [];
    for (const name of Object.keys(inputs)) {
      const input = inputs[name];
      if (input != null) {
        names.push(name);
        given.push(input);
      }
    }
    const kept = this.keptOf(backend, kernelName);
    const found = kept.find(
      ({signature, recording}) =>
        isOf(signature, names, given, attrs as Record<string, unknown>) &&
        recording.asked.every(({slot, question, answer}) => question(backend, given[slot]) === answer),
    );
    if (found != null) {
      return repeatSteps(backend, found.recording, given) as Outputs;
    }
    // One tensor for two inputs could not be told apart.
    const slots = new Map(given.map(({dataId}, slot) => [dataId, slot]));
    if (slots.size < given.length) {
      return run();
    }
    const running: Running<Backend> = {numInputs: given.length, slots, asked: [], steps: []};
    this.running = running;
    try {
      const outputs = run();
      if (kept.length === MAX_RECORDINGS) {
        this.free(backend, kept.splice(0, MAX_RECORDINGS / 2));
      }
      const {asked, steps} = running;
      kept.push({
        signature: signatureOf(names, given, attrs),
        recording: {asked, steps, outputs: outputsOf(outputs, slots)},
      });
      return outputs;
    } finally {
      this.running = undefined;
    }
  }

  /** Kernels run anew after it on this backend. */
  forget(backend: Backend): void {
    this.kept.get(backend)?.byKernel.forEach((kept) => this.free(backend, kept));
    this.kept.delete(backend);
  }

  /** Kernels run anew after it on every backend. Nothing is given back. */
  forgetAll(): void {
    this.kept = new WeakMap();
  }

  private free(backend: Backend, kept: Kept<Backend>): void {
    this.numFreed++;
    this.options.beforeFree?.(backend);
    for (const {recording} of kept) {
      recording.steps.forEach(({step}) => step.free?.());
    }
  }

  private keptOf(backend: Backend, kernelName: string): Kept<Backend> {
    const flags = this.options.flags?.() ?? [];
    let ofBackend = this.kept.get(backend);
    if (ofBackend?.flags.some((flag, i) => flag !== flags[i]) === true) {
      this.forget(backend);
      ofBackend = undefined;
    }
    if (ofBackend == null) {
      ofBackend = {flags, byKernel: new Map()};
      this.kept.set(backend, ofBackend);
    }
    let kept = ofBackend.byKernel.get(kernelName);
    if (kept == null) {
      kept = [];
      ofBackend.byKernel.set(kernelName, kept);
    }
    return kept;
  }
}

const signatureOf = (names: string[], given: TensorInfo[], attrs: object): Signature => ({
  names,
  shapes: given.map(({shape}) => shape.slice()),
  dtypes: given.map(({dtype}) => dtype),
  attrs: {...attrs},
});

function isOf(signature: Signature, names: string[], given: TensorInfo[], attrs: Record<string, unknown>): boolean {
  if (names.length !== signature.names.length) {
    return false;
  }
  for (let i = 0; i < names.length; i++) {
    const {shape, dtype} = given[i];
    const wanted = signature.shapes[i];
    if (dtype !== signature.dtypes[i] || shape.length !== wanted.length || names[i] !== signature.names[i]) {
      return false;
    }
    for (let axis = 0; axis < wanted.length; axis++) {
      if (shape[axis] !== wanted[axis]) {
        return false;
      }
    }
  }
  for (const name in signature.attrs) {
    if (attrs[name] !== signature.attrs[name]) {
      return false;
    }
  }
  return true;
}

function outputsOf(outputs: Record<string, TensorInfo | undefined>, slots: Map<DataId, Slot>): Output[] {
  return Object.entries(outputs).flatMap(([name, tensor]) =>
    tensor == null ? [] : {name, slot: slots.get(tensor.dataId)!, shape: tensor.shape, dtype: tensor.dtype},
  );
}

function repeatSteps<Backend>(
  backend: Backend,
  {steps, outputs}: Recording<Backend>,
  inputs: TensorInfo[],
): Record<string, TensorInfo> {
  const tensors = inputs.slice();
  for (const {step, slots} of steps) {
    const made = step.run(
      backend,
      slots.map((slot) => tensors[slot]),
    );
    if (made != null) {
      tensors.push(made);
    }
  }
  const named: Record<string, TensorInfo> = {};
  for (const {name, slot, shape, dtype} of outputs) {
    named[name] = {dataId: tensors[slot].dataId, shape, dtype};
  }
  return named;
}
