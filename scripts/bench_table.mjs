/** Writes the tables of docs/benchmarks.md from bench/results/*.json, rows as the benchmarks write them. */
import {existsSync, readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {root} from './set_up.mjs';

const page = join(root, 'docs', 'benchmarks.md');
const results = join(root, 'bench', 'results');
const rowsOf = (name) => JSON.parse(readFileSync(join(results, `${name}.json`), 'utf8')).rows;
const own = ({timings}) => timings[0].gpuMicroseconds.median;
const replay = ({timings}) => timings[0].replayMicroseconds.median;
const line = (cells) => `| ${cells.join(' | ')} |`;
const tableOf = (header, rows) => [line(header), line(header.map(() => '---')), ...rows.map(line)].join('\n');

/** A table of files that bench/results may lack; the page then has no place for it. */
const tableOfFiles = (name, table, ...files) =>
  files.every((file) => existsSync(join(results, `${file}.json`))) ? {[name]: table(...files.map(rowsOf))} : {};

function opTable(rows, op) {
  const chosen = rows.filter((row) => row.op === op);
  const times = ['GPU us', 'own buffers', 'launches', 'GB/s', 'of a copy', 'vLLM us', 'vLLM / ours'];
  const header = ['layer (H, K, E)', 'T', ...times];
  return tableOf(
    header,
    chosen.map((row) => {
      const {H, K, E, T} = row.shape;
      const vllm = row.ratios.vllm;
      return [
        `${row.layer} (${H}, ${K}, ${E})`,
        T,
        replay(row).toFixed(1),
        own(row).toFixed(1),
        row.timings[0].numLaunches,
        Math.round(row.timings[0].gigabytesPerSecond),
        op === 'moeAlignBlockSize' ? '' : `${Math.round(100 * row.ratios.copy.ratio)} %`,
        vllm == null ? '' : (vllm.ratio * replay(row)).toFixed(1),
        vllm == null ? '' : vllm.ratio.toFixed(2),
      ];
    }),
  );
}

/** The launches of ops that make more than one, each alone. */
function launchTable(rows) {
  const chosen = rows.filter(({timings}) => timings[0].numLaunches > 1);
  return tableOf(
    ['op', 'layer', 'T', 'launches alone, us'],
    chosen.map(({op, layer, shape, timings}) => [
      op,
      layer,
      shape.T,
      timings[0].launchMicroseconds.map(({name, median}) => `${name} ${median.toFixed(1)}`).join(', '),
    ]),
  );
}

function compositionTable(rows) {
  const times = ['GPU us', 'composition GPU us', 'ratio', 'wall ms', 'composition wall ms', 'ratio'];
  const header = ['op', 'layer', 'T', ...times];
  return tableOf(
    header,
    rows.map((row) => {
      const composition = row.timings.find(({kind}) => kind === 'plain');
      return [
        row.op,
        row.layer,
        row.shape.T,
        own(row).toFixed(1),
        composition.gpuMicroseconds.median.toFixed(1),
        row.ratios.plain.ratio.toFixed(1),
        row.timings[0].wallMs.median.toFixed(2),
        composition.wallMs.median.toFixed(2),
        row.ratios.wall.ratio.toFixed(1),
      ];
    }),
  );
}

const milliseconds = (ms) => ms.toFixed(ms < 1 ? 2 : 1);
/** Of a call in a row of calls where the row has it, else of one call that is waited for. */
const wall = ({timings}) => (timings[0].batchMs ?? timings[0].wallMs).median;
const layerOf = ({layer, shape: {H, I, K, E}}) => `${layer} (${H}, ${I}, ${K}, ${E})`;
const teraflops = (row, timing = row.timings[0]) => (row.numFlops / timing.replayMicroseconds.median / 1e6).toFixed(1);

/** fusedMoe in Node.js and in Chromium, beside all experts by tf.matMul. */
function fusedMoeTable(rows, dense, inChromium) {
  const header = [
    'layer (H, I, K, E)',
    'T',
    'launches',
    'GPU ms',
    'TFLOP/s',
    'GB/s',
    'dense / ours',
    'wall ms',
    'wall ms, Chromium',
    'a copy there',
  ];
  return tableOf(
    header,
    rows.map((row) => {
      const sameShape = ({layer, shape}) => layer === row.layer && shape.T === row.shape.T;
      const there = inChromium.find(sameShape);
      const ofAllExperts = dense.find(sameShape);
      return [
        layerOf(row),
        row.shape.T,
        row.timings[0].numLaunches,
        milliseconds(replay(row) / 1000),
        teraflops(row),
        Math.round(row.timings[0].gigabytesPerSecond),
        ofAllExperts == null ? '' : (replay(ofAllExperts) / replay(row)).toFixed(1),
        milliseconds(wall(row)),
        milliseconds(wall(there)),
        milliseconds(there.timings.find(({kind}) => kind === 'copy').wallMs.median),
      ];
    }),
  );
}

function matMulTable(rows) {
  const rates = ['TFLOP/s', 'GB/s', 'of a copy', 'tf.matMul TFLOP/s', 'ours / tf.matMul'];
  const header = ['product', 'layer (H, I, K, E)', 'T', 'GPU us', ...rates];
  return tableOf(
    header,
    rows.map((row) => [
      row.timings[0].name,
      layerOf(row),
      row.shape.T,
      replay(row).toFixed(1),
      teraflops(row),
      Math.round(row.timings[0].gigabytesPerSecond),
      `${Math.round(100 * row.ratios.copy.ratio)} %`,
      teraflops(row, row.timings[1]),
      row.ratios.part.ratio.toFixed(2),
    ]),
  );
}

/** Ops beside the same result of core ops, both in full. */
function plainTable(rows) {
  const times = ['GPU us', 'core ops GPU us', 'ratio', 'wall ms', 'core ops wall ms', 'ratio'];
  const header = ['op', 'layer (H, I, K, E)', 'T', ...times];
  return tableOf(
    header,
    rows.map((row) => [
      row.op,
      layerOf(row),
      row.shape.T,
      own(row).toFixed(1),
      row.timings[1].gpuMicroseconds.median.toFixed(1),
      row.ratios.plain.ratio.toFixed(1),
      milliseconds(wall(row)),
      milliseconds(row.timings[1].wallMs.median),
      row.ratios.wall.ratio.toFixed(1),
    ]),
  );
}

/** All but the wait for no work. */
const callsInARow = ({timings}) => timings.filter(({batchMs}) => batchMs != null);

/** WebGL has wall times alone: of calls in a row, and of one. */
function webglTable(rows) {
  return tableOf(
    ['op', 'layer (H, I, K, E)', 'T', 'contender', 'in a row, ms', 'x op', 'one call, ms'],
    rows.flatMap((row) =>
      callsInARow(row).map(({name, batchMs, wallMs}) => [
        row.op,
        layerOf(row),
        row.shape.T,
        name,
        milliseconds(batchMs.median),
        (batchMs.median / row.timings[0].batchMs.median).toFixed(2),
        milliseconds(wallMs.median),
      ]),
    ),
  );
}

/** The chain of layers, in Node.js and in Chromium: wall, host and GPU time apart. */
function chainTable(rows, inChromium) {
  const header = [
    'layer (H, I, K, E)',
    'T',
    'layers and their weights',
    'where',
    'launches',
    'wall ms',
    'host ms',
    'GPU ms',
    'wall ms, waited for each',
  ];
  const linesOf = (where) => (row) => {
    const {name, numLaunches, hostMs, wallMs} = row.timings[0];
    const times = [wall(row), hostMs.median, replay(row) / 1000, wallMs.median].map(milliseconds);
    return [layerOf(row), row.shape.T, name, where, numLaunches, ...times];
  };
  return tableOf(header, [...rows.map(linesOf('Node.js')), ...inChromium.map(linesOf('Chromium'))]);
}

/** JavaScript's time a call, and as a multiple of tf.add's. */
function hostTable(rows) {
  const ops = rows[0].times.map(({op}) => op);
  return tableOf(
    ['layer (H, K, E)', 'T', ...ops.map((op) => `${op}, us (x tf.add)`)],
    rows.map(({layer, shape: {H, K, E, T}, times}) => [
      `${layer} (${H}, ${K}, ${E})`,
      T,
      ...times.map(({microseconds, timesAdd}) => `${microseconds.toFixed(0)} (${timesAdd.toFixed(1)})`),
    ]),
  );
}

/** onnxruntime-web's QMoE beside fusedMoe in one page. */
function peerTable(rows) {
  const ours = ['int4 ms', 'float32 ms', 'QMoE ms', 'QMoE / int4', 'QMoE / float32'];
  return tableOf(
    ['layer (H, I, K, E)', 'T', ...ours, 'activations of QMoE'],
    rows.map((row) => {
      const [int4, float32, qmoe] = [row.int4, row.float32, row.qmoe].map(({batchMs}) => batchMs.median);
      return [
        layerOf(row),
        row.shape.T,
        ...[int4, float32, qmoe].map(milliseconds),
        ...[qmoe / int4, qmoe / float32].map((ratio) => ratio.toFixed(1)),
        `w1 ${row.activations.w1}, w2 ${row.activations.w2}`,
      ];
    }),
  );
}

/** fusedMoe of quantized experts, and of float32 ones in the same run. */
function formatsTable(rows) {
  return tableOf(
    ['layer (H, I, K, E)', 'T', 'experts', 'GPU us', 'of a copy', 'float32, GPU us', 'float32 / codes'],
    rows.map((row) => {
      const float32 = row.timings.find(({kind}) => kind === 'part')?.replayMicroseconds.median;
      return [
        layerOf(row),
        row.shape.T,
        row.timings[0].name.replace(', experts of', ','),
        replay(row).toFixed(1),
        `${Math.round(100 * row.ratios.copy.ratio)} %`,
        float32 == null ? '' : float32.toFixed(1),
        float32 == null ? '' : (float32 / replay(row)).toFixed(2),
      ];
    }),
  );
}

const node = rowsOf('h200_node');
const experts = rowsOf('h200_node_experts');
const ofOps = (...ops) => experts.filter(({op}) => ops.includes(op));
const tables = {
  fusedMoe: fusedMoeTable(ofOps('fusedMoe'), rowsOf('h200_node_dense'), rowsOf('h200_chromium_experts')),
  moeGroupedMatMul: matMulTable(ofOps('moeGroupedMatMul', 'moeGroupedMatMulW2')),
  plain: plainTable(ofOps('moeTopk', 'mixtureOfExpertsStep')),
  webgl: webglTable(rowsOf('h200_chromium_webgl')),
  moePermute: opTable(node, 'moePermute'),
  moeUnpermute: opTable(node, 'moeUnpermute'),
  moeAlignBlockSize: opTable(node, 'moeAlignBlockSize'),
  launches: launchTable(node),
  compositions: compositionTable(rowsOf('h200_node_baselines')),
  chromium: ['moePermute', 'moeUnpermute', 'moeAlignBlockSize']
    .map((op) => opTable(rowsOf('h200_chromium'), op))
    .join('\n\n'),
  ...tableOfFiles('chain', chainTable, 'node_chain', 'chromium_chain'),
  ...tableOfFiles('hostNode', hostTable, 'node_host'),
  ...tableOfFiles('hostChromium', hostTable, 'chromium_host'),
  ...tableOfFiles('peer', peerTable, 'chromium_peer'),
  ...tableOfFiles('formats', formatsTable, 'node_formats'),
  ...tableOfFiles('hostWebgl', hostTable, 'chromium_webgl_host'),
  ...tableOfFiles('formatsWebgl', webglTable, 'chromium_webgl_formats'),
};
let text = readFileSync(page, 'utf8');
for (const [name, table] of Object.entries(tables)) {
  const [begin, end] = [`<!-- ${name}: begin -->`, `<!-- ${name}: end -->`];
  text = `${text.split(begin)[0]}${begin}\n${table}\n${end}${text.split(end)[1]}`;
}
writeFileSync(page, text);
