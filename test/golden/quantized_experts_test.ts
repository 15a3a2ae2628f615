/** Experts of ONNX Runtime, and weights from files of others, repacked without a change of value. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {naiveGroupedMatMul} from '../naive/grouped_mat_mul';
import {expectWithin} from '../support/expect';
import {bytesOf, floatsOf, ofAwq, ofFp8, ofGgml, ofGptq, ofMxfp4, ofQMoe} from '../support/quantized_files';
import {lcg} from '../support/routings';
import golden from './quantized_experts.json';

type OnnxAttributes = {k: number; activation_type: string; activation_alpha?: number; activation_beta?: number; swiglu_limit?: number};

/** The names that differ. */
const onnxActivations: Record<string, tf.MoeActivation> = {identity: 'linear', gelu: 'geluTanh'};

/** The activations of ONNX by ours. Gates and ups are interleaved. */
function activationOf({activation_type: type, activation_alpha: alpha, activation_beta: beta, swiglu_limit: limit}: OnnxAttributes) {
  if (type !== 'swiglu') {
    return {gated: false, activation: onnxActivations[type] ?? (type as tf.MoeActivation)};
  }
  const gated = {gated: true, gateUp: 'interleaved' as const};
  return beta === 0
    ? {...gated, activation: 'silu' as const}
    : {...gated, activation: 'swigluOai' as const, swigluAlpha: alpha, swigluLimit: limit ?? 1e30};
}

type OnnxCase = {
  experts: number;
  hidden: number;
  inter: number;
  attributes: OnnxAttributes;
  routing: string;
  input: string;
  routerProbs: string;
  routerWeights?: string;
  fc1: {bias?: string};
  fc2: {bias?: string};
  output: string;
};

async function expectOnnx(given: OnnxCase, w1: tf.MoeExpertWeights, w2: tf.MoeExpertWeights, numColumns: number): Promise<void> {
  const {experts, hidden, attributes: {k}, routing} = given;
  const matrix = (base64: string, columns: number) => {
    const values = floatsOf(base64);
    return tf.tensor2d(values, [values.length / columns, columns]);
  };
  const x = matrix(given.input, hidden);
  const logits = matrix(given.routerProbs, experts);
  const options = {
    ...activationOf(given.attributes),
    w1Bias: given.fc1.bias == null ? undefined : matrix(given.fc1.bias, numColumns),
    w2Bias: given.fc2.bias == null ? undefined : matrix(given.fc2.bias, hidden),
  };
  const wanted = floatsOf(given.output);
  const largest = wanted.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const near = () => 1e-5 * largest;
  if (given.routerWeights == null) {
    const router = routing === 'softmax over all' ? {scoring: 'softmax' as const, renormalize: false} : {scoring: 'softmaxAfterTopk' as const};
    await expectWithin(tf.fusedMoe(x, w1, w2, logits, k, {...options, ...router}), wanted, near, 'fusedMoe');
  }
  const {ids, weights} = naiveRouter(await logits.array(), given, k);
  await expectWithin(tf.fusedExperts(x, w1, w2, weights, ids, options), wanted, near, 'fusedExperts');
}

/** The experts of largest logits, with the weights that ONNX gives them. */
function naiveRouter(logits: number[][], {routing, routerWeights, experts}: OnnxCase, k: number) {
  const separate = routerWeights == null ? undefined : floatsOf(routerWeights);
  const ids = logits.map((row) => row.map((_, e) => e).sort((a, b) => row[b] - row[a]).slice(0, k));
  const weights = ids.map((chosen, t) => {
    const scores = chosen.map((e) => separate?.[t * experts + e] ?? Math.exp(logits[t][e]));
    const all = routing === 'router_weights' ? [1] : routing === 'softmax over all' ? logits[t].map(Math.exp) : scores;
    const sum = all.reduce((a, b) => a + b);
    return scores.map((score) => score / sum);
  });
  return {ids, weights};
}

describeWithFlags('ONNX Runtime', ALL_ENVS, () => {
  for (const given of golden.qmoe.cases) {
    it(`QMoE: ${given.case}`, async () => {
      const {experts, hidden, inter, bits, block, fc1, fc2} = given;
      const numColumns = given.attributes.activation_type === 'swiglu' ? 2 * inter : inter;
      const w1 = ofQMoe(fc1, [experts, numColumns, hidden], bits, block);
      const w2 = ofQMoe(fc2, [experts, hidden, inter], bits, block);
      await expectOnnx(given, w1, w2, numColumns);
    });
  }

  for (const given of golden.moe.cases) {
    it(`MoE: ${given.case}`, async () => {
      const {experts, hidden, inter, fc1, fc2} = given;
      const numColumns = given.attributes.activation_type === 'swiglu' ? 2 * inter : inter;
      const weights = (base64: string, shape: [number, number, number]) => {
        const bytes = bytesOf(base64);
        const integers = bytes.length === tf.util.sizeFromShape(shape) ? new Int8Array(bytes.buffer) : new Int16Array(bytes.buffer);
        return tf.tensor3d(Float32Array.from(integers, (value) => value / 64), shape);
      };
      const w1 = weights(fc1.weights, [experts, numColumns, hidden]);
      await expectOnnx(given, w1, weights(fc2.weights, [experts, hidden, inter]), numColumns);
    });
  }
});

type File = {name: string; weights: () => tf.QuantizedWeights; values: Float32Array};

const files: File[] = [
  ...golden.mxfp4.cases.map(({case: name, blocks, scales, shape, values}) => ({
    name: `MXFP4 of gpt-oss, ${name}`,
    weights: () => ofMxfp4(blocks, scales, shape as [number, number, number]),
    values: floatsOf(values),
  })),
  {
    name: 'FP8 in blocks of 128 x 128',
    weights: () => ofFp8(golden.fp8, [1, golden.fp8.rows.length, golden.fp8.numIn]),
    values: floatsOf(golden.fp8.values),
  },
  ...golden.gguf.cases.map(({type, typeSize, data, shape, values}) => ({
    name: `GGUF ${type}`,
    weights: () => ofGgml(type, typeSize, data, [1, shape[0], shape[1]]),
    values: floatsOf(values),
  })),
  ...golden.gptqAwq.cases.map(({case: name, group, qweight, qzeros, scales, shape: [numIn, numOut], values}) => {
    const byInput = floatsOf(values);
    return {
      name,
      weights: () => (name === 'awq' ? ofAwq : ofGptq)(qweight, qzeros, scales, [1, numOut, numIn], group),
      values: byInput.map((_, i) => byInput[(i % numIn) * numOut + Math.floor(i / numIn)]),
    };
  }),
];

describeWithFlags('weights of files', ALL_ENVS, () => {
  for (const {name, weights, values} of files) {
    it(name, async () => {
      const quantized = weights();
      const [numExperts, numColumns, numIn] = quantized.shape;
      // scale * code + offset is rounded twice, and may be as small as its parts are close.
      const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      const near = (_: number, value: number) => (quantized.offsets == null ? 1e-7 * Math.abs(value) : 2e-7 * largest);
      await expectWithin(tf.moeDequantizeWeights(quantized), values, near, 'values');

      const next = lcg(5);
      const numRows = 2 * numExperts;
      const x = Float32Array.from({length: numRows * numIn}, () => 2 * next() - 1);
      const offset = Array.from({length: numExperts + 1}, (_, e) => 2 * e);
      const y = tf.moeGroupedMatMul(tf.tensor2d(x, [numRows, numIn]), quantized, offset);
      const {values: wanted, bounds} = naiveGroupedMatMul({numRows, numIn, numColumns, offset}, {x, weights: values});
      await expectWithin(y, wanted, (i) => bounds[i], 'y');
    });
  }
});
