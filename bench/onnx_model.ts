/**
 * Writes an ONNX model of one node as the protobuf message that onnx.proto describes. Field numbers are those of that
 * file; all tensors are inputs or outputs of the model, so that there are no weights in it.
 */

export type OnnxTensor = {name: string; type: 'float32' | 'uint8'; shape: number[]};

export type OnnxNode = {
  domain: string;
  opType: string;
  /** Names of tensors; '' leaves an optional input out. */
  inputs: string[];
  outputs: string[];
  /** Whole numbers, numbers with a fraction (as `{float}`, for 1.0 too) and strings. */
  attributes: Record<string, number | {float: number} | string>;
};

const WIRE = {varint: 0, bytes: 2, fixed32: 5};
const IR_VERSION = 8;
const ONNX_OPSET = 17;
const elementTypes = {float32: 1, uint8: 2};
const attributeTypes = {float: 1, int: 2, string: 3};

type Field = number[];

function varint(value: number): number[] {
  return value < 128 ? [value] : [(value % 128) + 128, ...varint(Math.floor(value / 128))];
}

const int = (field: number, value: number): Field => [field * 8 + WIRE.varint, value].flatMap(varint);
const message = (field: number, ...fields: Field[]): Field => {
  const bytes = fields.flat();
  return [...varint(field * 8 + WIRE.bytes), ...varint(bytes.length), ...bytes];
};
const text = (field: number, value: string): Field => message(field, [...new TextEncoder().encode(value)]);
const float = (field: number, value: number): Field => [
  ...varint(field * 8 + WIRE.fixed32),
  ...new Uint8Array(new Float32Array([value]).buffer),
];

function attribute([name, value]: [string, OnnxNode['attributes'][string]]): Field {
  const ofType = (type: keyof typeof attributeTypes, field: Field) =>
    message(5, text(1, name), field, int(20, attributeTypes[type]));
  if (typeof value === 'number') {
    return ofType('int', int(3, value));
  }
  return typeof value === 'string' ? ofType('string', text(4, value)) : ofType('float', float(2, value.float));
}

function tensor(field: number, {name, type, shape}: OnnxTensor): Field {
  const dims = shape.map((dim) => message(1, int(1, dim)));
  return message(field, text(1, name), message(2, message(1, int(1, elementTypes[type]), message(2, ...dims))));
}

/** The bytes of the model, which onnxruntime loads. */
export function onnxModel(node: OnnxNode, inputs: OnnxTensor[], outputs: OnnxTensor[]): Uint8Array {
  const nodeFields = [
    ...node.inputs.map((name) => text(1, name)),
    ...node.outputs.map((name) => text(2, name)),
    text(4, node.opType),
    ...Object.entries(node.attributes).map(attribute),
    text(7, node.domain),
  ];
  const graph = message(
    7,
    message(1, ...nodeFields),
    text(2, node.opType),
    ...inputs.map((input) => tensor(11, input)),
    ...outputs.map((output) => tensor(12, output)),
  );
  const opset = (domain: string, version: number) => message(8, text(1, domain), int(2, version));
  return Uint8Array.from([int(1, IR_VERSION), graph, opset('', ONNX_OPSET), opset(node.domain, 1)].flat());
}
