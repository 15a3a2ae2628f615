/** Weights that are not quantized: F32, F16 and BF16. */
import {encodingOf, float32Encoding, type WeightEncoding} from '../../contract/quantized_weights';
import {decodeFloats, halvesOf, readableDtypes} from '../files/safetensors';
import {type RowsAt, type StoredFormat, TensorFinder, wordsOf} from './stored_format';
import {transposed} from './transposed';

const halfEncoding = (format: 'float16' | 'bfloat16') =>
  encodingOf<WeightEncoding>({format, groupSize: 0, scaleFormat: 'float32', zeroPoint: 0, hasOffsets: false});

export const floats: StoredFormat = {
  find: ({name, shape, numIn, numOut, isTransposed}, {tensors}) => {
    const finder = new TensorFinder(tensors);
    const weights = finder.take(name, readableDtypes, shape);
    if (finder.problems.length > 0) {
      return finder;
    }
    const {dtype} = weights;
    const rowsIn = (bytes: Uint8Array, {firstRow, numRows}: RowsAt): Uint8Array => {
      if (!isTransposed) {
        return bytes;
      }
      const values = dtype === 'F32' ? wordsOf(bytes) : halvesOf(bytes);
      return new Uint8Array(transposed(values, numIn, numOut, firstRow, numRows).buffer);
    };
    // Rows of 16-bit floats are codes as they are, if they fill whole words.
    if (dtype !== 'F32' && numIn % 2 === 0) {
      return {
        encoding: halfEncoding(dtype === 'F16' ? 'float16' : 'bfloat16'),
        weights,
        extras: [],
        hasRows: !isTransposed,
        decode: (bytes, at) => ({weights: wordsOf(rowsIn(bytes, at))}),
      };
    }
    return {
      encoding: float32Encoding,
      weights,
      extras: [],
      hasRows: !isTransposed,
      decode: (bytes, at) => {
        const values = new Float32Array(at.numRows * numIn);
        decodeFloats(dtype, rowsIn(bytes, at), values);
        return {weights: values};
      },
    };
  },
};
