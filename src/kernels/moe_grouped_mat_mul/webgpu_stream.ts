/**
 * MoeGroupedMatMul on WebGPU for few rows an expert: out[r] = act(W[e] x[r] + b[e]), as fast as memory gives the
 * weights.
 *
 * A workgroup of 256 threads reads 32 columns of an expert's weights once, for up to 16 rows. A thread has a quad of
 * columns and a lane: lane l takes terms 4 * l to 4 * l + 3 of every 128, or more at a time of weights in codes. Row i
 * has the accumulator sum<i>, a vec4 with an element for each column of the quad. Then the 32 lanes' sums are added up,
 * four rows at a time.
 *
 * The accumulators are variables, and text is repeated over them. With loops over arrays the kernel takes 1.5 to 2.5
 * times as long on an H100.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {Part} from '../../contract/expert_weights';
import type {MoeWeightFormat} from '../../contract/kernel_names';
import {repeat} from '../shared/repeat';
import {entryPoint, runWgsl, WORKGROUP_SIZE} from '../shared/webgpu';
import {ACTIVATIONS_WGSL} from './activations';
import {products, type Quads, type WeightReader} from './weights/index';
import {FIND_ROWS} from './webgpu_find_rows';
import {COLUMNS, findTile, groupedProgram, type Launch, xQuad, xRowOf} from './webgpu_program';

/** The WGSL has these as `const` by the same names. */
export const CONSTANTS = {TILE_COLUMNS: 32, NUM_THREADS: WORKGROUP_SIZE, NUM_LANES: 32};

/** TILE_ROWS where experts have at most FEW_ROWS rows on average, and where they have more. */
export const TILE_ROWS = {few: 4, many: 16};
const FEW_ROWS = 4;

/** WGSL: declares `lane` and `quad`, so that neighbouring threads read neighbouring weights. */
const LANES: Readonly<Record<MoeWeightFormat, string>> = {
  outIn: /* wgsl */ `
    let lane = thread % NUM_LANES;
    let quad = thread / NUM_LANES;`,
  inOut: /* wgsl */ `
    let lane = thread / COLUMN_QUADS;
    let quad = thread % COLUMN_QUADS;`,
};

/** Adds the products of `numRows` rows to their sums, or of fewer where there is more than one four of them. */
function addProducts({lane}: WeightReader, weightFormat: MoeWeightFormat, numRows: number): string {
  const {numTerms, load, quad, scales} = lane;
  // One multiplication by a scale in place of one a weight, and another accumulator a row.
  const scalesLater = scales != null && numRows <= TILE_ROWS.few;
  const sum = scalesLater ? 'part' : 'sum';
  const addRows = (first: number, count: number, q: number) => /* wgsl */ `
          ${repeat(count, (i) => `let x${first + i} = xQuad(row${first + i}, k + ${4 * q});`)}
          ${repeat(count, (i) => `${sum}${first + i} += ${products[weightFormat](`x${first + i}`)};`)}`;
  const addQuad = (q: number) =>
    numRows <= 4
      ? addRows(0, numRows, q)
      : repeat(numRows / 4, (four) => /* wgsl */ `if (tile.numRows > ${4 * four}) { ${addRows(4 * four, 4, q)} }`);
  return /* wgsl */ `
    for (var k = LANE_TERMS * lane; k < uniforms.numIn; k += LANE_TERMS * NUM_LANES) {
      ${load}
      ${scalesLater ? repeat(numRows, (i) => `var part${i} = vec4<f32>();`) : ''}
      ${repeat(numTerms / 4, (q) => /* wgsl */ `{ ${quad(q, scalesLater)} ${addQuad(q)} }`)}
      ${scalesLater ? repeat(numRows, (i) => `sum${i} += ${scales} * part${i};`) : ''}
    }`;
}

/**
 * The same for as many rows as the tile has. Codes take as long to decode as a row takes to multiply: a loop for
 * exactly one row or two pays.
 */
function addProductsOfTile(weights: WeightReader, weightFormat: MoeWeightFormat, tileRows: number): string {
  const whole = addProducts(weights, weightFormat, tileRows);
  return weights.lane.scales == null || tileRows > TILE_ROWS.few
    ? whole
    : /* wgsl */ `
    if (tile.numRows == 1) { ${addProducts(weights, weightFormat, 1)}
    } else if (tile.numRows == 2) { ${addProducts(weights, weightFormat, 2)}
    } else { ${whole} }`;
}

type StreamPage = {
  quads: Quads;
  weights: WeightReader;
  weightFormat: MoeWeightFormat;
  /** WGSL: findTile(group), and xRowOf(row), the row of x for a row of the result. */
  rows: string;
  /** WGSL: writeOutput(row, o, value), for column o of the result. */
  write: string;
};

export const streamWgsl = (
  {quads, weights, weightFormat, rows, write}: StreamPage,
  tileRows: number,
): string => /* wgsl */ `
  const COLUMN_QUADS = TILE_COLUMNS / 4;
  // Lanes, after the sums of four lanes each were added up.
  const NUM_PARTIAL_SUMS = NUM_LANES / 4;
  ${ACTIVATIONS_WGSL}
  ${xQuad(quads)}
  ${weights.lane.functions}
  ${COLUMNS}
  ${rows}
  ${write}
  var<workgroup> exchange : array<vec4<f32>, 4 * NUM_THREADS>;
  // The sum of row i of four and column j of the tile, from its partial sums.
  fn total(i : u32, j : u32) -> f32 {
    var z = 0.0;
    for (var p = 0u; p < NUM_PARTIAL_SUMS; p++) {
      z += exchange[(i * COLUMN_QUADS + j / 4) * NUM_PARTIAL_SUMS + p][j % 4];
    }
    return z;
  }
  ${entryPoint(
    /* wgsl */ `
    let tile = findTile(group);
    if (tile.numRows == 0) { return; }
    if (!tile.hasExpert) {
      writeZeros(tile, thread);
      return;
    }
    ${LANES[weightFormat]}
    let expert = tile.expert;
    let d = columnOf(tile.number, 4 * quad);
    ${repeat(tileRows, (i) => `let row${i} = xRowOf(tile.firstRow + min(${i}, tile.numRows - 1));`)}
    ${repeat(tileRows, (i) => `var sum${i} = vec4<f32>();`)}
    ${addProductsOfTile(weights, weightFormat, tileRows)}
    for (var first = 0u; first < tile.numRows; first += 4) {
      workgroupBarrier();
      ${repeat(
        tileRows / 4,
        (four) => /* wgsl */ `
      if (first == ${4 * four}) {
        ${repeat(4, (i) => `exchange[${i} * NUM_THREADS + quad * NUM_LANES + lane] = sum${4 * four + i};`)}
      }`,
      )}
      workgroupBarrier();
      let partial = exchange[4 * thread] + exchange[4 * thread + 1] + exchange[4 * thread + 2] + exchange[4 * thread + 3];
      workgroupBarrier();
      exchange[thread] = partial;
      workgroupBarrier();
      if (thread < 4 * tile.numOutputs) {
        let i = thread / tile.numOutputs;
        let o = thread % tile.numOutputs;
        if (first + i < tile.numRows && tile.number * tile.numOutputs + o < uniforms.numOutputs) {
          // A gate and its up are columns o and o + TILE_COLUMNS / 2 of the tile, or 2o and 2o + 1.
          let isApart = uniforms.isConcatenated == 1 || uniforms.isGated == 0;
          let j = select(2 * o, o, isApart);
          var y = activate(clampedGate(total(i, j) + biasAt(tile.globalExpert, columnOf(tile.number, j))));
          if (uniforms.isGated == 1) {
            let upColumn = select(j + 1, j + TILE_COLUMNS / 2, isApart);
            y *= clampedUp(total(i, upColumn) + biasAt(tile.globalExpert, columnOf(tile.number, upColumn)));
          }
          writeOutput(tile.firstRow + first + i, tile.number * tile.numOutputs + o, y);
        }
      }
    }`,
    CONSTANTS.NUM_THREADS,
  )}`;

const WRITE_OUTPUT = /* wgsl */ `
  fn writeOutput(row : u32, o : u32, value : f32) { out[row * uniforms.numOutputs + o] = value; }`;

export function runStream(launch: Launch, part: Part<TensorInfo>): void {
  const {backend, quads, weights, uniforms, permutedIdx, attrs} = launch;
  const rows = /* wgsl */ `
  ${FIND_ROWS}
  ${findTile('f32')}
  ${xRowOf({permutedIdx})}`;
  const page = {quads, weights, weightFormat: attrs.weightFormat, rows, write: WRITE_OUTPUT};
  const tileRows = uniforms.numRows > FEW_ROWS * uniforms.numExperts ? TILE_ROWS.many : TILE_ROWS.few;
  const program = groupedProgram(launch, part, {
    name: 'MoeGroupedMatMulStream',
    outType: 'f32',
    stepK: weights.lane.numTerms * CONSTANTS.NUM_LANES,
    weightBuffers: weights.lane.buffers(part),
    constants: {TILE_ROWS: tileRows, ...CONSTANTS, LANE_TERMS: weights.lane.numTerms},
    code: () => streamWgsl(page, tileRows),
  });
  runWgsl(backend, program);
}
