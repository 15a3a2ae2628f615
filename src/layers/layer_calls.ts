/** What the calls of all layers have in common: the types of tf.layers, inputs, shapes and masks. */
import {Tensor, util} from '@tensorflow/tfjs-core';
import type {layers, SymbolicTensor} from '@tensorflow/tfjs-layers';
import {assert, describeValue} from '../arguments/checks';
import type {TfjsLayers} from './weight_parts';

export type Shape = Parameters<layers.Layer['build']>[0];
export type Kwargs = Parameters<layers.Layer['call']>[1];
export type Inputs = Parameters<layers.Layer['apply']>[0];
export type Mask = Tensor | Tensor[] | null | undefined;

/** Asserts that inputs are tensors, and that symbolic ones come from the copy of tfjs that the layer is built on. */
export function assertInputs({name}: layers.Layer, inputs: Inputs, tf: TfjsLayers, opName: string): void {
  for (const input of [inputs].flat()) {
    assert(
      input instanceof Tensor || isSymbolic(input),
      opName,
      () => `the input must be a Tensor or a SymbolicTensor, but is ${describeValue(input)}.`,
    );
    assert(
      input instanceof Tensor || input.sourceLayer instanceof tf.layers.Layer,
      opName,
      () =>
        `layer '${name}' must come from the same copy of tfjs as its input, but comes from another. Call ` +
        'registerMoeLayers(tf) with the tf of the model, and make the layer with the result.',
    );
  }
}

/** Whether the input is a symbolic tensor of any copy of tfjs. */
function isSymbolic(input: unknown): input is SymbolicTensor {
  return typeof input === 'object' && input != null && 'sourceLayer' in input && 'tensorIndex' in input;
}

export function onlyShape(shape: Shape): Array<number | null> {
  return (Array.isArray(shape[0]) ? shape[0] : shape) as Array<number | null>;
}

export const onlyInput = (inputs: Tensor | Tensor[]): Tensor => (Array.isArray(inputs) ? inputs[0] : inputs);

/** The size of the last axis of an input, which must be known. */
export function lastAxis(inputShape: Shape, opName: string): number {
  const shape = onlyShape(inputShape);
  const size = shape[shape.length - 1] ?? 0;
  assert(
    Number.isInteger(size) && size >= 1,
    opName,
    () => `the input must have a last axis (H) of known size, but is ${JSON.stringify(shape)}.`,
  );
  return size;
}

/** The mask if it has this shape, or undefined: tf.layers passes masks on to later layers, whatever they are for. */
export function fittingMask(mask: Mask, shape: number[]): Tensor | undefined {
  const given = Array.isArray(mask) ? mask[0] : mask;
  return given != null && util.arraysEqual(given.shape, shape) ? given : undefined;
}
