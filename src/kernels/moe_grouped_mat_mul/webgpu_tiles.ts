/**
 * MoeGroupedMatMul on WebGPU for many rows an expert: out[r] = act(W[e] x[r] + b[e]).
 *
 * A workgroup has a tile of up to 64 rows of one expert by 64 or 128 columns, and takes 16 or 32 terms at a time
 * through 8 to 16 KiB of workgroup memory. Rows and columns lie there k-major, four of them in a vec4: quad q of term
 * 4 * t + u is at [t][u][q ^ SWIZZLE * t]. With that exclusive or, threads that store 4 x 4 blocks hit different banks,
 * and so do threads that read a term.
 *
 * A thread has 4 x 8 sums: thread (ty, tx) has rows 4 * ty to 4 * ty + 3, and columns 4 * tx to 4 * tx + 3 of the left
 * and of the right half of the tile. Row i of the four has the accumulators left<i> and right<i>.
 *
 * A subtile belongs to 32 consecutive threads. It has all columns, and 8 rows where there are 128, or 16 where there
 * are 64. Subtiles without rows add up nothing, so that a tile does no more than its rows ask for, to the next 8 or 16.
 * Which threads have these subtiles alternates from workgroup to workgroup, so that no part of a processor is idle more
 * than another.
 *
 * On an H100, w1 of OLMoE with 256 rows an expert runs at 35 TFLOP/s. It runs at 30 where a loop takes the terms of a
 * step in place of text that is repeated, at 33 where neighbouring lanes of a subtile do not share columns, at 33 with
 * 8 x 8 sums a thread, and at 28 with these and tiles of 128 x 128.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {Part} from '../../contract/expert_weights';
import {repeat} from '../shared/repeat';
import {entryPoint, runWgsl} from '../shared/webgpu';
import {ACTIVATIONS_WGSL} from './activations';
import type {Quads} from './weights/index';
import {FIND_ROWS} from './webgpu_find_rows';
import {COLUMNS, findTile, groupedProgram, type Launch, xQuad, xRowOf} from './webgpu_program';

/** The size of a tile, and the terms of a step. */
type TileShape = {rows: number; columns: number; k: number};

/**
 * The tile for so many rows an expert on average. TFLOP/s on an H100, of w1 of OLMoE and of w1 of Granite, which has
 * 256 tiles of 128 columns where each expert has one:
 *
 *   rows   32 x 128   48 x 128   64 x 128   64 x 64   64 x 64, 32 terms
 *     16       13.4       12.3       12.8      11.8                10.6
 *     24       19.5       17.6       18.9      16.5                14.5
 *     32       19.9       22.2       21.8      20.8                18.7
 *     64       25.5       25.7       27.5      27.8                26.3
 *    256       31.3                  35.1      35.5                34.4
 *     16        8.3        8.6       12.2       9.7                 8.8   Granite
 *     32       14.2       14.2       17.7      14.1                17.1   Granite
 *     64       15.9       17.9       19.5      19.4                23.4   Granite
 *    128       23.4       27.7       25.6      28.7                28.3   Granite
 *
 * Where few tiles share a processor, threads wait for each other at barriers: large workgroups or long steps help.
 * Tiles of 16 rows reach 11.6 at 16 rows.
 */
function tileShape(numColumns: number, numExperts: number, rowsOfExpert: number): TileShape {
  const numTiles = (columns: number) => numExperts * Math.max(1, rowsOfExpert / 64) * Math.ceil(numColumns / columns);
  if (rowsOfExpert > 48) {
    return {rows: 64, columns: 64, k: numTiles(64) > FEW_TILES ? 16 : 32};
  }
  if (rowsOfExpert > 36 || numTiles(128) <= FEW_TILES) {
    return {rows: 64, columns: 128, k: 16};
  }
  return {rows: rowsOfExpert > 24 ? 48 : 32, columns: 128, k: 16};
}

/** About four for each processor of an H100. */
const FEW_TILES = 512;

/** The WGSL has these as `const` by the same names. */
const constantsOf = ({rows, columns, k}: TileShape) => ({
  TILE_ROWS: rows,
  TILE_COLUMNS: columns,
  TILE_K: k,
  NUM_THREADS: (rows / 4) * (columns / 8),
});

/**
 * WGSL: columnQuadOf and kQuadOf, where the block of four columns by four terms is that a thread loads; loadColumns,
 * quad `i` of the block, as memory has it; and storeColumns. A quad is four terms of one column, so that the block is
 * stored transposed.
 */
const K_MAJOR = /* wgsl */ `
  fn columnQuadOf(block : u32) -> u32 { return block / K_QUADS; }
  fn kQuadOf(block : u32) -> u32 { return block % K_QUADS; }
  fn loadColumns(i : u32, tile : Tile, k : u32, block : u32) -> vec4<u32> {
    return rawQuad(tile.expert, columnOf(tile.number, 4 * columnQuadOf(block) + i), k + 4 * kQuadOf(block));
  }
  fn storeColumns(block : u32, raw0 : vec4<u32>, raw1 : vec4<u32>, raw2 : vec4<u32>, raw3 : vec4<u32>) {
    ${repeat(4, (i) => `let quad${i} = weightsOf(raw${i});`)}
    let t = kQuadOf(block);
    let q = columnQuadOf(block) ^ (SWIZZLE * t);
    tileColumns[t][0][q] = vec4(quad0.x, quad1.x, quad2.x, quad3.x);
    tileColumns[t][1][q] = vec4(quad0.y, quad1.y, quad2.y, quad3.y);
    tileColumns[t][2][q] = vec4(quad0.z, quad1.z, quad2.z, quad3.z);
    tileColumns[t][3][q] = vec4(quad0.w, quad1.w, quad2.w, quad3.w);
  }`;

/** The same where a quad is four columns of one term. */
const N_MAJOR = /* wgsl */ `
  fn columnQuadOf(block : u32) -> u32 { return block % COLUMN_QUADS; }
  fn kQuadOf(block : u32) -> u32 { return block / COLUMN_QUADS; }
  fn loadColumns(i : u32, tile : Tile, k : u32, block : u32) -> vec4<u32> {
    return rawQuad(tile.expert, columnOf(tile.number, 4 * columnQuadOf(block)), k + 4 * kQuadOf(block) + i);
  }
  fn storeColumns(block : u32, raw0 : vec4<u32>, raw1 : vec4<u32>, raw2 : vec4<u32>, raw3 : vec4<u32>) {
    ${repeat(4, (i) => `let quad${i} = weightsOf(raw${i});`)}
    let t = kQuadOf(block);
    let q = columnQuadOf(block) ^ (SWIZZLE * t);
    tileColumns[t][0][q] = quad0;
    tileColumns[t][1][q] = quad1;
    tileColumns[t][2][q] = quad2;
    tileColumns[t][3][q] = quad3;
  }`;

/** WGSL: rowOf, the row of x that row `i` of a block of four rows by four terms is read from; and storeRows. */
const ROWS = /* wgsl */ `
  // Rows past the last are the last again: their sums are not written.
  fn rowOf(i : u32, tile : Tile, block : u32) -> u32 {
    return xRowOf(min(tile.firstRow + 4 * (block / K_QUADS) + i, tile.endRow - 1));
  }
  fn storeRows(block : u32, raw0 : vec4<u32>, raw1 : vec4<u32>, raw2 : vec4<u32>, raw3 : vec4<u32>) {
    ${repeat(4, (i) => `let quad${i} = bitcast<vec4<f32>>(raw${i});`)}
    let t = block % K_QUADS;
    let q = (block / K_QUADS) ^ (SWIZZLE * t);
    tileRows[t][0][q] = vec4(quad0.x, quad1.x, quad2.x, quad3.x);
    tileRows[t][1][q] = vec4(quad0.y, quad1.y, quad2.y, quad3.y);
    tileRows[t][2][q] = vec4(quad0.z, quad1.z, quad2.z, quad3.z);
    tileRows[t][3][q] = vec4(quad0.w, quad1.w, quad2.w, quad3.w);
  }`;

const WRITE_OUTPUT = /* wgsl */ `
  fn writeOutput(row : u32, o : u32, value : f32) {
    if (o < uniforms.numOutputs) { out[row * uniforms.numOutputs + o] = value; }
  }`;

/**
 * WGSL: writeRow, the epilogue, which writes a thread's outputs of a row from z0 and z1, the sums of the left and of
 * the right half. The right half's columns are the ups of the left half's gates, or are more outputs.
 */
const WRITE_HALVES = /* wgsl */ `
  fn writeRow(tile : Tile, row : u32, tx : u32, z0 : vec4<f32>, z1 : vec4<f32>) {
    for (var half = 0u; half < select(2u, 1u, uniforms.isGated == 1); half++) {
      var y = select(z0, z1, half == 1);
      for (var j = 0u; j < 4; j++) { y[j] = activate(clampedGate(y[j])); }
      if (uniforms.isGated == 1) {
        for (var j = 0u; j < 4; j++) { y[j] *= clampedUp(z1[j]); }
      }
      writeFour(row, tile.number * tile.numOutputs + TILE_COLUMNS / 2 * half + 4 * tx, y);
    }
  }`;
const HALVES_IN_QUADS = /* wgsl */ `
  fn writeFour(row : u32, o : u32, y : vec4<f32>) {
    if (o < uniforms.numOutputs) { out[(row * uniforms.numOutputs + o) / 4] = y; }
  }
  ${WRITE_HALVES}`;
const HALVES_IN_SCALARS = /* wgsl */ `
  ${WRITE_OUTPUT}
  fn writeFour(row : u32, o : u32, y : vec4<f32>) {
    writeOutput(row, o, y.x);
    writeOutput(row, o + 1, y.y);
    writeOutput(row, o + 2, y.z);
    writeOutput(row, o + 3, y.w);
  }
  ${WRITE_HALVES}`;

/** The same where gates and ups are interleaved: a thread has two outputs of a quad of columns. */
const PAIRS = /* wgsl */ `
  ${WRITE_OUTPUT}
  fn writeRow(tile : Tile, row : u32, tx : u32, z0 : vec4<f32>, z1 : vec4<f32>) {
    for (var pair = 0u; pair < 4; pair++) {
      let z = select(z0, z1, pair > 1);
      let zPair = select(z.xy, z.zw, pair % 2 == 1);
      let o = tile.number * (TILE_COLUMNS / 2) + TILE_COLUMNS / 4 * (pair / 2) + 2 * tx + pair % 2;
      writeOutput(row, o, activate(clampedGate(zPair.x)) * clampedUp(zPair.y));
    }
  }`;

/** Bias of four columns from column `first` of the tile on. */
const BIAS_QUAD = /* wgsl */ `
  fn biasQuad(tile : Tile, first : u32) -> vec4<f32> {
    return vec4(
      biasAt(tile.globalExpert, columnOf(tile.number, first)),
      biasAt(tile.globalExpert, columnOf(tile.number, first + 1)),
      biasAt(tile.globalExpert, columnOf(tile.number, first + 2)),
      biasAt(tile.globalExpert, columnOf(tile.number, first + 3)));
  }`;

type Variant = {columns: string; epilogue: string; outType: Quads; shape: TileShape};

/** A thread adds the products of term 4 * t + u to its sums. */
const addTerm = (t: number, u: number): string => /* wgsl */ `
          {
            let rows = tileRows[${t}][${u}][ty ^ (SWIZZLE * ${t})];
            let leftColumns = tileColumns[${t}][${u}][tx ^ (SWIZZLE * ${t})];
            let rightColumns = tileColumns[${t}][${u}][(tx ^ (SWIZZLE * ${t})) + COLUMN_QUADS / 2];
            ${repeat(
              4,
              (i) => /* wgsl */ `
            left${i} = fma(vec4(rows[${i}]), leftColumns, left${i});
            right${i} = fma(vec4(rows[${i}]), rightColumns, right${i});`,
            )}
          }`;

const tilesWgsl = ({quads, weights, permutedIdx}: Launch, {columns, epilogue, outType, shape}: Variant): string => {
  const {NUM_THREADS} = constantsOf(shape);
  const hasThreadsForRows = (shape.columns * shape.k) / 16 < NUM_THREADS;
  // A thread has one block of a step, or a block of columns and perhaps one of rows: then in registers of its own.
  const rowQuad = hasThreadsForRows ? 'quad' : 'rowQuad';
  const forBlocks = (ofColumns: string, ofRows: string): string =>
    hasThreadsForRows
      ? /* wgsl */ `if (thread < COLUMN_BLOCKS) { ${ofColumns} } else if (rowBlock < ROW_BLOCKS) { ${ofRows} }`
      : /* wgsl */ `${ofColumns} if (rowBlock < ROW_BLOCKS) { ${ofRows} }`;
  return /* wgsl */ `
  const COLUMN_QUADS = TILE_COLUMNS / 4;
  const K_QUADS = TILE_K / 4;
  // In a multiple of 8, within which the exclusive or stays.
  const ROW_QUADS = (TILE_ROWS + 31) / 32 * 8;
  const SWIZZLE = 8 / K_QUADS;
  // Blocks of 4 x 4 in a step.
  const COLUMN_BLOCKS = COLUMN_QUADS * K_QUADS;
  const ROW_BLOCKS = TILE_ROWS / 4 * K_QUADS;
  // Threads of a subtile, side by side and one below the other.
  const THREADS_X = TILE_COLUMNS / 8;
  const THREADS_Y = 32 / THREADS_X;
  const NUM_SUBTILES = NUM_THREADS / 32;
  ${FIND_ROWS}
  ${ACTIVATIONS_WGSL}
  ${xQuad(quads)}
  ${xRowOf({permutedIdx})}
  ${weights.tile.functions}
  ${COLUMNS}
  ${BIAS_QUAD}
  ${findTile(outType)}
  var<workgroup> tileRows : array<array<array<vec4<f32>, ROW_QUADS>, 4>, K_QUADS>;
  var<workgroup> tileColumns : array<array<array<vec4<f32>, COLUMN_QUADS>, 4>, K_QUADS>;
  ${columns}
  ${ROWS}
  ${epilogue}
  ${entryPoint(
    /* wgsl */ `
    let tile = findTile(group);
    if (tile.numRows == 0) { return; }
    if (!tile.hasExpert) {
      writeZeros(tile, thread);
      return;
    }
    // Lanes 2i and 2i + 1 have the same columns, and lanes 4i and 4i + 2 the same rows: their reads are one.
    let lane = thread % 32;
    let subtile = (thread / 32 + group) % NUM_SUBTILES;
    let tx = lane / 2 % THREADS_X;
    let ty = lane % 2 + 2 * (lane / (2 * THREADS_X)) + THREADS_Y * subtile;
    let hasRows = 4 * THREADS_Y * subtile < tile.numRows;
    // A number past ROW_BLOCKS where the thread has none.
    let rowBlock = thread - COLUMN_BLOCKS % NUM_THREADS;
    ${repeat(4, (i) => `let row${i} = rowOf(${i}, tile, rowBlock);`)}
    ${repeat(4, (i) => `var left${i} = vec4<f32>(); var right${i} = vec4<f32>();`)}
    ${repeat(4, (i) => `var quad${i} = vec4<u32>();`)}
    ${hasThreadsForRows ? '' : repeat(4, (i) => `var rowQuad${i} = vec4<u32>();`)}
    var k = 0u;
    loop {
      // The next terms are on their way while the last ones are added up.
      if (k < uniforms.numIn) {
        ${forBlocks(
          repeat(4, (i) => `quad${i} = loadColumns(${i}, tile, k, thread);`),
          repeat(4, (i) => `${rowQuad}${i} = bitcast<vec4<u32>>(xQuad(row${i}, k + 4 * (rowBlock % K_QUADS)));`),
        )}
      }
      if (k > 0) {
        if (hasRows) {
          ${repeat(shape.k, (term) => addTerm(term >> 2, term & 3))}
        }
        workgroupBarrier();
      }
      if (k >= uniforms.numIn) { break; }
      ${forBlocks(
        'storeColumns(thread, quad0, quad1, quad2, quad3);',
        `storeRows(rowBlock, ${repeat(4, (i) => `${rowQuad}${i}`, ', ')});`,
      )}
      workgroupBarrier();
      k += TILE_K;
    }
    for (var i = 0u; i < 4; i++) {
      let row = 4 * ty + i;
      var z0 = left0;
      var z1 = right0;
      ${repeat(3, (i) => `if (i == ${i + 1}) { z0 = left${i + 1}; z1 = right${i + 1}; }`)}
      if (row < tile.numRows) {
        // Read here, so that the accumulators have the registers to themselves before.
        if (uniforms.hasBias == 1) {
          z0 += biasQuad(tile, 4 * tx);
          z1 += biasQuad(tile, TILE_COLUMNS / 2 + 4 * tx);
        }
        writeRow(tile, tile.firstRow + row, tx, z0, z1);
      }
    }`,
    NUM_THREADS,
  )}`;
};

export function runTiles(launch: Launch, part: Part<TensorInfo>): void {
  const {backend, attrs, quads, uniforms} = launch;
  const isInterleaved = attrs.gated && attrs.gateUp === 'interleaved';
  const outType = isInterleaved ? 'f32' : quads;
  const halves = outType === 'f32' ? HALVES_IN_SCALARS : HALVES_IN_QUADS;
  const epilogue = isInterleaved ? PAIRS : halves;
  const columns = attrs.weightFormat === 'outIn' ? K_MAJOR : N_MAJOR;
  const shape = tileShape(uniforms.numColumns, part.numExperts, uniforms.numRows / uniforms.numExperts);
  const program = groupedProgram(launch, part, {
    name: isInterleaved ? 'MoeGroupedMatMulTiles_interleaved' : 'MoeGroupedMatMulTiles',
    outType,
    stepK: shape.k,
    weightBuffers: launch.weights.tile.buffers(part),
    constants: constantsOf(shape),
    code: () => tilesWgsl(launch, {columns, epilogue, outType, shape}),
  });
  runWgsl(backend, program);
}
