/**
 * What the two programs of MoeGroupedMatMul have in common: webgpu_tiles.ts for many rows an expert, webgpu_stream.ts
 * for few. A workgroup of either has a tile of the result before the gate: TILE_ROWS rows of one expert, or fewer, by
 * TILE_COLUMNS of the D columns.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {Part} from '../../contract/expert_weights';
import type {MoeGroupedMatMulAttrs} from '../../contract/kernel_names';
import {encodingKey, isQuantizedEncoding, type WeightEncoding} from '../../contract/quantized_weights';
import type {StorageBinding, WgslProgram} from '../shared/webgpu';
import type {Quads, WeightReader} from './weights/index';
import {findingUniforms} from './webgpu_find_rows';

export type Launch = {
  backend: WebGPUBackend;
  x: TensorInfo;
  offset: TensorInfo;
  /** x in place of no bias, which is then not read. */
  bias: TensorInfo;
  /** Where rows are slots of tokens: the slot of each row. */
  permutedIdx?: TensorInfo;
  out: TensorInfo;
  attrs: MoeGroupedMatMulAttrs;
  /** How x is read and the result written: 4 columns at a time where all sizes allow it. */
  quads: Quads;
  weights: WeightReader;
  uniforms: Record<string, number>;
};

/** Terms k to k + 3 of a row of x, where C is a multiple of 4. 0 for terms that do not exist. */
const X_QUADS = /* wgsl */ `
  fn xQuad(row : u32, k : u32) -> vec4<f32> {
    if (HAS_K_TAIL == 1 && k >= uniforms.numIn) { return vec4<f32>(); }
    return x[(row * uniforms.numIn + k) / 4];
  }`;

/** The same for any C. No branches: there would be so many that a software GPU compiles them for minutes. */
const X_SCALARS = /* wgsl */ `
  fn xAt(row : u32, k : u32) -> f32 {
    let value = x[row * uniforms.numIn + min(k, uniforms.numIn - 1)];
    return select(0.0, value, k < uniforms.numIn);
  }
  fn xQuad(row : u32, k : u32) -> vec4<f32> {
    return vec4(xAt(row, k + 0), xAt(row, k + 1), xAt(row, k + 2), xAt(row, k + 3));
  }`;

/** WGSL: xQuad(row, k). */
export const xQuad = (quads: Quads): string => (quads === 'f32' ? X_SCALARS : X_QUADS);

/** WGSL: xRowOf(row), the row of x that a row of the result is computed from. */
export const xRowOf = ({permutedIdx}: Pick<Launch, 'permutedIdx'>): string =>
  permutedIdx == null
    ? /* wgsl */ `fn xRowOf(row : u32) -> u32 { return row; }`
    : /* wgsl */ `fn xRowOf(row : u32) -> u32 { return permutedIdx[row] / uniforms.topk; }`;

/**
 * WGSL: columnOf, which of the D columns is column i of a tile, and biasAt. Where gates and ups are concatenated, a
 * tile has gates in its left half and their ups in its right half.
 */
export const COLUMNS = /* wgsl */ `
  fn columnOf(tile : u32, i : u32) -> u32 {
    if (uniforms.isConcatenated == 0) { return tile * TILE_COLUMNS + i; }
    return tile * (TILE_COLUMNS / 2) + i % (TILE_COLUMNS / 2) + select(0u, uniforms.numOutputs, i >= TILE_COLUMNS / 2);
  }
  fn biasAt(expert : u32, d : u32) -> f32 {
    if (uniforms.hasBias == 0) { return 0.0; }
    return bias[expert * uniforms.numColumns + min(d, uniforms.numColumns - 1)];
  }`;

const WRITE_ZERO = /* wgsl */ `
  fn writeZero(row : u32, o : u32) {
    if (o < uniforms.numOutputs) { out[row * uniforms.numOutputs + o] = 0.0; }
  }`;
const WRITE_ZEROS = /* wgsl */ `
  fn writeZero(row : u32, o : u32) {
    if (o < uniforms.numOutputs && o % 4 == 0) { out[(row * uniforms.numOutputs + o) / 4] = vec4<f32>(); }
  }`;

const TILE = /* wgsl */ `
  struct Tile {
    firstRow : u32,
    // The row past the last one of the expert, which may be past the tile.
    endRow : u32,
    numRows : u32,
    // Its number among the tiles of the same rows.
    number : u32,
    // Columns of the result that it has.
    numOutputs : u32,
    hasExpert : bool,
    globalExpert : u32,
    // The expert's number in the part.
    expert : u32,
  }`;

/**
 * WGSL: findTile, the tile of a workgroup. A workgroup without rows returns, and a workgroup whose rows belong to no
 * expert writes 0 and returns.
 */
export const findTile = (outType: Quads): string => /* wgsl */ `
  ${TILE}
  fn findTile(group : u32) -> Tile {
    var tile = Tile();
    let slot = group / uniforms.numTiles;
    if (slot >= uniforms.numSlots) { return tile; }
    let rows = findRows(slot);
    if (rows.first >= rows.end) { return tile; }
    tile.firstRow = rows.first;
    tile.endRow = rows.end;
    tile.numRows = min(TILE_ROWS, rows.end - rows.first);
    tile.number = group % uniforms.numTiles;
    tile.numOutputs = select(TILE_COLUMNS, TILE_COLUMNS / 2, uniforms.isGated == 1);
    tile.hasExpert = rows.segment > 0 && rows.segment <= uniforms.numExperts;
    tile.globalExpert = rows.segment - 1;
    tile.expert = tile.globalExpert - uniforms.firstExpert;
    return tile;
  }
  ${outType === 'f32' ? WRITE_ZERO : WRITE_ZEROS}
  fn writeZeros(tile : Tile, thread : u32) {
    for (var i = thread; i < tile.numRows * tile.numOutputs; i += NUM_THREADS) {
      writeZero(tile.firstRow + i / tile.numOutputs, tile.number * tile.numOutputs + i % tile.numOutputs);
    }
  }`;

/** WGSL: the same where all rows are of one expert, and not more than a tile has. */
export const TILE_OF_ONE_EXPERT = /* wgsl */ `
  ${TILE}
  fn findTile(group : u32) -> Tile {
    var tile = Tile();
    tile.endRow = uniforms.numRows;
    tile.numRows = uniforms.numRows;
    tile.number = group;
    tile.numOutputs = TILE_COLUMNS;
    tile.hasExpert = true;
    return tile;
  }
  fn writeZeros(tile : Tile, thread : u32) {}`;

/** What a page has as `const` in its WGSL. */
type TileConstants = {
  TILE_ROWS: number;
  TILE_COLUMNS: number;
  NUM_THREADS: number;
  [name: string]: number;
};

/** The end of a program's name. Names of programs of float32 have none. */
export const encodingName = (encoding: WeightEncoding): string =>
  isQuantizedEncoding(encoding) ? `_${encodingKey(encoding)}` : '';

/** The program for one part of the weights. The threads of a workgroup together take `stepK` terms at a time. */
export function groupedProgram(
  {x, offset, bias, permutedIdx, out, attrs, quads, weights, uniforms}: Launch,
  part: Part<TensorInfo>,
  page: {
    name: string;
    outType: Quads;
    stepK: number;
    weightBuffers: StorageBinding[];
    constants: TileConstants;
    code: () => string;
  },
): WgslProgram {
  const {numRows, numIn, numColumns, numOutputs, numExperts, isConcatenated} = uniforms;
  const {TILE_ROWS, TILE_COLUMNS} = page.constants;
  const numTiles = isConcatenated ? Math.ceil(numOutputs / (TILE_COLUMNS / 2)) : Math.ceil(numColumns / TILE_COLUMNS);
  const finding = findingUniforms(numRows, part, numExperts, TILE_ROWS);
  return {
    name: `${page.name}_${attrs.weightFormat}${encodingName(attrs.encoding)}`,
    buffers: [
      {name: 'out', type: page.outType, access: 'read_write', tensor: out},
      {name: 'x', type: quads, access: 'read', tensor: x},
      ...page.weightBuffers,
      {name: 'expertFirstTokenOffset', type: 'i32', access: 'read', tensor: offset},
      {name: 'bias', type: 'f32', access: 'read', tensor: bias},
      ...(permutedIdx == null
        ? []
        : [{name: 'permutedIdx', type: 'u32', access: 'read', tensor: permutedIdx} as const]),
    ],
    uniforms: {...uniforms, ...weights.uniforms, ...finding.uniforms, numSlots: finding.numSlots, numTiles},
    // Where steps end with the last term, no read has to ask whether it is past that.
    constants: {...page.constants, HAS_K_TAIL: numIn % page.stepK === 0 ? 0 : 1},
    numWorkgroups: finding.numSlots * numTiles,
    code: page.code,
  };
}
