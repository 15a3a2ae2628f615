/**
 * compressed-tensors, as llm-compressor writes it: `<linear>.weight_packed` of 4- or 8-bit integers in int32 or of E2M1
 * in bytes, or `<linear>.weight` in int8 or E4M3; `.weight_scale`, and some of `.weight_zero_point`,
 * `.weight_global_scale`, `.weight_g_idx` and `.weight_shape`. Codes lie along the inputs, low bits first.
 */
import {util} from '@tensorflow/tfjs-core';
import {assert} from '../../arguments/checks';
import {encodingOf, type WeightEncoding} from '../../contract/quantized_weights';
import {weightFormats} from '../../kernels/weight_formats/index';
import type {MoeModelConfig} from '../config_reader';
import {type CheckpointTensor, decodeFloats} from '../files/safetensors';
import type {Rows} from '../weights/rows';
import {assertGroupsInOrder, offsetEncoding, zeroPointEncoding} from './input_groups';
import {configGroups, hasMethod} from './quantization_config';
import {checkFits, offsetsOf, scaleDtypes, scaleFormatOf, scalesIn, scalesOfRows, unpacked} from './scales';
import {
  linearOf,
  type Matrices,
  type Problems,
  type RowsAt,
  type StoredFiles,
  type StoredFormat,
  type StoredMatrices,
  TensorFinder,
  wordsOf,
} from './stored_format';

export const compressedTensors: StoredFormat = {
  find: (matrices, files) => {
    const linear = linearOf(matrices);
    if (linear == null || !hasMethod(files.config, 'compressed-tensors')) {
      return undefined;
    }
    const packed = files.tensors.get(`${linear}.weight_packed`);
    if (packed != null) {
      return packed.dtype === 'U8' ? fp4(linear, matrices, files) : integers(linear, 'weight_packed', matrices, files);
    }
    switch (files.tensors.get(`${linear}.weight`)?.dtype) {
      case 'I8':
        return integers(linear, 'weight', matrices, files);
      case 'F8_E4M3':
        return float8(linear, matrices, files);
      default:
        return undefined;
    }
  },
};

/** How scales are shared: by so many rows and so many inputs. */
type Sharing = {shape: number[]; rowsPerScale: number; groupSize: number};

/** For a tensor, for each row, and for the groups and blocks that config.json has. */
function sharings({numOut, numIn}: Matrices, config: MoeModelConfig): Sharing[] {
  const {groupSizes, blocks} = configGroups(config);
  const inBlocks: Array<[number, number]> = [...groupSizes.map((size): [number, number] => [1, size]), ...blocks];
  return [
    {shape: [1], rowsPerScale: numOut, groupSize: numIn},
    {shape: [], rowsPerScale: numOut, groupSize: numIn},
    {shape: [numOut, 1], rowsPerScale: 1, groupSize: numIn},
    ...inBlocks.map(([rows, inputs]) => ({
      shape: [Math.ceil(numOut / rows), Math.ceil(numIn / inputs)],
      rowsPerScale: rows,
      groupSize: Math.min(inputs, numIn),
    })),
  ];
}

/** The scales, and how they are shared. */
function takeScales(finder: TensorFinder, linear: string, matrices: Matrices, config: MoeModelConfig) {
  const known = sharings(matrices, config);
  const scales = finder.take(`${linear}.weight_scale`, scaleDtypes, ...known.map(({shape}) => shape));
  // If there is a problem, nobody uses it.
  const sharing =
    known.find(({shape}) => Array.isArray(scales?.shape) && util.arraysEqual(shape, scales.shape)) ?? known[0];
  const numGroups = Math.ceil(matrices.numIn / sharing.groupSize);
  const of = {numOut: matrices.numOut, rowsPerScale: sharing.rowsPerScale, numGroups};
  return {
    scales,
    sharing,
    of,
    scaleFormat: finder.problems.length === 0 ? scaleFormatOf(scales) : ('float32' as const),
  };
}

function float8(linear: string, matrices: Matrices, {tensors, config}: StoredFiles): StoredMatrices | Problems {
  const {shape, numIn} = matrices;
  const finder = new TensorFinder(tensors);
  const weights = finder.take(`${linear}.weight`, ['F8_E4M3'], shape);
  const {scales, sharing, of, scaleFormat} = takeScales(finder, linear, matrices, config);
  const {groupSize} = sharing;
  checkFits(finder, `${linear}.weight`, {format: 'float8', groupSize}, numIn);
  if (finder.problems.length > 0) {
    return finder;
  }
  return {
    encoding: encodingOf<WeightEncoding>({format: 'float8', groupSize, scaleFormat, zeroPoint: 0, hasOffsets: false}),
    weights,
    extras: [scales],
    hasRows: true,
    decode: (bytes, at, [read]) => ({
      weights: wordsOf(bytes),
      scales: scalesOfRows(scalesIn(read, scaleFormat), scaleFormat, at, of),
    }),
  };
}

/** Integers: packed with 2^(bits - 1) added, or int8. So are their zero points, which are packed along the rows. */
function integers(
  linear: string,
  part: 'weight_packed' | 'weight',
  matrices: Matrices,
  {tensors, config, opName}: StoredFiles,
): StoredMatrices | Problems {
  const {numOut, numIn} = matrices;
  const isPacked = part === 'weight_packed';
  const name = `${linear}.${part}`;
  const finder = new TensorFinder(tensors);
  const weights = isPacked
    ? finder.take(name, ['I32'], [numOut, numIn / 8], [numOut, numIn / 4])
    : finder.take(name, ['I8'], [numOut, numIn]);
  const bits = isPacked && weights?.shape?.[1] === numIn / 8 ? 4 : 8;
  const {scales, sharing, of, scaleFormat} = takeScales(finder, linear, matrices, config);
  const {groupSize} = sharing;
  checkFits(finder, name, {format: bits === 4 ? 'int4' : 'int8', groupSize}, numIn);

  const extras = [scales];
  const takeOptional = (optional: string, dtypes: string[], ...shapes: number[][]): number | undefined =>
    tensors.has(optional) ? extras.push(finder.take(optional, dtypes, ...shapes)) - 1 : undefined;
  const zeroName = `${linear}.weight_zero_point`;
  const arePacked = tensors.get(zeroName)?.dtype === 'I32';
  const [numScaleRows, numGroups] = [Math.ceil(numOut / sharing.rowsPerScale), of.numGroups];
  const zeros = arePacked
    ? takeOptional(zeroName, ['I32'], [Math.ceil((numScaleRows * bits) / 32), numGroups])
    : takeOptional(zeroName, ['I8'], sharing.shape);
  const groupName = `${linear}.weight_g_idx`;
  const groups = takeOptional(groupName, ['I32'], [numIn]);
  const shapeName = `${linear}.weight_shape`;
  const givenShape = takeOptional(shapeName, ['I64', 'I32'], [2]);
  if (finder.problems.length > 0) {
    return finder;
  }
  const zerosOf = (read: Uint8Array): Uint8Array =>
    arePacked
      ? zerosByRow(unpacked(wordsOf(read), bits), bits, numScaleRows, numGroups)
      : read.map((zero) => (zero + 2 ** (bits - 1)) & 255);
  return {
    encoding: zeros == null ? zeroPointEncoding(bits, groupSize, scaleFormat) : offsetEncoding(bits, groupSize),
    weights,
    extras,
    hasRows: true,
    decode: (bytes, at, read) => {
      if (groups != null) {
        assertGroupsInOrder(wordsOf(read[groups]), groupSize, groupName, opName);
      }
      if (givenShape != null) {
        const given = sizesIn(read[givenShape]);
        assert(
          given[0] === numOut && given[1] === numIn,
          opName,
          () => `${shapeName} must have ${numOut} and ${numIn}, but has ${given.join(' and ')}.`,
        );
      }
      const codes = isPacked ? wordsOf(bytes) : wordsOf(bytes).map((word) => word ^ SIGNS);
      return zeros == null
        ? {weights: codes, scales: scalesOfRows(scalesIn(read[0], scaleFormat), scaleFormat, at, of)}
        : {weights: codes, ...offsetRows(scales, read[0], zerosOf(read[zeros]), at, of)};
    },
  };
}

/** Two sizes in I64 or I32. */
const sizesIn = ({buffer, length}: Uint8Array): number[] =>
  length === 16 ? Array.from(new BigInt64Array(buffer), Number) : [...new Int32Array(buffer)];

/** The signs of four int8s: without them, 128 is added. */
const SIGNS = 0x80808080 | 0;

/** Zero points whose words hold several rows of one group, as [rows, groups]. */
function zerosByRow(unpackedZeros: Uint8Array, bits: number, numRows: number, numGroups: number): Uint8Array {
  const perWord = 32 / bits;
  return Uint8Array.from({length: numRows * numGroups}, (_, i) => {
    const row = Math.floor(i / numGroups);
    const word = Math.floor(row / perWord) * numGroups + (i % numGroups);
    return unpackedZeros[word * perWord + (row % perWord)];
  });
}

/** Scales in float32 and offsets of rows. */
function offsetRows(
  scales: CheckpointTensor,
  read: Uint8Array,
  zeros: Uint8Array,
  at: RowsAt,
  of: {numOut: number; rowsPerScale: number; numGroups: number},
): Omit<Rows, 'weights'> {
  const values = new Float32Array(zeros.length);
  decodeFloats(scales.dtype, read, values);
  return {
    scales: scalesOfRows(values, 'float32', at, of),
    offsets: scalesOfRows(offsetsOf(values, zeros), 'float32', at, of),
  };
}

/** MXFP4, of scales in e8m0 for 32 inputs; or NVFP4, of scales in E4M3 for 16 inputs that a global scale divides. */
function fp4(linear: string, {numOut, numIn}: Matrices, {tensors}: StoredFiles): StoredMatrices | Problems {
  const name = `${linear}.weight_packed`;
  const scaleName = `${linear}.weight_scale`;
  const globalName = `${linear}.weight_global_scale`;
  const finder = new TensorFinder(tensors);
  const isNvfp4 = tensors.has(globalName) || tensors.get(scaleName)?.dtype === 'F8_E4M3';
  const groupSize = Math.min(isNvfp4 ? 16 : 32, numIn);
  const numGroups = Math.ceil(numIn / groupSize);
  const of = {numOut, rowsPerScale: 1, numGroups};
  const weights = finder.take(name, ['U8'], [numOut, numIn / 2]);
  const scales = finder.take(scaleName, isNvfp4 ? ['F8_E4M3'] : ['U8', 'F8_E8M0'], [numOut, numGroups]);
  checkFits(finder, name, {format: 'fp4', groupSize}, numIn);
  const stored = {weights, hasRows: true};
  const encoding = (scaleFormat: 'float32' | 'e8m0') =>
    encodingOf<WeightEncoding>({format: 'fp4', groupSize, scaleFormat, zeroPoint: 0, hasOffsets: false});
  if (!isNvfp4) {
    return finder.problems.length > 0
      ? finder
      : {
          ...stored,
          encoding: encoding('e8m0'),
          extras: [scales],
          decode: (bytes, at, [read]) => ({weights: wordsOf(bytes), scales: scalesOfRows(read, 'e8m0', at, of)}),
        };
  }
  const globalScale = finder.take(globalName, ['F32'], [1], []);
  return finder.problems.length > 0
    ? finder
    : {
        ...stored,
        encoding: encoding('float32'),
        extras: [scales, globalScale],
        decode: (bytes, at, [read, readGlobal]) => {
          const [divisor] = new Float32Array(readGlobal.buffer);
          // Bytes are taken as they are, whatever they stand for.
          const rows = scalesOfRows(read, 'e8m0', at, of);
          return {
            weights: wordsOf(bytes),
            scales: Float32Array.from(rows, (code) => weightFormats.float8.decode(code) / divisor),
          };
        },
      };
}
