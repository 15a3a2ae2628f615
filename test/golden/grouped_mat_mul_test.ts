/**
 * Grouped matmuls of jax.lax.ragged_dot, torch._grouped_mm and MegaBlocks, with both gradients. Activations and gates
 * of gpt-oss, ONNX Runtime and Hugging Face, through experts whose weights are the identity.
 */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectFloats, expectWithin} from '../support/expect';
import activations from './activations.json';
import grouped from './grouped_matmul.json';

type Encoded = {shape: number[]; data?: number[]; fill?: number};
type GoldenCase = {name: string; inputs: Record<string, Encoded>; expected: Record<string, Encoded>};

const valuesOf = ({shape, data, fill}: Encoded) =>
  data ?? new Array<number>(tf.util.sizeFromShape(shape)).fill(fill!);
const tensorOf = (encoded: Encoded) => tf.tensor(valuesOf(encoded), encoded.shape, 'float32');
const offsetOf = (sizes: number[]) => sizes.reduce((offset, size) => [...offset, offset[offset.length - 1] + size], [0]);

describeWithFlags('grouped matmuls of other systems', ALL_ENVS, () => {
  for (const {name, inputs, expected} of grouped.cases as unknown as GoldenCase[]) {
    it(name, async () => {
      const x = tensorOf(inputs['x']);
      const offset = offsetOf(valuesOf(inputs['group_sizes']));
      const weights = tensorOf(inputs['w_G_N_K']);
      const multiply = (a: tf.Tensor, w: tf.Tensor) => tf.moeGroupedMatMul(a, w, offset);
      await expectFloats(multiply(x, weights), valuesOf(expected['y']), 'y');
      const [dx, dWeights] = tf.grads(multiply)([x, weights], tensorOf(inputs['dy']));
      await expectFloats(dx, valuesOf(expected['dx']), 'dx');
      await expectFloats(dWeights, valuesOf(expected['dw']), 'dw');

      const inOut = tf.transpose(weights, [0, 2, 1]);
      await expectFloats(tf.moeGroupedMatMul(x, inOut, offset, {weightFormat: 'inOut'}), valuesOf(expected['y']), 'inOut');
    });
  }
});

const gptOss = {activation: 'swigluOai'} as const;
const gatedOptions: Record<string, tf.MoeGroupedMatMulOptions> = {
  swiglu_silu: {activation: 'silu'},
  swiglu_gptoss: gptOss,
  geglu_tanh: {activation: 'geluTanh'},
  geglu_erf: {activation: 'gelu'},
  reglu: {activation: 'relu'},
  swiglu_alpha05_limit001_plus1: {...gptOss, swigluAlpha: 0.5, swigluLimit: 0.01},
  swiglu_alpha05_limit10_plus1: {...gptOss, swigluAlpha: 0.5, swigluLimit: 10},
};
const plainActivations: Record<string, tf.MoeActivation> = {
  relu: 'relu',
  silu: 'silu',
  gelu_tanh: 'geluTanh',
  gelu_erf: 'gelu',
};
const isNear = (_: number, wanted: number) => 1e-6 + 1e-5 * Math.abs(wanted);

describeWithFlags('activations of other systems', ALL_ENVS, () => {
  const [gated, plain] = activations.cases as unknown as GoldenCase[];

  it('gated, with gradients', async () => {
    const identity = tf.tensor3d([[[1, 0], [0, 1]]]);
    const pairs = tf.stack([tensorOf(gated.inputs['gate']), tensorOf(gated.inputs['up'])], 1);
    const numPairs = pairs.shape[0];
    for (const [name, options] of Object.entries(gatedOptions)) {
      for (const gateUp of ['concatenated', 'interleaved'] as const) {
        const apply = (x: tf.Tensor) => tf.moeGroupedMatMul(x, identity, [0, numPairs], {...options, gated: true, gateUp});
        await expectWithin(apply(pairs), valuesOf(gated.expected[name]), isNear, name);
        if (`${name}_dgate` in gated.expected) {
          const [dGate, dUp] = tf.unstack(tf.grad(apply)(pairs), 1);
          await expectWithin(dGate, valuesOf(gated.expected[`${name}_dgate`]), isNear, `${name} by gate`);
          await expectWithin(dUp, valuesOf(gated.expected[`${name}_dup`]), isNear, `${name} by up`);
        }
      }
    }
  });

  it('not gated', async () => {
    const x = tf.reshape(tensorOf(plain.inputs['x']), [-1, 1]);
    for (const [name, activation] of Object.entries(plainActivations)) {
      const y = tf.moeGroupedMatMul(x, [[[1]]], [0, x.shape[0]], {activation});
      await expectWithin(y, valuesOf(plain.expected[name]), isNear, name);
    }
  });
});
