/** A weight of the block that is filled row by row: one tensor, or codes with their scales, in one or several parts. */
import {type Tensor, tensor, util} from '@tensorflow/tfjs-core';
import {
  isQuantizedEncoding,
  quantizedFormats,
  quantizedShapes,
  type WeightEncoding,
} from '../../contract/quantized_weights';
import type {WeightTensors} from '../../contract/expert_weights';
import {groupsOf, newScaleArray, type Rows, type ScaleArray} from './rows';
import {type TensorWriter, tensorWriter} from './tensor_writer';

/** One part: experts, or all of a weight. */
type PartWriter = {
  numRows: number;
  weights: TensorWriter;
  scales?: Scales;
  offsets?: Scales;
};

/** On the host until the end, because a row's scales may share a word with the next row's. */
type Scales = {values: ScaleArray; shape: number[]};

export type WrittenWeight = {
  /** Its experts are along the first axis. */
  shape: number[];
  /** The length of its rows, whatever its shape. */
  numIn: number;
  encoding: WeightEncoding;
  /** Of all parts but the last. Infinity for one tensor. */
  expertsPerTensor: number;
};

export class WeightWriter {
  private readonly parts: PartWriter[] = [];
  private readonly rowLength: number;
  private readonly numGroups: number;

  constructor({shape, numIn, encoding, expertsPerTensor}: WrittenWeight, name: string, opName: string) {
    this.numGroups = groupsOf(encoding, numIn);
    this.rowLength = isQuantizedEncoding(encoding) ? (numIn * quantizedFormats[encoding.format].bits) / 32 : numIn;
    try {
      for (let first = 0; first < shape[0]; first += expertsPerTensor) {
        const partShape = [Math.min(expertsPerTensor, shape[0] - first), ...shape.slice(1)];
        this.parts.push(newPart(partShape, numIn, encoding, name, opName));
      }
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /** Writes rows from number `firstRow` on. */
  write(firstRow: number, {weights, scales, offsets}: Rows): void {
    const numRows = weights.length / this.rowLength;
    let partRow = 0;
    for (const part of this.parts) {
      const first = Math.max(firstRow, partRow);
      const end = Math.min(firstRow + numRows, partRow + part.numRows);
      if (first < end) {
        const [from, to, at] = [first - firstRow, end - firstRow, first - partRow];
        part.weights.write(at * this.rowLength, weights.subarray(from * this.rowLength, to * this.rowLength));
        for (const [stored, given] of [
          [part.scales, scales],
          [part.offsets, offsets],
        ] as const) {
          if (stored != null && given != null) {
            stored.values.set(given.subarray(from * this.numGroups, to * this.numGroups), at * this.numGroups);
          }
        }
      }
      partRow += part.numRows;
    }
  }

  /** The tensors of each part. They belong to the caller. */
  finish(): Array<WeightTensors<Tensor>> {
    return this.parts.map(({weights, scales, offsets}) => ({
      weights: weights.finish(),
      ...(scales != null && {scales: scaleTensor(scales)}),
      ...(offsets != null && {offsets: scaleTensor(offsets)}),
    }));
  }

  dispose(): void {
    this.parts.forEach(({weights}) => weights.dispose());
  }
}

function newPart(shape: number[], numIn: number, encoding: WeightEncoding, name: string, opName: string): PartWriter {
  const numRows = util.sizeFromShape(shape) / numIn;
  if (!isQuantizedEncoding(encoding)) {
    return {numRows, weights: tensorWriter(shape, 'float32', name, opName)};
  }
  const shapes = quantizedShapes(shape, encoding);
  // Whole words, the last of them filled up with zeros.
  const scales = (): Scales => ({values: newScaleArray(encoding.scaleFormat, shapes.scales), shape: shapes.scales});
  return {
    numRows,
    weights: tensorWriter(shapes.codes, 'int32', name, opName),
    ...(quantizedFormats[encoding.format].hasScales && {scales: scales()}),
    ...(encoding.hasOffsets && {offsets: scales()}),
  };
}

const scaleTensor = ({values, shape}: Scales): Tensor =>
  values instanceof Float32Array
    ? tensor(values, shape, 'float32')
    : tensor(new Int32Array(values.buffer), shape, 'int32');
