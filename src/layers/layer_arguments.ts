/** The arguments of every layer of tf.layers. */
import type {layers} from '@tensorflow/tfjs-layers';
import {assert, checkBoolean, describeValue} from '../arguments/checks';

export type LayerArgs = NonNullable<ConstructorParameters<typeof layers.Layer>[0]>;

/** The arguments of every layer, and the arguments that deserialization adds. */
export const layerArgNames = [
  'name',
  'trainable',
  'inputShape',
  'batchInputShape',
  'batchSize',
  'dtype',
  'inputDType',
  'weights',
  'customObjects',
] as const;

/** tf.layers saves the strings of a config in snake_case. */
export function toCamelCase<Value>(value: Value): Value {
  const isSnakeCase = typeof value === 'string' && /^[a-z]\w*$/.test(value);
  return isSnakeCase ? (value.replace(/_+(\w)/g, (_, letter: string) => letter.toUpperCase()) as Value) : value;
}

/** Checks arguments that tf.layers does not check, if a mistake in them would cause some other error. */
export function checkArgsOfEveryLayer(given: LayerArgs, opName: string): void {
  const {name, trainable} = given;
  assert(
    name == null || typeof name === 'string',
    opName,
    () => `name must be a string, but is ${describeValue(name)}.`,
  );
  checkBoolean(trainable, 'trainable', opName);
  for (const argName of ['inputShape', 'batchInputShape'] as const) {
    const shape: unknown = given[argName];
    const isDim = (dim: unknown) => dim == null || (Number.isInteger(dim) && Number(dim) >= 0);
    assert(
      shape == null || (Array.isArray(shape) && shape.every(isDim)),
      opName,
      () =>
        `${argName} must be an array of integers of at least 0, with null for an unknown size, but is ` +
        `${describeValue(shape)}.`,
    );
  }
}
