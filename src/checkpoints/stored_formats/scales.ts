/** Scales in tensors of their own: what they stand for, and the scales of rows. */
import {quantizedFormats, type ScaleFormat, scaleBits, type WeightEncoding} from '../../contract/quantized_weights';
import type {CheckpointTensor} from '../files/safetensors';
import {elementsOf, type ScaleArray} from '../weights/rows';
import {type RowsAt, type TensorFinder} from './stored_format';

const formats = {F32: 'float32', F16: 'float16', BF16: 'bfloat16'} as const;

/** The dtypes of scales that stay as they are. */
export const scaleDtypes: readonly string[] = /* @__PURE__ */ Object.keys(formats);

export const scaleFormatOf = ({dtype}: CheckpointTensor): ScaleFormat => formats[dtype as keyof typeof formats];

/** A tensor that was read as a whole, as scales. */
export const scalesIn = ({buffer}: Uint8Array, format: ScaleFormat): ScaleArray => elementsOf(buffer, format);

/** The scales of rows, where a scale stands for `rowsPerScale` rows of a matrix of `numOut` rows. */
export function scalesOfRows(
  stored: ScaleArray,
  format: ScaleFormat,
  {matrix, firstRow, numRows}: RowsAt,
  {numOut, rowsPerScale, numGroups}: {numOut: number; rowsPerScale: number; numGroups: number},
): ScaleArray {
  const firstOfMatrix = matrix * Math.ceil(numOut / rowsPerScale);
  const first = (row: number) => (firstOfMatrix + Math.floor((firstRow + row) / rowsPerScale)) * numGroups;
  if (rowsPerScale === 1) {
    return stored.subarray(first(0), first(numRows));
  }
  const scales = elementsOf(new ArrayBuffer((numRows * numGroups * scaleBits[format]) / 8), format);
  for (let row = 0; row < numRows; row++) {
    scales.set(stored.subarray(first(row), first(row) + numGroups), row * numGroups);
  }
  return scales;
}

/** Zero points of `bits` bits, from the lowest. */
export function unpacked(words: Int32Array, bits: number): Uint8Array {
  const perWord = 32 / bits;
  return Uint8Array.from(
    {length: words.length * perWord},
    (_, i) => (words[Math.floor(i / perWord)] >>> (bits * (i % perWord))) & (2 ** bits - 1),
  );
}

/** The offsets of zero points: a weight is scale * (code - zero). */
export const offsetsOf = (scales: Float32Array, zeros: ArrayLike<number>): Float32Array =>
  scales.map((scale, i) => -scale * zeros[i]);

/** Notes what no op can take: rows that end within a word, and groups of other lengths than ops have. */
export function checkFits(
  finder: TensorFinder,
  name: string,
  {format, groupSize}: Pick<WeightEncoding, 'groupSize'> & {format: keyof typeof quantizedFormats},
  numIn: number,
): void {
  const perWord = 32 / quantizedFormats[format].bits;
  if (numIn % perWord !== 0) {
    finder.note(name, `expected a multiple of ${perWord} inputs, which fill whole words, but has ${numIn}`);
  }
  if (groupSize % 16 !== 0 && groupSize !== numIn) {
    finder.note(name, `expected scales of a multiple of 16 inputs, or of all ${numIn}, but they are of ${groupSize}`);
  }
}
