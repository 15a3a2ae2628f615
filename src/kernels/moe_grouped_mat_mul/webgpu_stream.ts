/**
 * MoeGroupedMatMul on WebGPU for few rows an expert: out[r] = act(W[e] x[r] + b[e]), as fast as memory gives the
 * weights.
 *
 * A workgroup of 256 threads reads 32 columns of an expert's weights once, for up to 16 rows. A thread has a quad of
 * columns and a lane: lane l takes terms 4 * l to 4 * l + 3 of every 128. Row i has the accumulator sum<i>, a vec4 with
 * an element for each column of the quad. Then the 32 lanes' sums are added up, four rows at a time.
 *
 * The accumulators are variables, and text is repeated over them. With loops over arrays the kernel takes 1.5 to 2.5
 * times as long on an H100.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {Part} from '../../contract/expert_weights';
import {repeat} from '../shared/repeat';
import {entryPoint, runWgsl, WORKGROUP_SIZE} from '../shared/webgpu';
import {ACTIVATIONS_WGSL} from './activations';
import {FIND_ROWS} from './webgpu_find_rows';
import {COLUMNS, findTile, groupedProgram, type Launch, xQuad, xRowOf} from './webgpu_program';

/** The WGSL has these as `const` by the same names. */
const CONSTANTS = {TILE_COLUMNS: 32, NUM_THREADS: WORKGROUP_SIZE, NUM_LANES: 32};

/** TILE_ROWS where experts have at most FEW_ROWS rows on average, and where they have more. */
const TILE_ROWS = {few: 4, many: 16};
const FEW_ROWS = 4;

type Layout = {
  /** Declares `lane` and `quad`, so that neighbouring threads read neighbouring weights. */
  lanes: string;
  /** Declares `weight0` to `weight3`: columns d to d + 3 at terms k to k + 3. */
  load: string;
  /** Adds these terms to sum<i>; `x<i>` has the row's. */
  addRow: (i: number) => string;
};

/** A weight is four terms of one column. */
const K_MAJOR: Layout = {
  lanes: /* wgsl */ `
    let lane = thread % NUM_LANES;
    let quad = thread / NUM_LANES;`,
  load: repeat(4, (j) => `let weight${j} = weightQuad(tile.expert, d + ${j}, k);`),
  addRow: (i) => `sum${i} += vec4(dot(weight0, x${i}), dot(weight1, x${i}), dot(weight2, x${i}), dot(weight3, x${i}));`,
};

/** A weight is four columns of one term. */
const N_MAJOR: Layout = {
  lanes: /* wgsl */ `
    let lane = thread / COLUMN_QUADS;
    let quad = thread % COLUMN_QUADS;`,
  load: repeat(4, (j) => `let weight${j} = weightQuad(tile.expert, d, k + ${j});`),
  addRow: (i) => `sum${i} += weight0 * x${i}.x + weight1 * x${i}.y + weight2 * x${i}.z + weight3 * x${i}.w;`,
};

const streamWgsl = ({quads, weights, permutedIdx}: Launch, layout: Layout, tileRows: number): string => /* wgsl */ `
  const COLUMN_QUADS = TILE_COLUMNS / 4;
  // Lanes, after the sums of four lanes each were added up.
  const NUM_PARTIAL_SUMS = NUM_LANES / 4;
  ${FIND_ROWS}
  ${ACTIVATIONS_WGSL}
  ${xQuad(quads)}
  ${xRowOf({permutedIdx})}
  ${weights.weightQuad}
  ${COLUMNS}
  ${findTile('f32')}
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
    ${layout.lanes}
    let d = columnOf(tile.number, 4 * quad);
    ${repeat(tileRows, (i) => `let row${i} = xRowOf(tile.firstRow + min(${i}, tile.numRows - 1));`)}
    ${repeat(tileRows, (i) => `var sum${i} = vec4<f32>();`)}
    for (var k = READ_K * lane; k < uniforms.numIn; k += READ_K * NUM_LANES) {
      ${layout.load}
      ${repeat(
        tileRows / 4,
        (four) => /* wgsl */ `
      if (tile.numRows > ${4 * four}) {
        ${repeat(4, (i) => `let x${4 * four + i} = xQuad(row${4 * four + i}, k);`)}
        ${repeat(4, (i) => layout.addRow(4 * four + i))}
      }`,
      )}
    }
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
          out[(tile.firstRow + first + i) * uniforms.numOutputs + tile.number * tile.numOutputs + o] = y;
        }
      }
    }`,
    CONSTANTS.NUM_THREADS,
  )}`;

export function runStream(launch: Launch, part: Part<TensorInfo>): void {
  const {backend, attrs, weights, uniforms} = launch;
  const tileRows = uniforms.numRows > FEW_ROWS * uniforms.numExperts ? TILE_ROWS.many : TILE_ROWS.few;
  const program = groupedProgram(launch, part, {
    name: 'MoeGroupedMatMulStream',
    outType: 'f32',
    stepK: weights.readK * CONSTANTS.NUM_LANES,
    constants: {TILE_ROWS: tileRows, ...CONSTANTS, READ_K: weights.readK},
    code: () => streamWgsl(launch, attrs.weightFormat === 'outIn' ? K_MAJOR : N_MAJOR, tileRows),
  });
  runWgsl(backend, program);
}
