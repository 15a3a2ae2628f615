/** Writes the tables of docs/benchmarks.md from bench/results/*.json, rows as the benchmarks write them. */
import {readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {root} from './set_up.mjs';

const page = join(root, 'docs', 'benchmarks.md');
const rowsOf = (name) => JSON.parse(readFileSync(join(root, 'bench', 'results', `${name}.json`), 'utf8')).rows;
const own = ({timings}) => timings[0].gpuMicroseconds.median;
const replay = ({timings}) => timings[0].replayMicroseconds.median;
const line = (cells) => `| ${cells.join(' | ')} |`;
const tableOf = (header, rows) => [line(header), line(header.map(() => '---')), ...rows.map(line)].join('\n');

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

const node = rowsOf('h200_node');
const tables = {
  moePermute: opTable(node, 'moePermute'),
  moeUnpermute: opTable(node, 'moeUnpermute'),
  moeAlignBlockSize: opTable(node, 'moeAlignBlockSize'),
  launches: launchTable(node),
  compositions: compositionTable(rowsOf('h200_node_baselines')),
  chromium: ['moePermute', 'moeUnpermute', 'moeAlignBlockSize']
    .map((op) => opTable(rowsOf('h200_chromium'), op))
    .join('\n\n'),
};
let text = readFileSync(page, 'utf8');
for (const [name, table] of Object.entries(tables)) {
  const [begin, end] = [`<!-- ${name}: begin -->`, `<!-- ${name}: end -->`];
  text = `${text.split(begin)[0]}${begin}\n${table}\n${end}${text.split(end)[1]}`;
}
writeFileSync(page, text);
