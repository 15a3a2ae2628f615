/**
 * MoeGroupedMatMul and its gradients on WebGPU, float32 throughout. A launch is sized by shapes alone; a workgroup
 * finds its expert and rows on the device by a binary search over the offsets, and leaves where there are none.
 *
 *   MoeGroupedMatMul, many rows an expert   1 launch (for each part of the weights): tiles of 64 x 128
 *   MoeGroupedMatMul, few rows an expert    the same: a workgroup reads 32 columns of an expert's weights once, as fast
 *                                           as memory gives them, for up to 16 rows
 *   MoeGroupedMatMulBackpropActivation      1 launch: a thread an output
 *   MoeGroupedMatMulBackpropWeights         1 launch: tiles of 64 x 64, in webgpu_outer_products.ts
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {
  MoeGroupedMatMul,
  type MoeGroupedMatMulAttrs,
  MoeGroupedMatMulBackpropActivation,
} from '../../contract/kernel_names';
import {ACTIVATION_DERIVATIVES_WGSL, ACTIVATIONS_WGSL, activationUniforms, gateColumns} from './activations';
import {
  assertBindable,
  entryPoint,
  newTensor,
  runWgsl,
  webgpuKernel,
  type WgslProgram,
  WORKGROUP_SIZE,
} from '../shared/webgpu';
import {columnsOf, type Part, partsOf} from '../../contract/expert_weights';
import {TILE_COLUMNS, TILE_MEMORY, TILE_ROWS, TILE_TERMS, TILE_THREADS, tileProduct} from './webgpu_tile';

/** Mean rows an expert up to which weights are streamed. Past it their reads are no longer what takes the time. */
const STREAM_ROWS = 24;
/** Rows that the stream takes at a time, where there are more than FEW_ROWS an expert on average, and where not. */
const STREAM_BLOCK = {few: 4, many: 16};
const FEW_ROWS = 4;
/** Columns of a workgroup of the stream: 8 groups of 4 threads' columns. */
const STREAM_COLUMNS = 32;
const STREAM_LANES = WORKGROUP_SIZE / (STREAM_COLUMNS / 4);

type Quads = 'vec4<f32>' | 'f32';
type Launch = {
  backend: WebGPUBackend;
  x: TensorInfo;
  offset: TensorInfo;
  /** x in place of no bias, which is then not read. */
  bias: TensorInfo;
  out: TensorInfo;
  attrs: MoeGroupedMatMulAttrs;
  /** What of x, weights and result is read or written at a time: 4 columns where all sizes allow it. */
  quads: Quads;
  uniforms: Record<string, number>;
};

export const moeGroupedMatMulWebGPU = webgpuKernel(MoeGroupedMatMul, (backend, inputs, attrs) => {
  const {x, expertFirstTokenOffset: offset, bias} = inputs;
  const [numRows, numIn] = x.shape;
  const numExperts = offset.shape[0] - 1;
  const parts = partsOf(inputs, attrs);
  const {numColumns, numOutputs} = columnsOf(parts[0].weights, attrs);
  const named = parts.map(({weights}, p): [string, number[]] => [
    parts.length === 1 ? 'weights' : `weights[${p}]`,
    weights.shape,
  ]);
  assertBindable(backend, MoeGroupedMatMul, {
    x: x.shape,
    ...Object.fromEntries(named),
    'the result': [numRows, numOutputs],
  });
  const out = newTensor(backend, [numRows, numOutputs], 'float32');
  if (numRows === 0) {
    return {out};
  }
  const isConcatenated = attrs.gated && attrs.gateUp === 'concatenated';
  const inQuads = numIn % 4 === 0 && numColumns % 4 === 0 && (!isConcatenated || numOutputs % 4 === 0);
  const launch: Launch = {
    backend,
    x,
    offset,
    bias: bias ?? x,
    out,
    attrs,
    quads: inQuads ? 'vec4<f32>' : 'f32',
    uniforms: {
      numRows,
      numIn,
      numColumns,
      numOutputs,
      numExperts,
      hasBias: bias == null ? 0 : 1,
      isGated: attrs.gated ? 1 : 0,
      isConcatenated: isConcatenated ? 1 : 0,
      ...activationUniforms(attrs),
    },
  };
  const run = numRows > STREAM_ROWS * numExperts ? runTiles : runStream;
  for (const part of parts) {
    run(launch, part, numExperts);
  }
  return {out};
});

/**
 * WGSL: the rows of a workgroup. The boundaries of all segments are 0, the offsets, and R: segment 0 is the rows
 * before the first expert, segment e + 1 those of expert e, and the last those past all experts. A launch has some.
 *
 * A block of rows has a slot, the workgroup's number but for its columns. The blocks of segment i begin at slot
 * boundary(i) / BLOCK + i: the floors leave room for its last block that is not full, so a search over the offsets
 * finds the segment of a slot. Where there are fewer rows than such slots, each row is a slot instead.
 */
const FIND_ROWS = `
  struct Rows { first : u32, end : u32, segment : u32 }
  fn boundary(i : u32) -> u32 {
    if (i == 0) { return 0u; }
    if (i > uniforms.numExperts + 1) { return uniforms.numRows; }
    return u32(clamp(expertFirstTokenOffset[i - 1], 0, i32(uniforms.numRows)));
  }
  fn firstSlot(i : u32) -> u32 {
    let first = boundary(uniforms.firstSegment + i);
    if (uniforms.rowIsSlot == 1) { return first; }
    return first / BLOCK - boundary(uniforms.firstSegment) / BLOCK + i;
  }
  // No rows where first >= end; whatever the offsets are, others are rows that there are.
  fn findRows(slot : u32) -> Rows {
    var low = 0u;
    var high = uniforms.numSegments;
    while (high - low > 1) {
      let middle = (low + high) / 2;
      if (firstSlot(middle) <= slot) { low = middle; } else { high = middle; }
    }
    let segment = uniforms.firstSegment + low;
    let start = boundary(segment);
    let end = boundary(segment + 1);
    let place = slot - firstSlot(low);
    if (uniforms.rowIsSlot == 1) {
      let isBlock = slot >= start && place % BLOCK == 0;
      return Rows(select(end, slot, isBlock), end, segment);
    }
    return Rows(start + place * BLOCK, end, segment);
  }
`;

function findingUniforms(
  numRows: number,
  {firstExpert, numExperts: numOfPart}: Part<TensorInfo>,
  numExperts: number,
  block: number,
): {numSlots: number; uniforms: Record<string, number>} {
  // Rows of no expert are those of the first part, if they come before all, or of the last.
  const firstSegment = firstExpert === 0 ? 0 : firstExpert + 1;
  const endSegment = firstExpert + numOfPart === numExperts ? numExperts + 2 : firstExpert + numOfPart + 1;
  const numSegments = endSegment - firstSegment;
  const numSlots = Math.floor(numRows / block) + numSegments;
  const rowIsSlot = numRows < numSlots;
  return {
    numSlots: rowIsSlot ? numRows : numSlots,
    uniforms: {firstSegment, numSegments, rowIsSlot: rowIsSlot ? 1 : 0, firstExpert},
  };
}

/**
 * WGSL: four values of x and of the weights at a time, 0 for columns of x that are not there. Single values are read
 * without a branch: a software GPU takes minutes to compile as many as there would be.
 */
function readers(quads: Quads, weightFormat: MoeGroupedMatMulAttrs['weightFormat']): string {
  const scalars = (value: (j: number) => string) => `vec4(${[0, 1, 2, 3].map(value).join(', ')})`;
  const isOutIn = weightFormat === 'outIn';
  if (quads === 'f32') {
    return `
      fn xAt(row : u32, c : u32) -> f32 {
        let value = x[row * uniforms.numIn + min(c, uniforms.numIn - 1)];
        return select(0.0, value, c < uniforms.numIn);
      }
      fn weightAt(expert : u32, column : u32, term : u32) -> f32 {
        let d = min(column, uniforms.numColumns - 1);
        let c = min(term, uniforms.numIn - 1);
        let value = weights[${
          isOutIn
            ? '(expert * uniforms.numColumns + d) * uniforms.numIn + c'
            : '(expert * uniforms.numIn + c) * uniforms.numColumns + d'
        }];
        return select(0.0, value, term < uniforms.numIn);
      }
      fn xQuad(row : u32, c : u32) -> vec4<f32> { return ${scalars((j) => `xAt(row, c + ${j})`)}; }
      fn weightQuad(expert : u32, d : u32, c : u32) -> vec4<f32> {
        return ${scalars((j) => (isOutIn ? `weightAt(expert, d, c + ${j})` : `weightAt(expert, d + ${j}, c)`))};
      }`;
  }
  return `
    fn xQuad(row : u32, c : u32) -> vec4<f32> {
      if (HAS_LAST_TERMS == 1 && c >= uniforms.numIn) { return vec4<f32>(); }
      return x[(row * uniforms.numIn + c) / 4];
    }
    fn weightQuad(expert : u32, column : u32, c : u32) -> vec4<f32> {
      if (HAS_LAST_TERMS == 1 && c >= uniforms.numIn) { return vec4<f32>(); }
      ${
        isOutIn
          ? `let d = min(column, uniforms.numColumns - 1);
            return weights[(expert * uniforms.numColumns + d) * (uniforms.numIn / 4) + c / 4];`
          : `let d = min(column, uniforms.numColumns - 4);
            return weights[(expert * uniforms.numIn + c) * (uniforms.numColumns / 4) + d / 4];`
      }
    }`;
}

/** WGSL: which of the D columns a workgroup's are: half gates, half ups, where these are concatenated. */
function columnOf(count: number): string {
  return `
    fn columnOf(tile : u32, i : u32) -> u32 {
      if (uniforms.isConcatenated == 0) { return tile * ${count} + i; }
      return tile * ${count / 2} + i % ${count / 2} + select(0u, uniforms.numOutputs, i >= ${count / 2});
    }
    fn biasAt(expert : u32, d : u32) -> f32 {
      if (uniforms.hasBias == 0) { return 0.0; }
      return bias[expert * uniforms.numColumns + min(d, uniforms.numColumns - 1)];
    }`;
}

/**
 * What both ways have in common. `code` finds `rows`, of which there are `numHere`, `expert` in the part and
 * `globalExpert`, and `tile`, which columns.
 */
function groupedProgram(
  launch: Launch,
  part: Part<TensorInfo>,
  numExperts: number,
  {
    name,
    block,
    numThreads,
    numTerms,
    numTileColumns,
    outType,
    declarations,
    code,
  }: {
    name: string;
    block: number;
    numThreads: number;
    /** What is read of rows and weights at a time. */
    numTerms: number;
    numTileColumns: number;
    outType: Quads;
    declarations: () => string;
    code: () => string;
  },
): WgslProgram {
  const {x, offset, bias, out, attrs, quads, uniforms} = launch;
  const {numColumns, numOutputs} = uniforms;
  const numTiles = uniforms.isConcatenated
    ? Math.ceil(numOutputs / (numTileColumns / 2))
    : Math.ceil(numColumns / numTileColumns);
  const finding = findingUniforms(x.shape[0], part, numExperts, block);
  return {
    name: `${name}_${attrs.weightFormat}`,
    buffers: [
      {name: 'out', type: outType, access: 'read_write', tensor: out},
      {name: 'x', type: quads, access: 'read', tensor: x},
      {name: 'weights', type: quads, access: 'read', tensor: part.weights},
      {name: 'expertFirstTokenOffset', type: 'i32', access: 'read', tensor: offset},
      {name: 'bias', type: 'f32', access: 'read', tensor: bias},
    ],
    uniforms: {...uniforms, ...finding.uniforms, numSlots: finding.numSlots, numTiles},
    // Where the terms come out even, no read has to ask whether it is past them.
    constants: {BLOCK: block, HAS_LAST_TERMS: uniforms.numIn % numTerms === 0 ? 0 : 1},
    numWorkgroups: finding.numSlots * numTiles,
    code: () => `
      ${FIND_ROWS}
      ${ACTIVATIONS_WGSL}
      ${readers(quads, attrs.weightFormat)}
      ${columnOf(numTileColumns)}
      ${declarations()}
      ${entryPoint(
        `
        let slot = group / uniforms.numTiles;
        if (slot >= uniforms.numSlots) { return; }
        let tile = group % uniforms.numTiles;
        let rows = findRows(slot);
        if (rows.first >= rows.end) { return; }
        let numHere = min(BLOCK, rows.end - rows.first);
        let tileOutputs = select(${numTileColumns}u, ${numTileColumns / 2}u, uniforms.isGated == 1);
        if (rows.segment == 0 || rows.segment > uniforms.numExperts) {
          for (var i = thread; i < numHere * tileOutputs; i += ${numThreads}) {
            let row = rows.first + i / tileOutputs;
            let o = tile * tileOutputs + i % tileOutputs;
            ${
              outType === 'f32'
                ? 'if (o < uniforms.numOutputs) { out[row * uniforms.numOutputs + o] = 0.0; }'
                : `if (o < uniforms.numOutputs && o % 4 == 0) {
                    out[(row * uniforms.numOutputs + o) / 4] = vec4<f32>();
                  }`
            }
          }
          return;
        }
        let globalExpert = rows.segment - 1;
        let expert = globalExpert - uniforms.firstExpert;
        ${code()}`,
        numThreads,
      )}`,
  };
}

function runTiles(launch: Launch, part: Part<TensorInfo>, numExperts: number): void {
  const {backend, attrs, quads} = launch;
  const isInterleaved = attrs.gated && attrs.gateUp === 'interleaved';
  // A thread has two outputs of a quad of gates and ups.
  const outType = isInterleaved ? 'f32' : quads;
  const write = (o: string, value: string) =>
    outType === 'f32'
      ? [0, 1, 2, 3].map((j) => `writeOutput(outRow, ${o} + ${j}, ${value}[${j}]);`).join('\n')
      : `if (${o} < uniforms.numOutputs) { out[(outRow * uniforms.numOutputs + ${o}) / 4] = ${value}; }`;
  const eachOf = (f: (j: number) => string) => `vec4(${[0, 1, 2, 3].map(f).join(', ')})`;
  const finish = `
    if (row < numHere) {
      let outRow = rows.first + row;
      // Read here, so that the sums have the registers to themselves before.
      if (uniforms.hasBias == 1) {
        z0 += ${eachOf((j) => `biasAt(globalExpert, columnOf(tile, 4 * tx + ${j}))`)};
        z1 += ${eachOf((j) => `biasAt(globalExpert, columnOf(tile, ${TILE_COLUMNS / 2} + 4 * tx + ${j}))`)};
      }
      ${
        isInterleaved
          ? `
            for (var pair = 0u; pair < 4; pair++) {
              let z = select(z0, z1, pair > 1);
              let zPair = select(z.xy, z.zw, pair % 2 == 1);
              let o = tile * ${TILE_COLUMNS / 2} + ${TILE_COLUMNS / 4} * (pair / 2) + 2 * tx + pair % 2;
              writeOutput(outRow, o, activate(clampedGate(zPair.x)) * clampedUp(zPair.y));
            }`
          : `
            // The columns of the second half are those of the first one's ups, or are more outputs.
            for (var half = 0u; half < select(2u, 1u, uniforms.isGated == 1); half++) {
              var y = select(z0, z1, half == 1);
              for (var j = 0u; j < 4; j++) { y[j] = activate(clampedGate(y[j])); }
              if (uniforms.isGated == 1) {
                for (var j = 0u; j < 4; j++) { y[j] *= clampedUp(z1[j]); }
              }
              let o = tile * tileOutputs + ${TILE_COLUMNS / 2} * half + 4 * tx;
              ${write('o', 'y')}
            }`
      }
    }`;
  const program = groupedProgram(launch, part, numExperts, {
    name: isInterleaved ? 'MoeGroupedMatMulTiles_interleaved' : 'MoeGroupedMatMulTiles',
    block: TILE_ROWS,
    numThreads: TILE_THREADS,
    numTerms: TILE_TERMS,
    numTileColumns: TILE_COLUMNS,
    outType,
    declarations: () => `
      ${TILE_MEMORY}
      ${
        outType === 'f32'
          ? `fn writeOutput(row : u32, o : u32, value : f32) {
              if (o < uniforms.numOutputs) { out[row * uniforms.numOutputs + o] = value; }
            }`
          : ''
      }`,
    code: () =>
      tileProduct(
        // Rows past the last are it again: their sums are not written.
        {read: 'byTerm', quad: (row, term) => `xQuad(min(rows.first + ${row}, rows.end - 1), ${term})`},
        {
          read: attrs.weightFormat === 'outIn' ? 'byTerm' : 'across',
          quad: (column, term) => `weightQuad(expert, columnOf(tile, ${column}), ${term})`,
        },
        'uniforms.numIn',
        'numHere',
        finish,
      ),
  });
  runWgsl(backend, program);
}

function runStream(launch: Launch, part: Part<TensorInfo>, numExperts: number): void {
  const {x, attrs} = launch;
  const isOutIn = attrs.weightFormat === 'outIn';
  const block = x.shape[0] > FEW_ROWS * numExperts ? STREAM_BLOCK.many : STREAM_BLOCK.few;
  const forRows = (first: number, text: (i: number) => string) => [0, 1, 2, 3].map((i) => text(first + i)).join('\n');
  const forGroups = (text: (first: number) => string) =>
    Array.from({length: block / 4}, (_, g) => text(4 * g)).join('\n');
  // Four columns' terms c .. c + 3, times those of a row.
  const addQuad = (i: number) =>
    isOutIn
      ? `sum${i} += vec4(dot(weight0, x${i}), dot(weight1, x${i}), dot(weight2, x${i}), dot(weight3, x${i}));`
      : `sum${i} += weight0 * x${i}.x + weight1 * x${i}.y + weight2 * x${i}.z + weight3 * x${i}.w;`;
  const program = groupedProgram(launch, part, numExperts, {
    name: 'MoeGroupedMatMulStream',
    block,
    numThreads: WORKGROUP_SIZE,
    numTerms: 4 * STREAM_LANES,
    numTileColumns: STREAM_COLUMNS,
    outType: 'f32',
    declarations: () => `
      var<workgroup> sums : array<vec4<f32>, ${4 * WORKGROUP_SIZE}>;
      // The sum of row i of four and column j of the workgroup's, of 8 partial sums.
      fn total(i : u32, j : u32) -> f32 {
        var z = 0.0;
        for (var k = 0u; k < 8; k++) { z += sums[(i * ${STREAM_COLUMNS / 4} + j / 4) * 8 + k][j % 4]; }
        return z;
      }`,
    // The lanes of a quad of columns lie along the axis that is contiguous in the weights.
    code: () => `
      let lane = ${isOutIn ? `thread % ${STREAM_LANES}` : `thread / ${STREAM_COLUMNS / 4}`};
      let quad = ${isOutIn ? `thread / ${STREAM_LANES}` : `thread % ${STREAM_COLUMNS / 4}`};
      let d = columnOf(tile, 4 * quad);
      ${Array.from({length: block}, (_, i) => `var sum${i} = vec4<f32>();`).join('\n')}
      for (var c = 4 * lane; c < uniforms.numIn; c += ${4 * STREAM_LANES}) {
        ${forRows(0, (j) => `let weight${j} = weightQuad(expert, ${isOutIn ? `d + ${j}, c` : `d, c + ${j}`});`)}
        ${forGroups(
          (first) => `
          if (numHere > ${first}) {
            ${forRows(first, (i) => `let x${i} = xQuad(rows.first + min(${i}, numHere - 1), c);`)}
            ${forRows(first, addQuad)}
          }`,
        )}
      }
      for (var first = 0u; first < numHere; first += 4) {
        workgroupBarrier();
        ${forGroups(
          (first) => `
          if (first == ${first}) {
            ${forRows(0, (i) => `sums[${i * WORKGROUP_SIZE} + quad * ${STREAM_LANES} + lane] = sum${first + i};`)}
          }`,
        )}
        workgroupBarrier();
        let partial = sums[4 * thread] + sums[4 * thread + 1] + sums[4 * thread + 2] + sums[4 * thread + 3];
        workgroupBarrier();
        sums[thread] = partial;
        workgroupBarrier();
        if (thread < 4 * tileOutputs) {
          let i = thread / tileOutputs;
          let o = thread % tileOutputs;
          if (first + i < numHere && tile * tileOutputs + o < uniforms.numOutputs) {
            // A gate and its up are columns o and o + 16 of the workgroup, or 2o and 2o + 1.
            let isApart = uniforms.isConcatenated == 1 || uniforms.isGated == 0;
            let j = select(2 * o, o, isApart);
            var y = activate(clampedGate(total(i, j) + biasAt(globalExpert, columnOf(tile, j))));
            if (uniforms.isGated == 1) {
              let upColumn = select(j + 1, j + ${STREAM_COLUMNS / 2}, isApart);
              y *= clampedUp(total(i, upColumn) + biasAt(globalExpert, columnOf(tile, upColumn)));
            }
            out[(rows.first + first + i) * uniforms.numOutputs + tile * tileOutputs + o] = y;
          }
        }
      }`,
  });
  runWgsl(launch.backend, program);
}

export const moeGroupedMatMulBackpropActivationWebGPU = webgpuKernel(
  MoeGroupedMatMulBackpropActivation,
  (backend, {dy, z}, attrs) => {
    const [numRows, numColumns] = z.shape;
    const numOutputs = dy.shape[1];
    assertBindable(backend, MoeGroupedMatMulBackpropActivation, {z: z.shape});
    const dz = newTensor(backend, [numRows, numColumns], 'float32');
    if (numRows === 0) {
      return {dz};
    }
    runWgsl(backend, {
      name: 'MoeGroupedMatMulBackpropActivation',
      buffers: [
        {name: 'dz', type: 'f32', access: 'read_write', tensor: dz},
        {name: 'dy', type: 'f32', access: 'read', tensor: dy},
        {name: 'z', type: 'f32', access: 'read', tensor: z},
      ],
      uniforms: {
        size: numRows * numOutputs,
        numOutputs,
        numColumns,
        isGated: attrs.gated ? 1 : 0,
        ...gateColumns(attrs, numOutputs),
        ...activationUniforms(attrs),
      },
      numWorkgroups: Math.ceil((numRows * numOutputs) / WORKGROUP_SIZE),
      code: () => `
        ${ACTIVATIONS_WGSL}
        ${ACTIVATION_DERIVATIVES_WGSL}
        ${entryPoint(`
          let i = group * ${WORKGROUP_SIZE} + thread;
          if (i >= uniforms.size) { return; }
          if (uniforms.isGated == 0) {
            dz[i] = dy[i] * activateDerivative(z[i]);
            return;
          }
          let gate = i / uniforms.numOutputs * uniforms.numColumns + i % uniforms.numOutputs * uniforms.gateStep;
          let up = gate + uniforms.upStep;
          dz[gate] = dy[i] * gatedDerivativeByGate(z[gate], z[up]);
          dz[up] = dy[i] * gatedDerivativeByUp(z[gate], z[up]);`)}`,
    });
    return {dz};
  },
);
