/**
 * Writes the table of ops and backends into docs/support.md from what importing the package registers, so that it
 * cannot say more than is there. With --check it only compares.
 */
import {readFileSync, writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {join} from 'node:path';
import {bundleForNode} from './bundle.mjs';
import {root} from './set_up.mjs';

const page = join(root, 'docs', 'support.md');
const [begin, end] = ['<!-- support table: begin -->', '<!-- support table: end -->'];

const bundle = await bundleForNode('support_table', {
  stdin: {
    contents: `export * from './src/index'; export {testedBackends} from './test/runner/tested_backends';`,
    resolveDir: root,
  },
});
const require = createRequire(import.meta.url);
const moe = require(bundle);
const {getGradient, getKernel} = require('@tensorflow/tfjs-core');

const kernelsOfOps = {
  moeAlignBlockSize: ['MoeAlignBlockSize'],
  moePermute: ['MoePermute'],
  moeUnpermute: ['MoeUnpermute'],
  moePermuteBlockAligned: ['MoePermute'],
  moeUnpermuteAndReduce: ['MoeUnpermute'],
  moeSum: ['MoeSum'],
  moeGroupedMatMul: ['MoeGroupedMatMul'],
  fusedExperts: ['MoePermute', 'MoeGroupedMatMul', 'MoeUnpermute'],
  fusedMoe: ['MoeTopK', 'MoePermute', 'MoeGroupedMatMul', 'MoeUnpermute'],
  moeTopk: ['MoeTopK', 'MoeTopKBackprop', 'MoeRouterProbabilities'],
  moeLoadBalancingLoss: ['MoePermute', 'MoeRouterProbabilities', 'MoeSum'],
  moeRouterZLoss: ['MoeRouterProbabilities', 'MoeSum'],
  moeAddAuxiliaryLoss: [],
  moeQuantizeWeights: ['MoeQuantizeWeights'],
  moeDequantizeWeights: ['MoeDequantizeWeights'],
};
// These two make no use of a kernel.
const kernelFree = ['moePermuteUnpermuteSupported', 'moeExpertMap'];
const gradientTargets = {
  moeAlignBlockSize: 'none: indices',
  moePermute: 'hiddenStates, a1qScale',
  moeUnpermute: 'rows, weights',
  moePermuteBlockAligned: 'hiddenStates, a1qScale',
  moeUnpermuteAndReduce: 'rows, weights',
  moeSum: 'x',
  moeGroupedMatMul: 'x, weights, bias',
  fusedExperts: 'hiddenStates, w1, w2, biases, topkWeights',
  fusedMoe: 'hiddenStates, w1, w2, biases, routerLogits',
  moeTopk: 'routerLogits',
  moeLoadBalancingLoss: 'routerLogits',
  moeRouterZLoss: 'routerLogits',
  moeAddAuxiliaryLoss: 'y, loss',
  moeQuantizeWeights: 'none: frozen',
  moeDequantizeWeights: 'none: frozen',
};
const backends = {cpu: 'cpu', wasm: 'wasm', tensorflow: 'tensorflow (tfjs-node)', webgpu: 'webgpu', webgl: 'webgl'};

const exported = Object.keys(moe)
  .filter((name) => typeof moe[name] === 'function' && /^(moe|fused)[A-Z]/.test(name) && !kernelFree.includes(name))
  .sort();
const listed = Object.keys(kernelsOfOps).sort();
if (String(exported) !== String(listed)) {
  throw new Error(`The table lists ${listed}, but the package exports ${exported}.`);
}

function cell(kernels, backendName) {
  if (!kernels.every((kernel) => getKernel(kernel, backendName) != null)) {
    return 'next';
  }
  return moe.testedBackends.some((env) => env.backendName === backendName) ? 'tested' : 'not run';
}

const rows = Object.entries(kernelsOfOps).map(([op, kernels]) => {
  if (!kernels.every((kernel) => getGradient(kernel) != null)) {
    throw new Error(`A kernel of ${op} has no gradient.`);
  }
  return [`\`${op}\``, ...Object.keys(backends).map((name) => cell(kernels, name)), gradientTargets[op]];
});
const line = (cells) => `| ${cells.join(' | ')} |`;
const header = ['op', ...Object.values(backends), 'gradient to'];
const table = [line(header), line(header.map(() => '---')), ...rows.map(line)].join('\n');

const text = readFileSync(page, 'utf8');
const wanted = `${text.split(begin)[0]}${begin}\n${table}\n${end}${text.split(end)[1]}`;
if (process.argv.includes('--check')) {
  if (text !== wanted) {
    console.error('docs/support.md differs from what the package registers: run `node scripts/support_table.mjs`.');
    process.exitCode = 1;
  }
} else {
  writeFileSync(page, wanted);
}
