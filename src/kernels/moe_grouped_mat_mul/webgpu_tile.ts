/**
 * WGSL of a tile: 128 rows by 128 columns of a product, by a workgroup of 256 threads with 8 x 8 sums each, which takes
 * 16 terms at a time through 16 KiB of workgroup memory.
 *
 * Both factors lie there by term, four rows or columns in a vec4: vec4 q of term k is at 32*k + (q ^ 2*(k/4)). With
 * that exclusive or, threads that store 4 x 4 blocks, and threads that read a term, hit different banks.
 *
 * 32 threads in a row have 32 rows by 64 columns: thread (ty, tx) of the tile has rows 8*ty .. 8*ty + 7, and columns
 * 4*tx .. 4*tx + 3 of each half of 64. Where a tile has fewer rows, those 32 that have none of them add up nothing.
 * Which 32 these are differs from workgroup to workgroup, so that no part of a processor is idle more than another.
 */
import {WORKGROUP_SIZE} from '../shared/webgpu';

export const TILE = 128;
export const TILE_TERMS = 16;
const HALF = TILE / 2;
const LOADERS = WORKGROUP_SIZE / 2;
const QUADS = TILE / 4;

const each = (count: number, text: (i: number) => string): string =>
  Array.from({length: count}, (_, i) => text(i)).join('\n');

/** The names of the sums: vec4s, by row of eight, half of columns. */
const sum = (row: number, columnHalf: number): string => `sum${row}${columnHalf}`;

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

/** WGSL: adds the terms in workgroup memory to the sums. */
function addTerms(): string {
  return `
    for (var first = 0u; first < ${TILE_TERMS}; first += 4) {
      let swizzle = first / 2;
      let row = first * ${QUADS} + ((2 * ty) ^ swizzle);
      let column = first * ${QUADS} + (tx ^ swizzle);
      ${each(4, (k) => `{
        let columns0 = tileColumns[column + ${k * QUADS}];
        let columns1 = tileColumns[column + ${k * QUADS + HALF / 4}];
        let rows0 = tileRows[row + ${k * QUADS}];
        let rows1 = tileRows[row + ${k * QUADS + 1}];
        ${each(8, (i) => `
          ${sum(i, 0)} = fma(vec4(rows${i >> 2}[${i & 3}]), columns0, ${sum(i, 0)});
          ${sum(i, 1)} = fma(vec4(rows${i >> 2}[${i & 3}]), columns1, ${sum(i, 1)});`)}
      }`)}
    }`;
}

/**
 * WGSL: the tile's product of `numTerms` terms for `numHere` rows (WGSL, uniform), then `finish` for each of a thread's
 * rows, with `row`, its place in the tile, `tx`, and `z0` and `z1`, the sums of its columns in either half.
 */
export function tileProduct(
  rows: TileFactor,
  columns: TileFactor,
  numTerms: string,
  numHere: string,
  finish: string,
): string {
  return `
    let thirtyTwo = thread / 32;
    let tx = thread % 8 + 8 * (thirtyTwo / 4);
    let ty = thread / 8 % 4 + 4 * ((thirtyTwo + thirtyTwo / 4 + group) % 4);
    let hasRows = 8 * (ty - ty % 4) < ${numHere};
    let loader = thread % ${LOADERS};
    let readsRows = thread < ${LOADERS};
    ${each(16, (i) => `var ${sum(i >> 1, i & 1)} = vec4<f32>();`)}
    ${each(4, (i) => `var quad${i} = vec4<f32>();`)}
    var term = 0u;
    loop {
      // The next terms are on their way while the last ones are added up.
      if (term < ${numTerms}) {
        if (readsRows) { ${read(rows)} } else { ${read(columns)} }
      }
      if (term > 0) {
        if (hasRows) { ${addTerms()} }
        workgroupBarrier();
      }
      if (term >= ${numTerms}) { break; }
      if (readsRows) { ${store(rows, 'tileRows')} } else { ${store(columns, 'tileColumns')} }
      workgroupBarrier();
      term += ${TILE_TERMS};
    }
    for (var i = 0u; i < 8; i++) {
      let row = 8 * ty + i;
      var z0 = ${sum(0, 0)};
      var z1 = ${sum(0, 1)};
      ${each(7, (i) => `
        if (i == ${i + 1}) {
          z0 = ${sum(i + 1, 0)};
          z1 = ${sum(i + 1, 1)};
        }`)}
      ${finish}
    }`;
}
