/**
 * WGSL of a tile: 128 rows by 128 columns of a product, by a workgroup of 256 threads with 8 x 8 sums each, which takes
 * 16 terms at a time through 16 KiB of workgroup memory.
 *
 * Both factors lie there by term, four rows or columns in a vec4: vec4 q of term k is at 32*k + (q ^ 2*(k/4)). With
 * that exclusive or, threads that store 4 x 4 blocks, and threads that read a term, hit different banks. Thread
 * (ty, tx) has rows 4*ty .. 4*ty + 3 and columns 4*tx .. 4*tx + 3 of each half of 64; a tile of 64 rows or less leaves
 * out the second half of rows.
 */
import {WORKGROUP_SIZE} from '../shared/webgpu';

export const TILE = 128;
export const TILE_TERMS = 16;
const HALF = TILE / 2;
const LOADERS = WORKGROUP_SIZE / 2;
const QUADS = TILE / 4;

const each = (count: number, text: (i: number) => string): string =>
  Array.from({length: count}, (_, i) => text(i)).join('\n');

/** The names of the sums: vec4s, by half of rows, row of four, half of columns. */
const sum = (rowHalf: number, row: number, columnHalf: number): string => `sum${rowHalf}${row}${columnHalf}`;

/** WGSL, outside of functions. */
export const TILE_MEMORY = `
  var<workgroup> tileRows : array<vec4<f32>, ${TILE_TERMS * QUADS}>;
  var<workgroup> tileColumns : array<vec4<f32>, ${TILE_TERMS * QUADS}>;
`;

/**
 * How a factor is read. 'byTerm': a quad is 4 terms of one row or column, and a thread turns 4 of them around.
 * 'across': a quad is 4 rows or columns of one term.
 */
export type TileFactor = {
  read: 'byTerm' | 'across';
  /** WGSL: the quad at row or column `index` and `term`, with 0 for terms past the last. */
  quad: (index: string, term: string) => string;
};

/** WGSL: the four quads of a thread from `term` on. Half of the threads read the rows, half the columns. */
function read({read: way, quad}: TileFactor): string {
  return way === 'byTerm'
    ? each(4, (i) => `quad${i} = ${quad(`4 * (loader / 4) + ${i}`, 'term + 4 * (loader % 4)')};`)
    : each(4, (i) => `quad${i} = ${quad(`4 * (loader % ${QUADS})`, `term + loader / ${QUADS} + ${4 * i}`)};`);
}

function store({read: way}: TileFactor, memory: string): string {
  return way === 'byTerm'
    ? each(4, (j) => {
        const turned = [0, 1, 2, 3].map((i) => `quad${i}[${j}]`).join(', ');
        return `${memory}[(4 * (loader % 4) + ${j}) * ${QUADS} + ((loader / 4) ^ (2 * (loader % 4)))] = vec4(${turned});`;
      })
    : each(4, (i) => {
        const term = `(loader / ${QUADS} + ${4 * i})`;
        return `${memory}[${term} * ${QUADS} + ((loader % ${QUADS}) ^ ${2 * i})] = quad${i};`;
      });
}

/** WGSL: adds the terms in workgroup memory to the sums of so many halves of rows. */
function addTerms(rowHalves: number): string {
  return `
    for (var k = 0u; k < ${TILE_TERMS}; k++) {
      let swizzle = 2 * (k / 4);
      let row = k * ${QUADS} + (ty ^ swizzle);
      let column = k * ${QUADS} + (tx ^ swizzle);
      let columns0 = tileColumns[column];
      let columns1 = tileColumns[column + ${HALF / 4}];
      ${each(rowHalves, (half) => `
        let rows${half} = tileRows[row + ${(half * HALF) / 4}];
        ${each(4, (i) => `
          ${sum(half, i, 0)} = fma(vec4(rows${half}[${i}]), columns0, ${sum(half, i, 0)});
          ${sum(half, i, 1)} = fma(vec4(rows${half}[${i}]), columns1, ${sum(half, i, 1)});`)}`)}
    }`;
}

/**
 * WGSL: the tile's product of `numTerms` terms (WGSL, uniform, as is `isTall`), then `finish` for each of a thread's
 * rows, with `row`, its place in the tile, `tx`, and `z0` and `z1`, the sums of its columns in either half.
 */
export function tileProduct(
  rows: TileFactor,
  columns: TileFactor,
  numTerms: string,
  isTall: string,
  finish: string,
): string {
  return `
    let tx = thread % 16;
    let ty = thread / 16;
    let loader = thread % ${LOADERS};
    let readsRows = thread < ${LOADERS};
    ${each(16, (i) => `var ${sum(i >> 3, (i >> 1) & 3, i & 1)} = vec4<f32>();`)}
    ${each(4, (i) => `var quad${i} = vec4<f32>();`)}
    var term = 0u;
    loop {
      // The next terms are on their way while the last ones are added up.
      if (term < ${numTerms}) {
        if (readsRows) { ${read(rows)} } else { ${read(columns)} }
      }
      if (term > 0) {
        if (${isTall}) { ${addTerms(2)} } else { ${addTerms(1)} }
        workgroupBarrier();
      }
      if (term >= ${numTerms}) { break; }
      if (readsRows) { ${store(rows, 'tileRows')} } else { ${store(columns, 'tileColumns')} }
      workgroupBarrier();
      term += ${TILE_TERMS};
    }
    for (var i = 0u; i < select(4u, 8u, ${isTall}); i++) {
      let row = ${HALF} * (i / 4) + 4 * ty + i % 4;
      var z0 = ${sum(0, 0, 0)};
      var z1 = ${sum(0, 0, 1)};
      ${each(7, (i) => `
        if (i == ${i + 1}) {
          z0 = ${sum((i + 1) >> 2, (i + 1) & 3, 0)};
          z1 = ${sum((i + 1) >> 2, (i + 1) & 3, 1)};
        }`)}
      ${finish}
    }`;
}
