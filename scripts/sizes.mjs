/**
 * Writes the table of README.md that says what an import adds to a bundle. It measures dist/, so `npm run build` comes
 * first. With --check it only compares, and a row may be off by a tenth.
 */
import {readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {gzipSync} from 'node:zlib';
import {build} from 'esbuild';
import {root} from './set_up.mjs';

const TOLERANCE = 0.1;
/** The script build with all backends, gzipped. */
const MAX_SCRIPT_BYTES = 101_000;
const readme = join(root, 'README.md');
const [begin, end] = ['<!-- sizes: begin -->', '<!-- sizes: end -->'];

const opsWithKernels = (backend) => [
  `\`tfjs-moe/ops\` and \`tfjs-moe/kernels/${backend}\``,
  `export * from 'tfjs-moe/ops'; import 'tfjs-moe/kernels/${backend}';`,
];
const entry = (name, what) => [`\`${name}\`${what}`, `export * from '${name}';`];
const bundles = [
  ['`moePermute` of `tfjs-moe/ops`, without kernels', `export {moePermute} from 'tfjs-moe/ops';`],
  opsWithKernels('cpu'),
  opsWithKernels('webgl'),
  opsWithKernels('webgpu'),
  entry('tfjs-moe', ': ops, kernels of every backend, methods'),
  ['`tfjs-moe/layers`, with these', `export * from 'tfjs-moe/layers';`],
  entry('tfjs-moe/checkpoints', ' alone'),
  ['`tfjs-moe/models`, with layers and checkpoints', `export * from 'tfjs-moe/models';`],
  entry('tfjs-moe/graph', ', with these'),
  entry('tfjs-moe/tf', ': all of these'),
];

async function bundleOf(contents) {
  const {outputFiles} = await build({
    stdin: {contents, resolveDir: root},
    bundle: true,
    minify: true,
    write: false,
    format: 'esm',
    external: ['@tensorflow/*'],
    logLevel: 'error',
  });
  return outputFiles[0].contents;
}

const kilobytes = (code) => (code.length / 1000).toFixed(code.length < 10_000 ? 1 : 0);
const rowOf = (label, code) => [label, `${kilobytes(code)} kB`, `${kilobytes(gzipSync(code))} kB`];
const rows = [
  ['import', 'minified', 'gzipped'],
  ['---', '---', '---'],
];
for (const [label, contents] of bundles) {
  rows.push(rowOf(label, await bundleOf(contents)));
}
const script = readFileSync(join(root, 'dist', 'tf-moe.min.js'));
rows.push(rowOf('`dist/tf-moe.min.js`, for script tags: without checkpoints and models', script));
if (gzipSync(script).length > MAX_SCRIPT_BYTES) {
  throw new Error(`dist/tf-moe.min.js takes ${gzipSync(script).length} bytes gzipped, of ${MAX_SCRIPT_BYTES} at most.`);
}

const text = readFileSync(readme, 'utf8');
const [before, rest] = text.split(begin);
const [written, after] = rest.split(end);
if (process.argv.includes('--check')) {
  const sizesOf = (table) => [...table.matchAll(/([\d.]+) kB/g)].map(([, size]) => Number(size));
  const [given, wanted] = [written, rows.flat().join(' ')].map(sizesOf);
  const isClose = (size, i) => Math.abs(given[i] / size - 1) <= TOLERANCE;
  if (given.length !== wanted.length || !wanted.every(isClose)) {
    console.error(`README.md says ${given} kB, but it is ${wanted}: run \`npm run sizes\`.`);
    process.exitCode = 1;
  }
} else {
  const table = rows.map((cells) => `| ${cells.join(' | ')} |`).join('\n');
  writeFileSync(readme, `${before}${begin}\n${table}\n${end}${after}`);
}
