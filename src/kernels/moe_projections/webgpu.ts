/**
 * MoeProjections on WebGPU, 1 launch for all matrices. A workgroup has 4 chunks of columns of one matrix. 64 threads
 * share a chunk: each has every 64th row of the matrix, and their sums are added up.
 */
import {MoeProjections} from '../../contract/kernel_names';
import {repeat} from '../shared/repeat';
import {assertBindable, chunkOf, entryPoint, newTensor, runWgsl, webgpuKernel, WORKGROUP_SIZE} from '../shared/webgpu';

const COLUMNS = 4;
const SLICES = WORKGROUP_SIZE / COLUMNS;
/** Rows of a matrix that a thread asks memory for at once. */
const AHEAD = 4;

/** WGSL: the columns `tile` of matrix m, for all rows of x. Every thread of the workgroup calls it. */
const multiply = (m: number, type: string, numRows: number): string => /* wgsl */ `
  fn multiply${m}(tile : u32, thread : u32) {
    let column = tile * ${COLUMNS} + thread % ${COLUMNS};
    let isHere = column < uniforms.chunks${m};
    let chunk = min(column, uniforms.chunks${m} - 1);
    ${repeat(numRows, (r) => `var sum${r} = ${type}();`)}
    var h = thread / ${COLUMNS};
    for (; h + ${(AHEAD - 1) * SLICES} < uniforms.numIn; h += ${AHEAD * SLICES}) {
      ${repeat(AHEAD, (a) => `let w${a} = weights${m}[(h + ${a * SLICES}) * uniforms.chunks${m} + chunk];`)}
      ${repeat(numRows, (r) => repeat(AHEAD, (a) => `sum${r} += x[${r} * uniforms.numIn + h + ${a * SLICES}] * w${a};`))}
    }
    for (; h < uniforms.numIn; h += ${SLICES}) {
      let w = weights${m}[h * uniforms.chunks${m} + chunk];
      ${repeat(numRows, (r) => `sum${r} += x[${r} * uniforms.numIn + h] * w;`)}
    }
    ${repeat(numRows, (r) => `sums[${r}][thread] = sum${r};`)}
    workgroupBarrier();
    for (var half = ${WORKGROUP_SIZE / 2}u; half >= ${COLUMNS}; half /= 2) {
      if (thread < half) {
        ${repeat(numRows, (r) => `sums[${r}][thread] += sums[${r}][thread + half];`)}
      }
      workgroupBarrier();
    }
    if (thread < ${COLUMNS} && isHere) {
      ${repeat(numRows, (r) => `out${m}[${r} * uniforms.chunks${m} + column] = sums[${r}][thread];`)}
    }
  }`;

export const moeProjectionsWebGPU = webgpuKernel(MoeProjections, (backend, inputs) => {
  const {x, weights0, weights1, weights2} = inputs;
  const [numRows, numIn] = x.shape;
  const matrices = [weights0, weights1, weights2].flatMap((weights) => weights ?? []);
  const {type} = chunkOf(matrices.every(({shape}) => chunkOf(shape[1]).type === 'vec4<f32>') ? 4 : 1);
  const chunks = matrices.map(({shape}) => (type === 'f32' ? shape[1] : shape[1] / 4));
  assertBindable(backend, MoeProjections, {x: x.shape});
  const outs = matrices.map(({shape}) => newTensor(backend, [numRows, shape[1]], 'float32'));
  const tiles = chunks.map((count) => Math.ceil(count / COLUMNS));
  runWgsl(backend, {
    name: `MoeProjections${matrices.length}_${type === 'f32' ? '' : 'quads_'}${numRows}`,
    buffers: [
      ...outs.map((tensor, m) => ({name: `out${m}`, type, access: 'read_write', tensor}) as const),
      {name: 'x', type: 'f32', access: 'read', tensor: x},
      ...matrices.map((tensor, m) => ({name: `weights${m}`, type, access: 'read', tensor}) as const),
    ],
    uniforms: {
      numIn,
      ...Object.fromEntries(chunks.map((count, m) => [`chunks${m}`, count])),
      ...Object.fromEntries(tiles.map((count, m) => [`tiles${m}`, count])),
    },
    numWorkgroups: tiles.reduce((sum, count) => sum + count),
    code: () => /* wgsl */ `
      var<workgroup> sums : array<array<${type}, ${WORKGROUP_SIZE}>, ${numRows}>;
      ${repeat(matrices.length, (m) => multiply(m, type, numRows))}
      ${entryPoint(/* wgsl */ `
        var tile = group;
        ${repeat(
          matrices.length,
          (m) => /* wgsl */ `
        if (tile < uniforms.tiles${m}) {
          multiply${m}(tile, thread);
          return;
        }
        tile -= uniforms.tiles${m};`,
        )}`)}`,
  });
  const [out0, out1, out2] = outs;
  return {out0, ...(out1 && {out1}), ...(out2 && {out2})};
});
