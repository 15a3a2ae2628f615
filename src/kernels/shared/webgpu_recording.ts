/**
 * What a kernel does, kept for the next call with the same shapes, dtypes and attributes.
 *
 * A kernel reads no value of a tensor. So its steps, which are to make tensors, to launch programs on them, and to
 * dispose of what is between launches, follow from these alone. The first call runs the kernel and notes the steps;
 * later calls repeat them on other tensors, and do not compute shapes, uniforms and keys again.
 */
import {type DataType, type TensorInfo, util} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {disposeAll as disposeTensors, noteMade} from './gpu_kernel';
import {type Launch, recordLaunch} from './webgpu_launch';

type DataId = TensorInfo['dataId'];

/** A tensor of a call by its number: inputs come first, in order, then what the kernel makes. */
type Slot = number;

type Step =
  | {kind: 'make'; shape: number[]; dtype: 'int32' | 'float32'}
  | {kind: 'launch'; launch: Launch; slots: Slot[]}
  | {kind: 'dispose'; slot: Slot};

type Output = {name: string; slot: Slot; shape: number[]; dtype: DataType};

type Recording = {steps: Step[]; outputs: Output[]};

/** Shapes and dtypes of inputs by name, and attributes: all that a kernel's steps depend on. */
type Signature = {names: string[]; shapes: number[][]; dtypes: DataType[]; attrs: Record<string, unknown>};

/** More calls than these differ, as where T is another each time: the kernel then runs anew. */
const MAX_RECORDINGS = 64;

type Kept = Array<{signature: Signature; recording: Recording}>;

/** By backend and kernel name. Launches have buffers of one device. */
const recordings = new WeakMap<WebGPUBackend, Map<string, Kept>>();

let running: {slots: Map<DataId, Slot>; steps: Step[]} | undefined;

/** A tensor whose elements a program is about to write. */
export function newTensor(backend: WebGPUBackend, shape: number[], dtype: 'int32' | 'float32'): TensorInfo {
  const isEmpty = util.sizeFromShape(shape) === 0;
  const values = isEmpty ? util.getTypedArrayFromDType(dtype, 0) : undefined;
  const tensor = noteMade(backend.makeTensorInfo(shape, dtype, values));
  if (running != null) {
    running.slots.set(tensor.dataId, running.slots.size);
    running.steps.push({kind: 'make', shape, dtype});
  }
  return tensor;
}

/** Launches a program on these tensors, in binding order. */
export function launchOn(backend: WebGPUBackend, launch: Launch, tensors: readonly TensorInfo[]): void {
  running?.steps.push({kind: 'launch', launch, slots: tensors.map(({dataId}) => running!.slots.get(dataId)!)});
  recordLaunch(backend, launch, tensors);
}

/** Gives back intermediate tensors. What was launched on them runs first: tfjs keeps their memory until then. */
export function disposeAll(backend: WebGPUBackend, tensors: readonly TensorInfo[]): void {
  tensors.forEach(({dataId}) => running?.steps.push({kind: 'dispose', slot: running.slots.get(dataId)!}));
  disposeTensors(backend, tensors);
}

/** Runs the kernel, or repeats its steps where it has run with the same attributes and inputs of the same shapes. */
export function runRecorded<Outputs extends Record<string, TensorInfo | undefined>>(
  backend: WebGPUBackend,
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
  const kept = keptOf(backend, kernelName);
  const found = kept.find(({signature}) => isOf(signature, names, given, attrs as Record<string, unknown>));
  if (found != null) {
    return repeatSteps(backend, found.recording, given) as Outputs;
  }
  // One tensor for two inputs could not be told apart.
  const slots = new Map(given.map(({dataId}, slot) => [dataId, slot]));
  if (slots.size < given.length) {
    return run();
  }
  running = {slots, steps: []};
  try {
    const outputs = run();
    const recording = {steps: running.steps, outputs: outputsOf(outputs, slots)};
    if (kept.length === MAX_RECORDINGS) {
      forget(backend, kept.splice(0, MAX_RECORDINGS / 2));
    }
    kept.push({signature: signatureOf(names, given, attrs), recording});
    return outputs;
  } finally {
    running = undefined;
  }
}

/** Submits what may use the buffers of these recordings, and destroys them. */
function forget(backend: WebGPUBackend, kept: Kept): void {
  backend.ensureCommandEncoderReady();
  backend.endComputePassEncoder();
  backend.submitQueue();
  for (const {recording} of kept) {
    for (const step of recording.steps) {
      if (step.kind === 'launch') {
        step.launch.uniforms.destroy();
      }
    }
  }
}

/** Kernels run anew after it: for specs, which lower the limits of a device. */
export function forgetRecordings(backend: WebGPUBackend): void {
  recordings.get(backend)?.forEach((kept) => forget(backend, kept));
  recordings.delete(backend);
}

function keptOf(backend: WebGPUBackend, kernelName: string): Kept {
  let ofBackend = recordings.get(backend);
  if (ofBackend == null) {
    ofBackend = new Map();
    recordings.set(backend, ofBackend);
  }
  let kept = ofBackend.get(kernelName);
  if (kept == null) {
    kept = [];
    ofBackend.set(kernelName, kept);
  }
  return kept;
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

function repeatSteps(
  backend: WebGPUBackend,
  {steps, outputs}: Recording,
  inputs: TensorInfo[],
): Record<string, TensorInfo> {
  const tensors = inputs.slice();
  for (const step of steps) {
    if (step.kind === 'make') {
      tensors.push(newTensor(backend, step.shape, step.dtype));
    } else if (step.kind === 'launch') {
      launchOn(
        backend,
        step.launch,
        step.slots.map((slot) => tensors[slot]),
      );
    } else {
      disposeAll(backend, [tensors[step.slot]]);
    }
  }
  const named: Record<string, TensorInfo> = {};
  for (const {name, slot, shape, dtype} of outputs) {
    named[name] = {dataId: tensors[slot].dataId, shape, dtype};
  }
  return named;
}
