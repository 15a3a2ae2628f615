/** GraphModels made by hand, in the JSON form that a converter writes. */
import * as tf from '../../src/tf';

export type Attrs = {[name: string]: object};
export type Node = {name: string; op: string; input: string[]; attr?: Attrs};

export const int = (value: number) => ({i: String(value)});
export const float = (value: number) => ({f: value});
export const bool = (value: boolean) => ({b: value});
export const string = (value: string) => ({s: btoa(value)});

export const shape = (...sizes: number[]) => ({dim: sizes.map((size) => ({size: String(size)}))});

const placeholder = (name: string, {dtype}: tf.Tensor) => ({
  name,
  op: 'Placeholder',
  attr: {dtype: {type: dtype === 'int32' ? 'DT_INT32' : 'DT_FLOAT'}},
});

export const artifactsOf = (inputs: tf.NamedTensorMap, nodes: Node[]): tf.io.ModelArtifacts => ({
  format: 'graph-model',
  modelTopology: {
    versions: {producer: 1},
    library: {},
    node: [...Object.entries(inputs).map(([name, tensor]) => placeholder(name, tensor)), ...nodes],
  },
  weightSpecs: [],
  weightData: new ArrayBuffer(0),
});

/** The model of these nodes. They name `inputs`, or outputs of each other. */
export const modelOf = (inputs: tf.NamedTensorMap, nodes: Node[]): tf.GraphModel<tf.io.IOHandlerSync> =>
  tf.loadGraphModelSync(artifactsOf(inputs, nodes));
