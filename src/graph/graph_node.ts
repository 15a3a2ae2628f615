/** The inputs, attributes and outputs of an op as a node of a GraphModel, and how such a node is read. */
import type {Tensor} from '@tensorflow/tfjs-core';
import {assert, describeValue} from '../arguments/checks';
import type {QuantizedWeights} from '../contract/quantized_weights';
import {type AttrType, type AttrTypes, type AttrValues, boolean, toSnakeCase} from './attr_types';
import {quantizedAttrs, quantizedInputs, takeWeights} from './quantized_inputs';

/** A node, as tfjs gives it to the function that executes it. */
export type GraphNode = {
  inputs: Array<Tensor | undefined>;
  attrs: {[name: string]: unknown};
};

/** Inputs and attrs by the names of the op; in a graph the names are in snake_case. */
export type NodeSignature = {
  inputs: readonly string[];
  /** The inputs that may be quantized. */
  weights: readonly string[];
  /** Each has a boolean attr has_<name>, and is an input only if the attr is true. */
  optionalInputs: readonly string[];
  attrs: AttrTypes;
  optionalAttrs: AttrTypes;
};

export type GraphOp = NodeSignature & {
  execute(node: GraphNode, graphOpName: string): Tensor | Tensor[];
};

/**
 * An op of graphs. `run` gets the inputs and attrs of a node: the required ones and the optional ones that are given.
 */
export function graphOp<
  Input extends string,
  OptionalInput extends string,
  Attrs extends AttrTypes,
  OptionalAttrs extends AttrTypes,
  Weights extends Input = never,
>(
  given: {
    inputs: readonly Input[];
    /** The inputs that may be quantized. Default: none. */
    weights?: readonly Weights[];
    optionalInputs: readonly OptionalInput[];
    attrs: Attrs;
    optionalAttrs: OptionalAttrs;
  },
  run: (
    args: Record<Exclude<Input, Weights>, Tensor> & Record<Weights, Tensor | QuantizedWeights> & AttrValues<Attrs>,
    options: Partial<Record<OptionalInput, Tensor> & AttrValues<OptionalAttrs>>,
  ) => Tensor | Tensor[],
): GraphOp {
  const {weights = [], ...others} = given;
  // After the others, whose places graphs know.
  const signature: NodeSignature = {
    ...others,
    weights,
    optionalInputs: [...given.optionalInputs, ...weights.flatMap(quantizedInputs)],
    optionalAttrs: Object.assign({}, given.optionalAttrs, ...weights.map(quantizedAttrs)) as AttrTypes,
  };
  return {
    ...signature,
    execute(node, graphOpName) {
      const where = describeNode(node, graphOpName);
      const {args, options} = readNode(node, signature, where);
      try {
        return run(args as Parameters<typeof run>[0], options as Parameters<typeof run>[1]);
      } catch (error) {
        // The op names its argument; the message adds the node, because a graph has many nodes.
        throw new Error(`Error in ${where}: ${(error as Error).message}`, {cause: error});
      }
    },
  };
}

/** Nodes have a name, although tfjs's types do not say so. */
function describeNode(node: GraphNode, graphOpName: string): string {
  const {node: definition} = node as {node?: {name?: string}};
  return definition?.name == null ? `a node of ${graphOpName}` : `node '${definition.name}' (${graphOpName})`;
}

type NamedValues = {[name: string]: unknown};

function readNode(node: GraphNode, signature: NodeSignature, where: string): {args: NamedValues; options: NamedValues} {
  assertKnownAttrs(node, signature, where);
  const presentInputs = signature.optionalInputs.filter((name) => readAttr(node, hasAttr(name), boolean, where));
  const tensors = readInputs(node, signature, presentInputs, where);
  const args: NamedValues = {};
  const options: NamedValues = {};
  signature.inputs.forEach((name, i) => (args[name] = tensors[i]));
  presentInputs.forEach((name, i) => (options[name] = tensors[signature.inputs.length + i]));
  for (const [name, type] of Object.entries(signature.attrs)) {
    args[name] = readAttr(node, name, type, where);
    assert(
      args[name] !== undefined,
      where,
      () => `attr ${toSnakeCase(name)} must be ${type.expected}, but is not given.`,
    );
  }
  for (const [name, type] of Object.entries(signature.optionalAttrs)) {
    options[name] = readAttr(node, name, type, where);
  }
  for (const name of signature.weights) {
    args[name] = takeWeights(name, args[name] as Tensor, options, where);
  }
  return {args, options};
}

/** 'expertMap' has the attr 'hasExpertMap', has_expert_map in the graph. */
export function hasAttr(inputName: string): string {
  return `has${inputName[0].toUpperCase()}${inputName.slice(1)}`;
}

/** The attrs of TensorFlow itself: T is a dtype, and attrs whose names begin with _ are internal. */
const isOfTensorFlow = (attrName: string) => attrName === 'T' || attrName.startsWith('_');

function assertKnownAttrs({attrs}: GraphNode, signature: NodeSignature, where: string): void {
  const known = [
    ...Object.keys(signature.attrs),
    ...Object.keys(signature.optionalAttrs),
    ...signature.optionalInputs.map(hasAttr),
  ].map(toSnakeCase);
  for (const name of Object.keys(attrs)) {
    assert(
      known.includes(name) || isOfTensorFlow(name),
      where,
      () =>
        `unknown attr '${name}'. ${known.length === 0 ? 'The op has no attrs.' : `The attrs are ${known.join(', ')}.`}`,
    );
  }
}

/** Undefined if the node does not have the attr. */
function readAttr<Value>({attrs}: GraphNode, name: string, type: AttrType<Value>, where: string): Value | undefined {
  const attrName = toSnakeCase(name);
  if (!Object.prototype.hasOwnProperty.call(attrs, attrName)) {
    return undefined;
  }
  const decoded = attrs[attrName];
  const value = type.read(decoded);
  assert(value !== undefined, where, () => {
    const given = decoded === undefined ? 'of a type that tfjs does not decode' : describeValue(decoded);
    return `attr ${attrName} must be ${type.expected}, but is ${given}.`;
  });
  return value;
}

function readInputs(
  {inputs}: GraphNode,
  signature: NodeSignature,
  presentInputs: readonly string[],
  where: string,
): Tensor[] {
  const names = [...signature.inputs, ...presentInputs].map(toSnakeCase);
  assert(inputs.length === names.length, where, () => {
    const absent = signature.optionalInputs.filter((name) => !presentInputs.includes(name));
    const ifGiven = absent.map((name) => `; ${toSnakeCase(name)} needs attr ${toSnakeCase(hasAttr(name))}`).join('');
    return `the inputs must be ${names.join(', ')} (${names.length}), but there are ${inputs.length}${ifGiven}.`;
  });
  return inputs.map((input, i) => {
    assert(input != null, where, () => `input ${names[i]} is an output that its node does not have.`);
    return input as Tensor;
  });
}
