/**
 * WGSL of a tile: 64 rows by 128 columns of a product, by a workgroup of 128 threads with 8 x 8 sums each, which takes
 * 16 terms at a time through 12 KiB of workgroup memory.
 *
 * Both factors lie there by term, four rows or columns in a vec4: vec4 q of term k is at 16*k or 32*k, plus
 * q ^ 2*(k/4). With that exclusive or, threads that store 4 x 4 blocks, and threads that read a term, hit different
 * banks.
 *
 * 32 threads in a row have 32 rows by 64 columns: thread (ty, tx) of the tile has rows 8*ty .. 8*ty + 7, and columns
 * 4*tx .. 4*tx + 3 of each half of 64. Where a tile has no more than 32 rows, the others add up nothing. Which these
 * are alternates from workgroup to workgroup, so that no part of a processor is idle more than another.
 */
export const TILE_ROWS = 64;
export const TILE_COLUMNS = 128;
export const TILE_TERMS = 16;
export const TILE_THREADS = 128;
const HALF_COLUMNS = TILE_COLUMNS / 2;

const each = (count: number, text: (i: number) => string): string =>
  Array.from({length: count}, (_, i) => text(i)).join('\n');

/** The names of the sums: vec4s, by row of eight, half of columns. */
const sum = (row: number, columnHalf: number): string => `sum${row}${columnHalf}`;

/** WGSL, outside of functions. */
export const TILE_MEMORY = `
  var<workgroup> tileRows : array<vec4<f32>, ${(TILE_TERMS * TILE_ROWS) / 4}>;
  var<workgroup> tileColumns : array<vec4<f32>, ${(TILE_TERMS * TILE_COLUMNS) / 4}>;
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

/** One of the two factors with its place: a thread of the first 4*numQuads reads four quads of it. */
type PlacedFactor = TileFactor & {name: 'row' | 'column'; memory: string; numQuads: number};

const TERM_QUADS = TILE_TERMS / 4;

function forLoaders({numQuads}: PlacedFactor, code: string): string {
  const numLoaders = TERM_QUADS * numQuads;
  return numLoaders < TILE_THREADS ? `if (thread < ${numLoaders}) { ${code} }` : code;
}

/** WGSL: the four quads of a thread from `term` on. */
function read(factor: PlacedFactor): string {
  const {read: way, name, quad, numQuads} = factor;
  return forLoaders(
    factor,
    way === 'byTerm'
      ? each(4, (i) => {
          const [index, term] = [`4 * (thread / ${TERM_QUADS}) + ${i}`, `term + 4 * (thread % ${TERM_QUADS})`];
          return `${name}Quad${i} = ${quad(index, term)};`;
        })
      : each(4, (i) => {
          const [index, term] = [`4 * (thread % ${numQuads})`, `term + thread / ${numQuads} + ${TERM_QUADS * i}`];
          return `${name}Quad${i} = ${quad(index, term)};`;
        }),
  );
}

function store(factor: PlacedFactor): string {
  const {read: way, name, memory, numQuads} = factor;
  return forLoaders(
    factor,
    way === 'byTerm'
      ? each(4, (j) => {
          const turned = [0, 1, 2, 3].map((i) => `${name}Quad${i}[${j}]`).join(', ');
          const term = `(4 * (thread % ${TERM_QUADS}) + ${j})`;
          const place = `((thread / ${TERM_QUADS}) ^ (2 * (thread % ${TERM_QUADS})))`;
          return `${memory}[${term} * ${numQuads} + ${place}] = vec4(${turned});`;
        })
      : each(4, (i) => {
          const term = `(thread / ${numQuads} + ${TERM_QUADS * i})`;
          return `${memory}[${term} * ${numQuads} + ((thread % ${numQuads}) ^ ${2 * i})] = ${name}Quad${i};`;
        }),
  );
}

/** WGSL: adds the terms in workgroup memory to the sums. */
const ADD_TERMS = `
  for (var k = 0u; k < ${TILE_TERMS}; k++) {
    let swizzle = 2 * (k / 4);
    let row = k * ${TILE_ROWS / 4} + ((2 * ty) ^ swizzle);
    let column = k * ${TILE_COLUMNS / 4} + (tx ^ swizzle);
    let columns0 = tileColumns[column];
    let columns1 = tileColumns[column + ${HALF_COLUMNS / 4}];
    let rows0 = tileRows[row];
    let rows1 = tileRows[row + 1];
    ${each(
      8,
      (i) => `
      ${sum(i, 0)} = fma(vec4(rows${i >> 2}[${i & 3}]), columns0, ${sum(i, 0)});
      ${sum(i, 1)} = fma(vec4(rows${i >> 2}[${i & 3}]), columns1, ${sum(i, 1)});`,
    )}
  }`;

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
  const factors: PlacedFactor[] = [
    {...rows, name: 'row', memory: 'tileRows', numQuads: TILE_ROWS / 4},
    {...columns, name: 'column', memory: 'tileColumns', numQuads: TILE_COLUMNS / 4},
  ];
  return `
    let thirtyTwo = thread / 32;
    let tx = thread % 8 + 8 * (thirtyTwo % 2);
    let ty = thread / 8 % 4 + 4 * ((thirtyTwo / 2 + group) % 2);
    let hasRows = 8 * (ty - ty % 4) < ${numHere};
    ${each(16, (i) => `var ${sum(i >> 1, i & 1)} = vec4<f32>();`)}
    ${each(4, (i) => `var rowQuad${i} = vec4<f32>(); var columnQuad${i} = vec4<f32>();`)}
    var term = 0u;
    loop {
      // The next terms are on their way while the last ones are added up.
      if (term < ${numTerms}) {
        ${factors.map(read).join('\n')}
      }
      if (term > 0) {
        if (hasRows) { ${ADD_TERMS} }
        workgroupBarrier();
      }
      if (term >= ${numTerms}) { break; }
      ${factors.map(store).join('\n')}
      workgroupBarrier();
      term += ${TILE_TERMS};
    }
    for (var i = 0u; i < 8; i++) {
      let row = 8 * ty + i;
      var z0 = ${sum(0, 0)};
      var z1 = ${sum(0, 1)};
      ${each(
        7,
        (i) => `
        if (i == ${i + 1}) {
          z0 = ${sum(i + 1, 0)};
          z1 = ${sum(i + 1, 1)};
        }`,
      )}
      ${finish}
    }`;
}
