/**
 * MoeGroupedMatMulBackpropWeights on WebGPU: out[e] = the sum of the outer products of a[r] and b[r] over the rows r of
 * expert e, which are the terms k.
 *
 * A workgroup of 64 threads has a tile of 64 x 64, and takes 8 terms at a time through 8 KiB of workgroup memory: one
 * half is read while the next terms are stored to the other. A thread has 8 x 8 sums: thread (ty, tx) has rows 8 * ty
 * to 8 * ty + 7 of the tile, and columns 4 * tx to 4 * tx + 3 of the left and of the right 32. Row i of the eight has
 * the accumulators left<i> and right<i>. They are variables, and text is repeated over them, as in webgpu_tiles.ts.
 *
 * However many rows there are, the error stays below 64 * 2^-24 * sum|terms|:
 *
 *   in a sum   40 terms, one after the other.
 *   in totals  After that, a total of 16 bits becomes what it can hold of total + sum, which is the upper half of a
 *              float's bits; the sum goes on with the rest, below 2^-7 of it. Two totals share a register: with whole
 *              floats fewer workgroups run at a time, and it takes 1.3 times as long.
 *   in memory  Every 400 rows a thread adds its sums to what it wrote before. Past 2,800 rows what the addition rounds
 *              off goes to a tensor of its own, which is made where the number of rows allows such an expert.
 *
 * In 2^-24 of sum|terms|, at most: 40 * (1 + 10 * 2^-7) + 10 + 1 in registers, 6 additions in memory, and 2 past them.
 * A term that is infinite may make its sum NaN.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {MoeGroupedMatMulBackpropWeights} from '../../contract/kernel_names';
import {LONG_SUM_UNIFORMS, longSumWgsl} from '../shared/long_sums';
import {repeat} from '../shared/repeat';
import {
  assertBindable,
  disposeAll,
  entryPoint,
  newTensor,
  runWgsl,
  type StorageBinding,
  webgpuKernel,
} from '../shared/webgpu';
import type {Quads} from './weights/index';

const CHAIN_K = 40;
const K_IN_REGISTERS = 10 * CHAIN_K;
const K_WITHOUT_REST = 7 * K_IN_REGISTERS;
/** The WGSL has these as `const` by the same names, and OUT_COLUMNS, the columns of an element of `out`. */
const CONSTANTS = {TILE: 64, TILE_K: 8, NUM_THREADS: 64, CHAIN_K, K_IN_REGISTERS, K_WITHOUT_REST};

/** A function that reads four columns of a row, 0 for rows from `end` on. Where the sizes are multiples of 4. */
const readQuads = (name: string, buffer: string, size: string): string => /* wgsl */ `
  fn ${name}(row : u32, column : u32, end : u32) -> vec4<f32> {
    if (row >= end) { return vec4<f32>(); }
    return ${buffer}[(row * ${size} + min(column, ${size} - 4)) / 4];
  }`;

/** The same for any sizes. */
const readScalars = (name: string, buffer: string, size: string): string => /* wgsl */ `
  fn ${name}(row : u32, column : u32, end : u32) -> vec4<f32> {
    if (row >= end) { return vec4<f32>(); }
    let at = row * ${size};
    let last = ${size} - 1;
    return vec4(
      ${buffer}[at + min(column + 0, last)],
      ${buffer}[at + min(column + 1, last)],
      ${buffer}[at + min(column + 2, last)],
      ${buffer}[at + min(column + 3, last)]);
  }`;

/** addTo: adds a sum to the sum of the numBefore rows before, which the same thread wrote. */
const addTo = (quads: Quads): string => /* wgsl */ `
  fn addTo(at : u32, restAt : u32, sum : ${quads}, numBefore : u32) {
    if (numBefore == 0) {
      out[at] = sum;
      return;
    }
    out[at] += sum;
  }`;

/** The same where `rests` has what the additions of long sums round off. */
const addToWithRests = (quads: Quads): string => /* wgsl */ `
  fn addTo(at : u32, restAt : u32, sum : ${quads}, numBefore : u32) {
    if (numBefore == 0) {
      out[at] = sum;
      return;
    }
    if (numBefore >= K_WITHOUT_REST) {
      var before = LongSum(out[at], ${quads}());
      if (numBefore > K_WITHOUT_REST) { before.rest = rests[restAt]; }
      let after = addChain(before, sum);
      out[at] = after.value;
      rests[restAt] = after.rest;
      return;
    }
    out[at] += sum;
  }`;

/** All threads together read half 0 or 1 of the TILE_K terms from `k` on, a quad of each factor a thread. */
const read = (k: string, half: number): string => /* wgsl */ `
          aQuad = readA(start + ${k} + TILE_K / 2 * ${half} + thread / TILE_QUADS, tileA * TILE + quadColumn, end);
          bQuad = readB(start + ${k} + TILE_K / 2 * ${half} + thread / TILE_QUADS, tileB * TILE + quadColumn, end);`;

/** They store this half of the terms to workgroup memory, where the first of the TILE_K terms is at `place`. */
const store = (place: string, half: number): string => /* wgsl */ `
          aTile[(${place}) * TILE_QUADS + thread + NUM_THREADS * ${half}] = aQuad;
          bTile[(${place}) * TILE_QUADS + thread + NUM_THREADS * ${half}] = bQuad;`;

/** Adds half 0 or 1 of the terms in workgroup memory to the accumulators. */
const addTerms = (half: number): string => /* wgsl */ `
          for (var t = TILE_K / 2 * ${half}; t < TILE_K / 2 * ${half + 1}; t++) {
            let quad = (place + t) * TILE_QUADS;
            let leftColumns = bTile[quad + tx];
            let rightColumns = bTile[quad + tx + TILE_QUADS / 2];
            let rows0 = aTile[quad + 2 * ty];
            let rows1 = aTile[quad + 2 * ty + 1];
            ${repeat(
              8,
              (i) => /* wgsl */ `
            left${i} = fma(vec4(rows${i >> 2}[${i & 3}]), leftColumns, left${i});
            right${i} = fma(vec4(rows${i >> 2}[${i & 3}]), rightColumns, right${i});`,
            )}
          }`;

/** Adds `sum` to the element of out that begins at `column` of the row, unless the row ends before. */
const addSum = (column: string, sum: string): string => /* wgsl */ `
          if (${column} < uniforms.numB) {
            addTo(
              (outRow * uniforms.numB + ${column}) / OUT_COLUMNS,
              (restRow * uniforms.numB + ${column}) / OUT_COLUMNS,
              ${sum},
              start - first);
          }`;
/** The first of a thread's four columns in half 0 or 1 of the tile, left or right. Its sums are in `z0` or `z1`. */
const columnInHalf = (half: number): string => `(tileB * TILE + TILE / 2 * ${half} + 4 * tx)`;
const addQuad = (half: number): string => addSum(columnInHalf(half), `z${half}`);
const addScalars = (half: number): string => repeat(4, (j) => addSum(`${columnInHalf(half)} + ${j}`, `z${half}[${j}]`));

const outerProductsWgsl = (quads: Quads, hasRests: boolean): string => {
  const readColumns = quads === 'f32' ? readScalars : readQuads;
  const add = quads === 'f32' ? addScalars : addQuad;
  return /* wgsl */ `
  const TILE_QUADS = TILE / 4;
  // The bits of a total in those of a float, and how far the other total of a register is shifted.
  const TOTAL_BITS = vec4(0xffff0000u);
  const OTHER_TOTAL = vec4(16u);
  var<workgroup> aTile : array<vec4<f32>, 2 * TILE_K * TILE_QUADS>;
  var<workgroup> bTile : array<vec4<f32>, 2 * TILE_K * TILE_QUADS>;
  ${longSumWgsl(quads)}
  ${readColumns('readA', 'a', 'uniforms.numA')}
  ${readColumns('readB', 'b', 'uniforms.numB')}
  ${hasRests ? addToWithRests(quads) : addTo(quads)}
  ${entryPoint(
    /* wgsl */ `
    let tileB = group % uniforms.numTilesB;
    let tileA = group / uniforms.numTilesB % uniforms.numTilesA;
    let expert = group / uniforms.numTilesB / uniforms.numTilesA;
    if (expert >= uniforms.numExperts) { return; }
    let numRows = i32(uniforms.numRows);
    let offset = uniforms.firstExpert + expert;
    let first = u32(clamp(expertFirstTokenOffset[offset], 0, numRows));
    let end = max(first, u32(clamp(expertFirstTokenOffset[offset + 1], 0, numRows)));
    let numRowsInTile = min(TILE, uniforms.numA - tileA * TILE);
    let rest = select(first / (K_WITHOUT_REST + 1), expert, uniforms.hasAllRests == 1);
    let quadColumn = 4 * (thread % TILE_QUADS);
    let tx = thread % 8;
    // In a tile of 32 rows or fewer half of the threads add up nothing: the one or the other half, in turn.
    let ty = thread / 8 % 4 + 4 * ((thread / 32 + group) % 2);
    let hasRows = 8 * (ty - ty % 4) < numRowsInTile;
    var start = first;
    loop {
      let numTerms = min(end - start, K_IN_REGISTERS);
      ${repeat(8, (i) => `var left${i} = vec4<f32>(); var right${i} = vec4<f32>(); var totals${i} = vec4<u32>();`)}
      var aQuad = vec4<f32>();
      var bQuad = vec4<f32>();
      var place = 0u;
      ${read('0', 0)}
      ${store('place', 0)}
      ${read('0', 1)}
      ${store('place', 1)}
      workgroupBarrier();
      for (var k = 0u; k < numTerms; k += TILE_K) {
        let next = k + TILE_K;
        let hasNext = next < numTerms;
        // The next terms are on their way while the last ones are added up.
        if (hasNext) {
          ${read('next', 0)}
        }
        if (hasRows) {
          ${addTerms(0)}
        }
        if (hasNext) {
          ${store('TILE_K - place', 0)}
          ${read('next', 1)}
        }
        if (hasRows) {
          ${addTerms(1)}
          // The end of a chain: totals take what they can hold of total + sum, and sums keep the rest.
          if (next % CHAIN_K == 0 && hasNext) {
            ${repeat(
              8,
              (i) => /* wgsl */ `
            let leftWhole${i} = bitcast<vec4<f32>>(totals${i} & TOTAL_BITS) + left${i};
            let rightWhole${i} = bitcast<vec4<f32>>(totals${i} << OTHER_TOTAL) + right${i};
            let leftTotal${i} = bitcast<vec4<u32>>(leftWhole${i}) & TOTAL_BITS;
            let rightTotal${i} = bitcast<vec4<u32>>(rightWhole${i}) & TOTAL_BITS;
            left${i} = leftWhole${i} - bitcast<vec4<f32>>(leftTotal${i});
            right${i} = rightWhole${i} - bitcast<vec4<f32>>(rightTotal${i});
            totals${i} = leftTotal${i} | (rightTotal${i} >> OTHER_TOTAL);`,
            )}
          }
        }
        if (hasNext) {
          ${store('TILE_K - place', 1)}
        }
        workgroupBarrier();
        place = TILE_K - place;
      }
      for (var i = 0u; i < 8; i++) {
        let row = 8 * ty + i;
        var z0 = left0;
        var z1 = right0;
        var totals = totals0;
        ${repeat(7, (i) => `if (i == ${i + 1}) { z0 = left${i + 1}; z1 = right${i + 1}; totals = totals${i + 1}; }`)}
        z0 += bitcast<vec4<f32>>(totals & TOTAL_BITS);
        z1 += bitcast<vec4<f32>>(totals << OTHER_TOTAL);
        if (row < numRowsInTile) {
          let outRow = expert * uniforms.numA + tileA * TILE + row;
          let restRow = rest * uniforms.numA + tileA * TILE + row;
          ${add(0)}
          ${add(1)}
        }
      }
      start += K_IN_REGISTERS;
      if (start >= end) { break; }
    }`,
    CONSTANTS.NUM_THREADS,
  )}`;
};

/**
 * What is rounded off of long sums, for as many experts as can have so many rows. The rests of such an expert are at
 * its first row / (K_WITHOUT_REST + 1): each such expert begins at least that many rows after the one before.
 */
function newRests(backend: WebGPUBackend, numRows: number, shape: [number, number, number]): TensorInfo | undefined {
  const [numExperts, numA, numB] = shape;
  const numWithRest = Math.min(numExperts, Math.floor(numRows / (K_WITHOUT_REST + 1)));
  return numWithRest > 0 ? newTensor(backend, [numWithRest, numA, numB], 'float32') : undefined;
}

export const moeGroupedMatMulBackpropWeightsWebGPU = webgpuKernel(
  MoeGroupedMatMulBackpropWeights,
  (backend, {a, b, expertFirstTokenOffset}, {firstExpert, numExperts}) => {
    const [numRows, numA] = a.shape;
    const numB = b.shape[1];
    assertBindable(backend, MoeGroupedMatMulBackpropWeights, {
      'the rows': a.shape,
      'the other rows': b.shape,
      'the result': [numExperts, numA, numB],
    });
    const out = newTensor(backend, [numExperts, numA, numB], 'float32');
    const rests = newRests(backend, numRows, [numExperts, numA, numB]);
    const quads: Quads = numA % 4 === 0 && numB % 4 === 0 ? 'vec4<f32>' : 'f32';
    const numTilesA = Math.ceil(numA / CONSTANTS.TILE);
    const numTilesB = Math.ceil(numB / CONSTANTS.TILE);
    const restBuffers: StorageBinding[] =
      rests == null ? [] : [{name: 'rests', type: quads, access: 'read_write', tensor: rests}];
    runWgsl(backend, {
      name: 'MoeGroupedMatMulBackpropWeights',
      buffers: [
        // Of rank 3, which is no rank that runWgsl takes for the first.
        {name: 'out', type: quads, access: 'read_write', tensor: {...out, shape: [numExperts * numA, numB]}},
        {name: 'a', type: quads, access: 'read', tensor: a},
        {name: 'b', type: quads, access: 'read', tensor: b},
        {name: 'expertFirstTokenOffset', type: 'i32', access: 'read', tensor: expertFirstTokenOffset},
        ...restBuffers,
      ],
      uniforms: {
        numRows,
        numA,
        numB,
        firstExpert,
        numExperts,
        numTilesA,
        numTilesB,
        hasAllRests: rests?.shape[0] === numExperts ? 1 : 0,
        ...LONG_SUM_UNIFORMS,
      },
      numWorkgroups: numExperts * numTilesA * numTilesB,
      constants: {...CONSTANTS, OUT_COLUMNS: quads === 'f32' ? 1 : 4},
      code: () => outerProductsWgsl(quads, rests != null),
    });
    disposeAll(backend, rests == null ? [] : [rests]);
    return {dWeights: out};
  },
);
