/** The blocks of GGUF files: codes with their scales, for 32 or 256 inputs. */
import {encodingOf, type QuantizedEncoding, quantizedFormats} from '../../contract/quantized_weights';
import {float16} from '../../kernels/weight_formats/float16';
import {ggmlTypeNamed} from '../files/ggml_types';
import {newScaleArray, type Rows, type ScaleArray} from '../weights/rows';
import {type StoredFormat, TensorFinder} from './stored_format';

/** Where the next block's codes, in bytes, scales and offsets go. */
type Out = {codes: Uint8Array; scales: ScaleArray; offsets: ScaleArray};

type BlockType = {
  encoding: QuantizedEncoding;
  /** Decodes block number `b`, whose bytes begin at `at`. */
  decode: (bytes: Uint8Array, at: number, b: number, out: Out) => void;
};

const half = (bytes: Uint8Array, at: number) => bytes[at] | (bytes[at + 1] << 8);
const halfValue = (bytes: Uint8Array, at: number) => float16.decode(half(bytes, at));

/** Moves nibbles: in `count` bytes, all low ones are before all high ones; in codes, two neighbors share a byte. */
function joinNibbles(bytes: Uint8Array, at: number, count: number, codes: Uint8Array, to: number): void {
  for (let i = 0; i < count; i += 2) {
    const [even, odd] = [bytes[at + i], bytes[at + i + 1]];
    codes[to + i / 2] = (even & 15) | ((odd & 15) << 4);
    codes[to + (count + i) / 2] = (even >> 4) | (odd & 0xf0);
  }
}

const encoding = (
  fields: Pick<QuantizedEncoding, 'format' | 'groupSize' | 'scaleFormat'> & Partial<QuantizedEncoding>,
) => encodingOf<QuantizedEncoding>({zeroPoint: 0, hasOffsets: false, ...fields});

/** d * (code - 8) */
const q4_0: BlockType = {
  encoding: /* @__PURE__ */ encoding({format: 'int4', groupSize: 32, scaleFormat: 'float16', zeroPoint: 8}),
  decode: (bytes, at, b, {codes, scales}) => {
    scales[b] = half(bytes, at);
    joinNibbles(bytes, at + 2, 16, codes, 16 * b);
  },
};

/** d * code + m */
const q4_1: BlockType = {
  encoding: /* @__PURE__ */ encoding({format: 'int4', groupSize: 32, scaleFormat: 'float16', hasOffsets: true}),
  decode: (bytes, at, b, {codes, scales, offsets}) => {
    scales[b] = half(bytes, at);
    offsets[b] = half(bytes, at + 2);
    joinNibbles(bytes, at + 4, 16, codes, 16 * b);
  },
};

/** d * (code - 128), where the file has code - 128 as int8. */
const q8_0: BlockType = {
  encoding: /* @__PURE__ */ encoding({format: 'int8', groupSize: 32, scaleFormat: 'float16', zeroPoint: 128}),
  decode: (bytes, at, b, {codes, scales}) => {
    scales[b] = half(bytes, at);
    for (let i = 0; i < 32; i++) {
      codes[32 * b + i] = bytes[at + 2 + i] ^ 128;
    }
  },
};

/** d * scale * code - dmin * least, with scale and least of 6 bits for each 32. The products are exact in float32. */
const q4_k: BlockType = {
  encoding: /* @__PURE__ */ encoding({format: 'int4', groupSize: 32, scaleFormat: 'float32', hasOffsets: true}),
  decode: (bytes, at, b, {codes, scales, offsets}) => {
    const [d, dmin] = [halfValue(bytes, at), halfValue(bytes, at + 2)];
    const s = at + 4;
    for (let j = 0; j < 8; j++) {
      const [scale, least] =
        j < 4
          ? [bytes[s + j] & 63, bytes[s + j + 4] & 63]
          : [
              (bytes[s + j + 4] & 15) | ((bytes[s + j - 4] >> 6) << 4),
              (bytes[s + j + 4] >> 4) | ((bytes[s + j] >> 6) << 4),
            ];
      scales[8 * b + j] = d * scale;
      offsets[8 * b + j] = -dmin * least;
    }
    for (let i = 0; i < 4; i++) {
      joinNibbles(bytes, at + 16 + 32 * i, 32, codes, 128 * b + 32 * i);
    }
  },
};

/** d * scale * (code - 32) of 6 bits, with an int8 scale for each 16: as int8, whose zero point is 96 more. */
const q6_k: BlockType = {
  encoding: /* @__PURE__ */ encoding({format: 'int8', groupSize: 16, scaleFormat: 'float32', zeroPoint: 128}),
  decode: (bytes, at, b, {codes, scales}) => {
    const d = halfValue(bytes, at + 208);
    for (let j = 0; j < 16; j++) {
      scales[16 * b + j] = d * ((bytes[at + 192 + j] << 24) >> 24);
    }
    for (let i = 0; i < 256; i++) {
      const quarter = (i >> 5) & 3;
      const [part, l] = [i >> 7, i & 31];
      const low = (bytes[at + 64 * part + 32 * (quarter & 1) + l] >> (quarter < 2 ? 0 : 4)) & 15;
      const high = (bytes[at + 128 + 32 * part + l] >> (2 * quarter)) & 3;
      codes[256 * b + i] = (low | (high << 4)) + 96;
    }
  },
};

const mxfp4: BlockType = {
  encoding: /* @__PURE__ */ encoding({format: 'fp4', groupSize: 32, scaleFormat: 'e8m0'}),
  decode: (bytes, at, b, {codes, scales}) => {
    scales[b] = bytes[at];
    joinNibbles(bytes, at + 1, 16, codes, 16 * b);
  },
};

const blockTypes: ReadonlyMap<string, BlockType> = /* @__PURE__ */ new Map([
  ['Q4_0', q4_0],
  ['Q4_1', q4_1],
  ['Q8_0', q8_0],
  ['Q4_K', q4_k],
  ['Q6_K', q6_k],
  ['MXFP4', mxfp4],
]);

export const ggml: StoredFormat = {
  find: ({name, shape, numIn, isTransposed}, {tensors}) => {
    const dtype = tensors.get(name)?.dtype;
    const type = dtype == null ? undefined : blockTypes.get(dtype);
    if (type == null || isTransposed) {
      return undefined;
    }
    const {blockSize, typeSize} = ggmlTypeNamed(dtype!)!;
    const finder = new TensorFinder(tensors);
    const weights = finder.take(name, [dtype!], shape);
    if (numIn % blockSize !== 0) {
      finder.note(name, `expected a multiple of ${blockSize} inputs as ${dtype}, but has ${numIn}`);
    }
    return finder.problems.length > 0
      ? finder
      : {
          encoding: type.encoding,
          weights,
          extras: [],
          hasRows: true,
          decode: (bytes, {numRows}) => rowsOf(bytes, type, (numRows * numIn) / blockSize, blockSize, typeSize),
        };
  },
};

function rowsOf(
  bytes: Uint8Array,
  {encoding: {format, groupSize, scaleFormat, hasOffsets}, decode}: BlockType,
  numBlocks: number,
  blockSize: number,
  typeSize: number,
): Rows {
  const weights = new Int32Array((numBlocks * blockSize * quantizedFormats[format].bits) / 32);
  const numScales = (numBlocks * blockSize) / groupSize;
  const scales = newScaleArray(scaleFormat, [numScales]).subarray(0, numScales);
  const offsets = newScaleArray(scaleFormat, [hasOffsets ? numScales : 0]).subarray(0, numScales);
  const out = {codes: new Uint8Array(weights.buffer), scales, offsets};
  for (let b = 0; b < numBlocks; b++) {
    decode(bytes, b * typeSize, b, out);
  }
  return {weights, scales, ...(hasOffsets && {offsets})};
}
