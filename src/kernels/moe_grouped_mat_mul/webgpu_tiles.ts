/**
 * MoeGroupedMatMul on WebGPU for many rows an expert: out[r] = act(W[e] x[r] + b[e]).
 *
 * A workgroup of 128 threads has a tile of 64 rows of one expert by 128 columns, and takes 16 terms at a time through
 * 12 KiB of workgroup memory. Rows and columns lie there k-major, four of them in a vec4: vec4 q of term t is at
 * t * 16 + q or t * 32 + q, with q ^ 2 * (t / 4) in place of q. With that exclusive or, threads that store 4 x 4 blocks
 * hit different banks, and so do threads that read a term.
 *
 * A thread has 8 x 8 sums: thread (ty, tx) has rows 8 * ty to 8 * ty + 7, and columns 4 * tx to 4 * tx + 3 of the left
 * and of the right 64. Row i of the eight has the accumulators left<i> and right<i>. A subtile of 32 rows by 64 columns
 * belongs to 32 consecutive threads. Where a tile has no more than 32 rows, half of the subtiles add up nothing. Which
 * threads have these subtiles alternates from workgroup to workgroup, so that no part of a processor is idle more than
 * another.
 *
 * The accumulators are sixteen variables, and text is repeated over them. An array of them is slower on an H100: by 5
 * to 6 % with the inner loop over the array, and 11 to 16 times with an index that is dynamic in the last step.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {Part} from '../../contract/expert_weights';
import {repeat} from '../shared/repeat';
import {entryPoint, runWgsl} from '../shared/webgpu';
import {ACTIVATIONS_WGSL} from './activations';
import {FIND_ROWS} from './webgpu_find_rows';
import {COLUMNS, findTile, groupedProgram, type Launch, type Quads, xQuad} from './webgpu_program';

/** The WGSL has these as `const` by the same names. */
const CONSTANTS = {TILE_ROWS: 64, TILE_COLUMNS: 128, TILE_K: 16, NUM_THREADS: 128};

/**
 * WGSL: loadColumns, a thread's quad `i` of the four of a step of TILE_K terms from k on, and storeColumns. A quad is
 * four terms of one column: a thread reads a block of four columns, and stores it transposed.
 */
const K_MAJOR = /* wgsl */ `
  fn loadColumns(i : u32, tile : Tile, k : u32, thread : u32) -> vec4<f32> {
    let column = columnOf(tile.number, 4 * (thread / K_QUADS) + i);
    return weightQuad(tile.expert, column, k + 4 * (thread % K_QUADS));
  }
  fn storeColumns(thread : u32, quad0 : vec4<f32>, quad1 : vec4<f32>, quad2 : vec4<f32>, quad3 : vec4<f32>) {
    let place = 4 * (thread % K_QUADS) * COLUMN_QUADS + ((thread / K_QUADS) ^ (2 * (thread % K_QUADS)));
    tileColumns[place] = vec4(quad0.x, quad1.x, quad2.x, quad3.x);
    tileColumns[place + COLUMN_QUADS] = vec4(quad0.y, quad1.y, quad2.y, quad3.y);
    tileColumns[place + 2 * COLUMN_QUADS] = vec4(quad0.z, quad1.z, quad2.z, quad3.z);
    tileColumns[place + 3 * COLUMN_QUADS] = vec4(quad0.w, quad1.w, quad2.w, quad3.w);
  }`;

/** The same where a quad is four columns of one term: a thread reads the same columns of every fourth term. */
const N_MAJOR = /* wgsl */ `
  fn loadColumns(i : u32, tile : Tile, k : u32, thread : u32) -> vec4<f32> {
    let column = columnOf(tile.number, 4 * (thread % COLUMN_QUADS));
    return weightQuad(tile.expert, column, k + thread / COLUMN_QUADS + K_QUADS * i);
  }
  fn storeColumns(thread : u32, quad0 : vec4<f32>, quad1 : vec4<f32>, quad2 : vec4<f32>, quad3 : vec4<f32>) {
    let t = thread / COLUMN_QUADS;
    let q = thread % COLUMN_QUADS;
    tileColumns[t * COLUMN_QUADS + q] = quad0;
    tileColumns[(t + K_QUADS) * COLUMN_QUADS + (q ^ 2)] = quad1;
    tileColumns[(t + 2 * K_QUADS) * COLUMN_QUADS + (q ^ 4)] = quad2;
    tileColumns[(t + 3 * K_QUADS) * COLUMN_QUADS + (q ^ 6)] = quad3;
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

type Variant = {columns: string; epilogue: string; outType: Quads};

const tilesWgsl = ({quads, weights}: Launch, {columns, epilogue, outType}: Variant): string => /* wgsl */ `
  const ROW_QUADS = TILE_ROWS / 4;
  const COLUMN_QUADS = TILE_COLUMNS / 4;
  const K_QUADS = TILE_K / 4;
  ${FIND_ROWS}
  ${ACTIVATIONS_WGSL}
  ${xQuad(quads)}
  ${weights.weightQuad}
  ${COLUMNS}
  ${BIAS_QUAD}
  ${findTile(outType)}
  var<workgroup> tileRows : array<vec4<f32>, TILE_K * ROW_QUADS>;
  var<workgroup> tileColumns : array<vec4<f32>, TILE_K * COLUMN_QUADS>;
  ${columns}
  ${epilogue}
  ${entryPoint(
    /* wgsl */ `
    let tile = findTile(group);
    if (tile.numRows == 0) { return; }
    if (!tile.hasExpert) {
      writeZeros(tile, thread);
      return;
    }
    let subtile = thread / 32;
    let tx = thread % 8 + 8 * (subtile % 2);
    let ty = thread / 8 % 4 + 4 * ((subtile / 2 + group) % 2);
    let hasRows = 8 * (ty - ty % 4) < tile.numRows;
    ${repeat(8, (i) => `var left${i} = vec4<f32>(); var right${i} = vec4<f32>();`)}
    ${repeat(4, (i) => `var rowQuad${i} = vec4<f32>(); var columnQuad${i} = vec4<f32>();`)}
    var k = 0u;
    loop {
      // The next terms are on their way while the last ones are added up.
      if (k < uniforms.numIn) {
        // Rows past the last are the last again: their sums are not written.
        if (thread < K_QUADS * ROW_QUADS) {
          ${repeat(
            4,
            (i) => /* wgsl */ `
          rowQuad${i} = xQuad(
            min(tile.firstRow + 4 * (thread / K_QUADS) + ${i}, tile.endRow - 1), k + 4 * (thread % K_QUADS));`,
          )}
        }
        ${repeat(4, (i) => `columnQuad${i} = loadColumns(${i}, tile, k, thread);`)}
      }
      if (k > 0) {
        if (hasRows) {
          for (var t = 0u; t < TILE_K; t++) {
            let swizzle = 2 * (t / 4);
            let row = t * ROW_QUADS + ((2 * ty) ^ swizzle);
            let column = t * COLUMN_QUADS + (tx ^ swizzle);
            let leftColumns = tileColumns[column];
            let rightColumns = tileColumns[column + COLUMN_QUADS / 2];
            let rows0 = tileRows[row];
            let rows1 = tileRows[row + 1];
            ${repeat(
              8,
              (i) => /* wgsl */ `
            left${i} = fma(vec4(rows${i >> 2}[${i & 3}]), leftColumns, left${i});
            right${i} = fma(vec4(rows${i >> 2}[${i & 3}]), rightColumns, right${i});`,
            )}
          }
        }
        workgroupBarrier();
      }
      if (k >= uniforms.numIn) { break; }
      if (thread < K_QUADS * ROW_QUADS) {
        ${repeat(
          4,
          (j) => /* wgsl */ `
        tileRows[(4 * (thread % K_QUADS) + ${j}) * ROW_QUADS + ((thread / K_QUADS) ^ (2 * (thread % K_QUADS)))] =
          vec4(rowQuad0[${j}], rowQuad1[${j}], rowQuad2[${j}], rowQuad3[${j}]);`,
        )}
      }
      storeColumns(thread, columnQuad0, columnQuad1, columnQuad2, columnQuad3);
      workgroupBarrier();
      k += TILE_K;
    }
    for (var i = 0u; i < 8; i++) {
      let row = 8 * ty + i;
      var z0 = left0;
      var z1 = right0;
      ${repeat(7, (i) => `if (i == ${i + 1}) { z0 = left${i + 1}; z1 = right${i + 1}; }`)}
      if (row < tile.numRows) {
        // Read here, so that the accumulators have the registers to themselves before.
        if (uniforms.hasBias == 1) {
          z0 += biasQuad(tile, 4 * tx);
          z1 += biasQuad(tile, TILE_COLUMNS / 2 + 4 * tx);
        }
        writeRow(tile, tile.firstRow + row, tx, z0, z1);
      }
    }`,
    CONSTANTS.NUM_THREADS,
  )}`;

export function runTiles(launch: Launch, part: Part<TensorInfo>): void {
  const {backend, attrs, quads} = launch;
  const isInterleaved = attrs.gated && attrs.gateUp === 'interleaved';
  const outType = isInterleaved ? 'f32' : quads;
  const halves = outType === 'f32' ? HALVES_IN_SCALARS : HALVES_IN_QUADS;
  const epilogue = isInterleaved ? PAIRS : halves;
  const columns = attrs.weightFormat === 'outIn' ? K_MAJOR : N_MAJOR;
  const program = groupedProgram(launch, part, {
    name: isInterleaved ? 'MoeGroupedMatMulTiles_interleaved' : 'MoeGroupedMatMulTiles',
    outType,
    stepK: CONSTANTS.TILE_K,
    constants: CONSTANTS,
    code: () => tilesWgsl(launch, {columns, epilogue, outType}),
  });
  runWgsl(backend, program);
}
