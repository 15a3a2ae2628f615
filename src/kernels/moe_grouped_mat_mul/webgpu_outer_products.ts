/**
 * MoeGroupedMatMulBackpropWeights on WebGPU: tiles of 64 x 64, the rows of an expert being the terms. A workgroup of 64
 * threads with 8 x 8 sums each takes 8 terms at a time through 8 KiB of workgroup memory: one half is read while the
 * next terms are stored to the other. Thread (ty, tx) has rows 8*ty .. 8*ty + 7 of the tile, and the columns from 4*tx
 * to 4*tx + 3 of each half of 32.
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
import {
  assertBindable,
  disposeAll,
  entryPoint,
  newTensor,
  runWgsl,
  type StorageBinding,
  webgpuKernel,
} from '../shared/webgpu';

/** Rows and columns of a tile. */
const TILE = 64;
const TILE_QUADS = TILE / 4;
const TILE_TERMS = 8;
const NUM_THREADS = 64;
const CHAIN_TERMS = 40;
const ROWS_IN_REGISTERS = 10 * CHAIN_TERMS;
const ROWS_WITHOUT_REST = 7 * ROWS_IN_REGISTERS;

/** WGSL: the bits of a total in those of a float, and where the other one of a register is. */
const TOTAL_BITS = 'vec4(0xffff0000u)';
const OTHER_TOTAL = 'vec4(16u)';

const each = (count: number, text: (i: number) => string): string =>
  Array.from({length: count}, (_, i) => text(i)).join('\n');

/** WGSL: adds terms `first` .. `first` + 3 of those in workgroup memory to the sums. */
const addTerms = (first: number): string => `
  for (var k = ${first}u; k < ${first + 4}; k++) {
    let quad = (place + k) * ${TILE_QUADS};
    let columns0 = bTile[quad + tx];
    let columns1 = bTile[quad + tx + ${TILE_QUADS / 2}];
    let rows0 = aTile[quad + 2 * ty];
    let rows1 = aTile[quad + 2 * ty + 1];
    ${each(
      8,
      (i) => `
      sum${i}0 = fma(vec4(rows${i >> 2}[${i & 3}]), columns0, sum${i}0);
      sum${i}1 = fma(vec4(rows${i >> 2}[${i & 3}]), columns1, sum${i}1);`,
    )}
  }`;

/** WGSL: moves what totals can hold of the sums to them. */
const END_CHAIN = each(
  8,
  (i) => `
  let whole${i}0 = bitcast<vec4<f32>>(totals${i} & ${TOTAL_BITS}) + sum${i}0;
  let whole${i}1 = bitcast<vec4<f32>>(totals${i} << ${OTHER_TOTAL}) + sum${i}1;
  let total${i}0 = bitcast<vec4<u32>>(whole${i}0) & ${TOTAL_BITS};
  let total${i}1 = bitcast<vec4<u32>>(whole${i}1) & ${TOTAL_BITS};
  sum${i}0 = whole${i}0 - bitcast<vec4<f32>>(total${i}0);
  sum${i}1 = whole${i}1 - bitcast<vec4<f32>>(total${i}1);
  totals${i} = total${i}0 | (total${i}1 >> ${OTHER_TOTAL});`,
);

/** WGSL: all threads together read one half of the terms from `term` on, a quad of each factor a thread. */
const read = (term: string, half: number): string => `
  aQuad = readA(start + ${term} + ${4 * half} + thread / ${TILE_QUADS}, tileA * ${TILE} + quadColumn, end);
  bQuad = readB(start + ${term} + ${4 * half} + thread / ${TILE_QUADS}, tileB * ${TILE} + quadColumn, end);`;
const store = (place: string, half: number): string => `
  aTile[(${place}) * ${TILE_QUADS} + thread + ${half * NUM_THREADS}] = aQuad;
  bTile[(${place}) * ${TILE_QUADS} + thread + ${half * NUM_THREADS}] = bQuad;`;

/**
 * WGSL: the sums of ROWS_IN_REGISTERS rows from `start` on, or of those there are; then `finish` for each of a thread's
 * rows, with `row`, its place in the tile, and `z0` and `z1`, the sums of its columns in either half.
 */
const sumRows = (finish: string): string => `
  let numTerms = min(end - start, ${ROWS_IN_REGISTERS});
  ${each(
    8,
    (i) => `
    var sum${i}0 = vec4<f32>();
    var sum${i}1 = vec4<f32>();
    var totals${i} = vec4<u32>();`,
  )}
  var aQuad = vec4<f32>();
  var bQuad = vec4<f32>();
  var place = 0u;
  ${each(2, (half) => `${read('0', half)} ${store('place', half)}`)}
  workgroupBarrier();
  for (var term = 0u; term < numTerms; term += ${TILE_TERMS}) {
    let next = term + ${TILE_TERMS};
    let hasNext = next < numTerms;
    // The next terms are on their way while the last ones are added up.
    if (hasNext) { ${read('next', 0)} }
    if (hasRows) { ${addTerms(0)} }
    if (hasNext) { ${store(`${TILE_TERMS} - place`, 0)} ${read('next', 1)} }
    if (hasRows) {
      ${addTerms(4)}
      if (next % ${CHAIN_TERMS} == 0 && hasNext) { ${END_CHAIN} }
    }
    if (hasNext) { ${store(`${TILE_TERMS} - place`, 1)} }
    workgroupBarrier();
    place = ${TILE_TERMS} - place;
  }
  for (var i = 0u; i < 8; i++) {
    let row = 8 * ty + i;
    var z0 = sum00;
    var z1 = sum01;
    var totals = totals0;
    ${each(
      7,
      (i) => `
      if (i == ${i + 1}) {
        z0 = sum${i + 1}0;
        z1 = sum${i + 1}1;
        totals = totals${i + 1};
      }`,
    )}
    z0 += bitcast<vec4<f32>>(totals & ${TOTAL_BITS});
    z1 += bitcast<vec4<f32>>(totals << ${OTHER_TOTAL});
    ${finish}
  }`;

type Quads = 'vec4<f32>' | 'f32';

/** WGSL: four columns of a row of `name`, 0 of rows from `end` on. */
function reader(name: 'A' | 'B', quads: Quads): string {
  const [buffer, size] = [name.toLowerCase(), `uniforms.num${name}`];
  return `
    fn read${name}(row : u32, column : u32, end : u32) -> vec4<f32> {
      if (row >= end) { return vec4<f32>(); }
      ${
        quads === 'f32'
          ? `let at = row * ${size};
            let last = ${size} - 1;
            return vec4(${[0, 1, 2, 3].map((j) => `${buffer}[at + min(column + ${j}, last)]`).join(', ')});`
          : `return ${buffer}[(row * ${size} + min(column, ${size} - 4)) / 4];`
      }
    }`;
}

/** WGSL: adds the sums of a row's columns in one half. */
function add(half: number, quads: Quads): string {
  const column = `(tileB * ${TILE} + ${(half * TILE) / 2} + 4 * tx)`;
  const addTo = (columnOf: string, sum: string, size: number) => `
    if (${columnOf} < uniforms.numB) {
      addTo(
        (outRow * uniforms.numB + ${columnOf}) / ${size},
        (restRow * uniforms.numB + ${columnOf}) / ${size},
        ${sum},
        start - first);
    }`;
  return quads === 'f32'
    ? each(4, (j) => addTo(`${column} + ${j}`, `z${half}[${j}]`, 1))
    : addTo(column, `z${half}`, 4);
}

/** WGSL: adds a sum to that of the numBefore rows before, which the same thread wrote. */
const addTo = (quads: Quads, hasRests: boolean): string => `
  fn addTo(at : u32, restAt : u32, sum : ${quads}, numBefore : u32) {
    if (numBefore == 0) {
      out[at] = sum;
      return;
    }
    ${
      hasRests
        ? `
        if (numBefore >= ${ROWS_WITHOUT_REST}) {
          var before = LongSum(out[at], ${quads}());
          if (numBefore > ${ROWS_WITHOUT_REST}) { before.rest = rests[restAt]; }
          let after = addChain(before, sum);
          out[at] = after.value;
          rests[restAt] = after.rest;
          return;
        }`
        : ''
    }
    out[at] += sum;
  }`;

/** Of what is rounded off: of as many experts as can have so many rows. Each begins so many after the one before. */
function newRests(backend: WebGPUBackend, numRows: number, shape: [number, number, number]): TensorInfo | undefined {
  const [numExperts, numA, numB] = shape;
  const numWithRest = Math.min(numExperts, Math.floor(numRows / (ROWS_WITHOUT_REST + 1)));
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
    const numTilesA = Math.ceil(numA / TILE);
    const numTilesB = Math.ceil(numB / TILE);
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
      code: () => `
        var<workgroup> aTile : array<vec4<f32>, ${2 * TILE_TERMS * TILE_QUADS}>;
        var<workgroup> bTile : array<vec4<f32>, ${2 * TILE_TERMS * TILE_QUADS}>;
        ${longSumWgsl(quads)}
        ${reader('A', quads)}
        ${reader('B', quads)}
        ${addTo(quads, rests != null)}
        ${entryPoint(
          `
          let tileB = group % uniforms.numTilesB;
          let tileA = group / uniforms.numTilesB % uniforms.numTilesA;
          let expert = group / uniforms.numTilesB / uniforms.numTilesA;
          if (expert >= uniforms.numExperts) { return; }
          let numRows = i32(uniforms.numRows);
          let offset = uniforms.firstExpert + expert;
          let first = u32(clamp(expertFirstTokenOffset[offset], 0, numRows));
          let end = max(first, u32(clamp(expertFirstTokenOffset[offset + 1], 0, numRows)));
          let numHere = min(${TILE}, uniforms.numA - tileA * ${TILE});
          let rest = select(first / ${ROWS_WITHOUT_REST + 1}, expert, uniforms.hasAllRests == 1);
          let quadColumn = 4 * (thread % ${TILE_QUADS});
          let tx = thread % 8;
          // Of a tile of 32 rows or fewer half of the threads add up nothing: the one or the other half, in turn.
          let ty = thread / 8 % 4 + 4 * ((thread / 32 + group) % 2);
          let hasRows = 8 * (ty - ty % 4) < numHere;
          var start = first;
          loop {
            ${sumRows(`
              if (row < numHere) {
                let outRow = expert * uniforms.numA + tileA * ${TILE} + row;
                let restRow = rest * uniforms.numA + tileA * ${TILE} + row;
                ${add(0, quads)}
                ${add(1, quads)}
              }`)}
            start += ${ROWS_IN_REGISTERS};
            if (start >= end) { break; }
          }`,
          NUM_THREADS,
        )}`,
    });
    disposeAll(backend, rests == null ? [] : [rests]);
    return {dWeights: out};
  },
);
