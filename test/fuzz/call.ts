/**
 * One call of an op, and everything that is checked: outputs, core ops on the outputs, gradients, memory, device
 * errors.
 */
import * as tf from '../../src/tf';
import {assertNoDeviceErrors, assertSameMemory, memoryInUse, valuesOf} from './backend';
import {checkCoreOp, type CoreOp} from './core_ops';
import {type Input, makeInput} from './inputs';
import {assertWanted, type Wanted} from './wanted';

/** Tensors with their types. Some are arrays, which every argument takes as well. */
export type Args = Record<string, tf.Tensor>;
export type Values = Record<string, ArrayLike<number>>;

export type Call = {
  inputs: Record<string, Input>;
  /** A variable for the op to assign; `wanted` has it as an output of this name. */
  out?: {shape: number[]; dtype: 'float32' | 'int32'};
  run: (args: Args, out: tf.Variable | undefined) => tf.NamedTensorMap;
  /**
   * By the outputs' names. It gets the outputs' values, because a choice that rounding decides cannot be known before.
   */
  wanted: (given: Values) => Record<string, Wanted>;
  gradient?: Gradient;
  /** A part of the message that is thrown before any work. */
  throws?: string;
};

export type Gradient = {
  /** The output whose gradient is taken, */
  of: string;
  dy: Input;
  /** and the inputs that it goes to. */
  wanted: (given: Values) => Record<string, Wanted>;
};

export type CallSettings = {
  /** The core op that takes the results. */
  coreOp: CoreOp;
  /** Whether tfjs runs its own ops on the host for small tensors whose values are on the host. */
  forwardsToHost: boolean;
};

export async function checkCall(call: Call, {coreOp, forwardsToHost}: CallSettings): Promise<void> {
  const before = await memoryInUse();
  tf.env().set('WEBGL_CPU_FORWARD', forwardsToHost);
  tf.env().set('WEBGPU_CPU_FORWARD', forwardsToHost);
  const made: Array<tf.Tensor | tf.TensorLike> = [];
  try {
    const args: Args = {};
    for (const [name, input] of Object.entries(call.inputs)) {
      args[name] = (await makeInput(input, call.gradient == null)) as tf.Tensor;
      made.push(args[name]);
    }
    const {shape = [], dtype} = call.out ?? {};
    const out = call.out && tf.tidy(() => tf.variable(tf.zeros(shape, dtype)));
    made.push(...(out == null ? [] : [out]));
    if (call.throws != null) {
      assertThrows(() => call.run(args, out), call.throws);
    } else {
      const outputs = call.run(args, out);
      made.push(...Object.values(outputs));
      const given = await checkOutputs(call, out == null ? outputs : {...outputs, out});
      for (const [name, output] of Object.entries(outputs)) {
        await checkCoreOp(coreOp, name, output, given[name]);
      }
      await checkGradient(call, args, out, given);
    }
    await assertNoDeviceErrors();
  } finally {
    tf.dispose(made.filter((tensor) => tensor instanceof tf.Tensor));
  }
  assertSameMemory(before, await memoryInUse());
  await assertNoDeviceErrors();
}

async function checkOutputs(call: Call, outputs: tf.NamedTensorMap): Promise<Values> {
  const names = Object.keys(outputs);
  const values = await Promise.all(names.map((name) => valuesOf(outputs[name])));
  const given: Values = Object.fromEntries(names.map((name, i) => [name, values[i]]));
  const wanted = call.wanted(given);
  for (const name of new Set([...names, ...Object.keys(wanted)])) {
    if (outputs[name] == null || wanted[name] == null) {
      throw new Error(`${name} is ${outputs[name] == null ? 'no output, but wanted' : 'an output, but not wanted'}`);
    }
    assertWanted(name, outputs[name], given[name], wanted[name]);
  }
  return given;
}

async function checkGradient({run, gradient}: Call, args: Args, out: tf.Variable | undefined, given: Values): Promise<void> {
  if (gradient == null) {
    return;
  }
  const wanted = gradient.wanted(given);
  const names = Object.keys(wanted);
  const dy = (await makeInput(gradient.dy, false)) as tf.Tensor;
  const f = (...xs: tf.Tensor[]) =>
    run({...args, ...Object.fromEntries(names.map((name, i) => [name, xs[i]]))}, out)[gradient.of];
  const gradients = tf.grads(f)(names.map((name) => args[name] as tf.Tensor), dy);
  dy.dispose();
  try {
    const read = await Promise.all(gradients.map(valuesOf));
    names.forEach((name, i) => assertWanted(`d ${name}`, gradients[i], read[i], wanted[name]));
  } finally {
    tf.dispose(gradients);
  }
}

export function assertThrows(run: () => tf.TensorContainer, message: string): void {
  let result: tf.TensorContainer;
  try {
    result = run();
  } catch (error) {
    if (!(error instanceof Error) || !error.message.includes(message)) {
      throw new Error(`threw '${String(error)}', wanted '… ${message} …'`);
    }
    return;
  }
  tf.dispose(result);
  throw new Error(`threw nothing, wanted '… ${message} …'`);
}
