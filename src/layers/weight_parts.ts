/** The initializers, regularizers and constraints of weights, as tf.layers makes them from arguments of a layer. */
import {type DataType, type serialization, type Tensor, zeros} from '@tensorflow/tfjs-core';
import type {layers} from '@tensorflow/tfjs-layers';
import {assert, describeValue} from '../arguments/checks';
import {toCamelCase} from './layer_arguments';

/** The parts of a copy of tfjs that the layers use. Each copy has its own classes and its own registry of layers. */
export type TfjsLayers = {
  /**
   * `Layer`, which the layers extend, and `dense`, which resolves the layers' initializers, regularizers and
   * constraints.
   */
  layers: Pick<typeof layers, 'Layer' | 'dense'>;
  /** The registry in which the classes of saved models are looked up by name. */
  serialization: Pick<typeof serialization, 'registerClass' | 'SerializationMap'>;
};

export type Initializer = {
  apply(shape: number[], dtype?: DataType): Tensor;
  getClassName(): string;
  getConfig(): serialization.ConfigDict;
};
/** Zeros cost nothing: the host has them, until an op asks for them. */
export const zeroInitializer: Pick<Initializer, 'apply'> = {apply: (shape, dtype) => zeros(shape, dtype)};

export type Constraint = {apply(weight: Tensor): Tensor};
/** The objects that tf.layers.dense makes from its arguments. */
type DenseParts = {
  kernelInitializer: Initializer;
  biasInitializer: Initializer;
  kernelRegularizer: object | null;
  biasRegularizer: object | null;
  kernelConstraint: Constraint | null;
  biasConstraint: Constraint | null;
};
/** The argument of tf.layers.dense that each argument of a layer is like. */
type PartNames = {readonly [argName: string]: keyof DenseParts};
export type PartsOf<Names extends PartNames> = {[Name in keyof Names]: DenseParts[Names[Name]]};

export type WeightParts<Parts> = {parts: Parts; getConfig: () => serialization.ConfigDict};

/** A weight that a layer has. */
export type WeightSpec<Name extends string> = {
  name: Name;
  shape: number[];
  /** Default: float32. */
  dtype?: 'float32' | 'int32';
  initializer: Pick<Initializer, 'apply'>;
  regularizer?: object | null;
  constraint?: Constraint | null;
  /** Default: true. */
  trainable?: boolean;
};

/** Resolves names and configs with a dense layer, because tf.layers resolves them inside its layers only. */
export function resolveWeightParts<Names extends PartNames>(
  {layers}: TfjsLayers,
  given: {[Name in keyof Names]?: unknown},
  names: Names,
  opName: string,
): WeightParts<PartsOf<Names>> {
  const parts: {[argName: string]: unknown} = {};
  const configs: Array<() => [string, serialization.ConfigDictValue]> = [];
  for (const [argName, denseArgName] of Object.entries(names)) {
    const value = toCamelCase(given[argName]) ?? undefined;
    const message = () =>
      `${argName} must be a name, a config or an object of this copy of tf.layers, but is ${describeValue(value)}.`;
    // tf.layers would use its default for false, 0, NaN and ''.
    assert(value === undefined || Boolean(value), opName, message);
    try {
      const dense = layers.dense({name: argName, units: 1, [denseArgName]: value});
      parts[argName] = (dense as unknown as DenseParts)[denseArgName];
      // A new config each time, because callers may change it.
      configs.push(() => [argName, dense.getConfig()[denseArgName]]);
    } catch (error) {
      throw new Error(`Error in ${opName}: ${message()} tf.layers says: ${firstSentence((error as Error).message)}`);
    }
  }
  return {
    parts: parts as PartsOf<Names>,
    getConfig: () => Object.fromEntries(configs.map((config) => config())),
  };
}

/** Without the advice for models from Python that follows, and at most as long as a message should be. */
function firstSentence(message: string): string {
  const [sentence] = /^[^\n]*?(?=\. This may be due|\n|$)/.exec(message)!;
  return `${sentence.slice(0, 200).replace(/\.$/, '')}.`;
}
