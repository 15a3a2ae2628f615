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

/** How a thread reads its columnQuad0 to columnQuad3 of a step of TILE_K terms, and how it stores them. */
type ColumnStep = {load: string; store: string};

/** A quad is four terms of one column: a thread reads a block of four columns, and stores it transposed. */
const K_MAJOR: ColumnStep = {
  load: repeat(
    4,
    (i) => /* wgsl */ `
        columnQuad${i} = weightQuad(expert, columnOf(tile, 4 * (thread / K_QUADS) + ${i}), k + 4 * (thread % K_QUADS));`,
  ),
  store: repeat(
    4,
    (j) => /* wgsl */ `
      tileColumns[(4 * (thread % K_QUADS) + ${j}) * COLUMN_QUADS + ((thread / K_QUADS) ^ (2 * (thread % K_QUADS)))] =
        vec4(columnQuad0[${j}], columnQuad1[${j}], columnQuad2[${j}], columnQuad3[${j}]);`,
  ),
};

/** A quad is four columns of one term: a thread reads the same columns of every fourth term. */
const N_MAJOR: ColumnStep = {
  load: repeat(
    4,
    (i) => /* wgsl */ `
        columnQuad${i} = weightQuad(
          expert, columnOf(tile, 4 * (thread % COLUMN_QUADS)), k + thread / COLUMN_QUADS + K_QUADS * ${i});`,
  ),
  store: repeat(
    4,
    (i) => /* wgsl */ `
      tileColumns[(thread / COLUMN_QUADS + K_QUADS * ${i}) * COLUMN_QUADS + ((thread % COLUMN_QUADS) ^ (2 * ${i}))] =
        columnQuad${i};`,
  ),
};

/** An epilogue writes the outputs of row `outRow` from `z0` and `z1`, the sums of its left and of its right half. */
const halves = (writeFour: string) => /* wgsl */ `
        // The right half's columns are the ups of the left half's gates, or are more outputs.
        for (var half = 0u; half < select(2u, 1u, uniforms.isGated == 1); half++) {
          var y = select(z0, z1, half == 1);
          for (var j = 0u; j < 4; j++) { y[j] = activate(clampedGate(y[j])); }
          if (uniforms.isGated == 1) {
            for (var j = 0u; j < 4; j++) { y[j] *= clampedUp(z1[j]); }
          }
          let o = tile * tileOutputs + TILE_COLUMNS / 2 * half + 4 * tx;
          ${writeFour}
        }`;
const HALVES_IN_QUADS = halves(/* wgsl */ `
          if (o < uniforms.numOutputs) { out[(outRow * uniforms.numOutputs + o) / 4] = y; }`);
const HALVES_IN_SCALARS = halves(
  repeat(
    4,
    (j) => /* wgsl */ `
          writeOutput(outRow, o + ${j}, y[${j}]);`,
  ),
);

/** Gates and ups are interleaved: a thread has two outputs of a quad of columns. */
const PAIRS = /* wgsl */ `
        for (var pair = 0u; pair < 4; pair++) {
          let z = select(z0, z1, pair > 1);
          let zPair = select(z.xy, z.zw, pair % 2 == 1);
          let o = tile * (TILE_COLUMNS / 2) + TILE_COLUMNS / 4 * (pair / 2) + 2 * tx + pair % 2;
          writeOutput(outRow, o, activate(clampedGate(zPair.x)) * clampedUp(zPair.y));
        }`;

const WRITE_OUTPUT = /* wgsl */ `
  fn writeOutput(row : u32, o : u32, value : f32) {
    if (o < uniforms.numOutputs) { out[row * uniforms.numOutputs + o] = value; }
  }`;

type Variant = {columns: ColumnStep; isInterleaved: boolean; outType: Quads};

const tilesWgsl = ({quads, weights}: Launch, {columns, isInterleaved, outType}: Variant): string => /* wgsl */ `
  const ROW_QUADS = TILE_ROWS / 4;
  const COLUMN_QUADS = TILE_COLUMNS / 4;
  const K_QUADS = TILE_K / 4;
  ${FIND_ROWS}
  ${ACTIVATIONS_WGSL}
  ${xQuad(quads)}
  ${weights.weightQuad}
  ${COLUMNS}
  var<workgroup> tileRows : array<vec4<f32>, TILE_K * ROW_QUADS>;
  var<workgroup> tileColumns : array<vec4<f32>, TILE_K * COLUMN_QUADS>;
  ${outType === 'f32' ? WRITE_OUTPUT : ''}
  ${entryPoint(
    /* wgsl */ `
    ${findTile(outType)}
    let subtile = thread / 32;
    let tx = thread % 8 + 8 * (subtile % 2);
    let ty = thread / 8 % 4 + 4 * ((subtile / 2 + group) % 2);
    let hasRows = 8 * (ty - ty % 4) < numRowsInTile;
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
            min(rows.first + 4 * (thread / K_QUADS) + ${i}, rows.end - 1), k + 4 * (thread % K_QUADS));`,
          )}
        }
        ${columns.load}
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
      ${columns.store}
      workgroupBarrier();
      k += TILE_K;
    }
    for (var i = 0u; i < 8; i++) {
      let row = 8 * ty + i;
      var z0 = left0;
      var z1 = right0;
      ${repeat(7, (i) => `if (i == ${i + 1}) { z0 = left${i + 1}; z1 = right${i + 1}; }`)}
      if (row < numRowsInTile) {
        let outRow = rows.first + row;
        // Read here, so that the accumulators have the registers to themselves before.
        if (uniforms.hasBias == 1) {
          z0 += vec4(
            ${repeat(4, (j) => `biasAt(globalExpert, columnOf(tile, 4 * tx + ${j}))`, ',\n')});
          z1 += vec4(
            ${repeat(4, (j) => `biasAt(globalExpert, columnOf(tile, TILE_COLUMNS / 2 + 4 * tx + ${j}))`, ',\n')});
        }
        ${isInterleaved ? PAIRS : outType === 'f32' ? HALVES_IN_SCALARS : HALVES_IN_QUADS}
      }
    }`,
    CONSTANTS.NUM_THREADS,
  )}`;

export function runTiles(launch: Launch, part: Part<TensorInfo>): void {
  const {backend, attrs, quads} = launch;
  const isInterleaved = attrs.gated && attrs.gateUp === 'interleaved';
  const outType = isInterleaved ? 'f32' : quads;
  const columns = attrs.weightFormat === 'outIn' ? K_MAJOR : N_MAJOR;
  const program = groupedProgram(launch, part, {
    name: isInterleaved ? 'MoeGroupedMatMulTiles_interleaved' : 'MoeGroupedMatMulTiles',
    outType,
    stepK: CONSTANTS.TILE_K,
    constants: CONSTANTS,
    code: () => tilesWgsl(launch, {columns, isInterleaved, outType}),
  });
  runWgsl(backend, program);
}
