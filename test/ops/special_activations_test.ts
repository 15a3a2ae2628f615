/** The results of activations for NaN, infinities and the largest and smallest numbers: the same on every backend. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {
  type MoeActivationAttrs,
  MoeGroupedMatMulBackpropActivation,
  type MoeKernelActivation,
} from '../../src/contract/kernel_names';
import {runMoeKernel} from '../../src/contract/run_kernel';
import * as tf from '../../src/tf';
import {activationForms, expectSpecial, gatedForms, SPECIAL_VALUES} from '../support/special_values';

const ACTIVATIONS = Object.keys(activationForms) as MoeKernelActivation[];
const swiglu = {swigluAlpha: 1.5, swigluLimit: 7};

const ungated = (activation: MoeKernelActivation): MoeActivationAttrs =>
  ({activation, gated: false, gateUp: 'concatenated', ...swiglu});
const backprop = (dy: tf.Tensor, z: tf.Tensor, attrs: MoeActivationAttrs): tf.Tensor =>
  runMoeKernel(MoeGroupedMatMulBackpropActivation, {dy, z}, attrs).dz;

/** Every activation with gates, 'silu' with clamps and without. */
const gatedAttrs = [...ACTIVATIONS.map((name) => ungated(name)), {...ungated('silu'), swigluLimit: Infinity}]
  .map((attrs) => ({...attrs, gated: true}));

const GATES = [NaN, Infinity, -Infinity, 1e38, -1e38, 1e3, -1e3, 0, -0, 7, 8, -1].map(Math.fround);
const pairs = GATES.flatMap((gate) => GATES.map((up): [number, number] => [gate, up]));

describeWithFlags('special values: activations', ALL_ENVS, () => {
  const alpha = swiglu.swigluAlpha;

  it('without gates', async () => {
    // Each kernel of a backend: single columns, columns by fours, and many rows.
    for (const [numColumns, repeats] of [[1, 1], [4, 1], [4, 2]]) {
      const rows = Array.from({length: repeats}, () => SPECIAL_VALUES).flat();
      const padding = new Array<number>(numColumns - 1).fill(0);
      const x = tf.tensor2d(rows.flatMap((value) => [value, ...padding]), [rows.length, numColumns]);
      const firstOnly = Array.from({length: numColumns ** 2}, (_, i) => Number(i % numColumns === 0));
      const weights = tf.tensor3d(firstOnly, [1, numColumns, numColumns]);
      const all = rows.flatMap((value) => new Array<number>(numColumns).fill(value));
      // 'swigluOai' has a form without gates inside kernels only.
      for (const activation of ACTIVATIONS.filter((name) => name !== 'swigluOai')) {
        const y = tf.moeGroupedMatMul(x, weights, [0, rows.length], {activation});
        const wanted = all.map((value) => activationForms[activation].value(value, alpha));
        await expectSpecial(y, wanted, all, `${activation}, [${rows.length}, ${numColumns}]`);
      }
    }
  });

  it('derivatives without gates', async () => {
    const z = tf.tensor2d(SPECIAL_VALUES, [SPECIAL_VALUES.length, 1]);
    for (const activation of ACTIVATIONS) {
      const {derivative, second} = activationForms[activation];
      const first = (x: tf.Tensor) => backprop(tf.onesLike(x), x, ungated(activation));
      const [dz, ddz] = [first(z), tf.grad(first)(z)];
      await expectSpecial(dz, SPECIAL_VALUES.map((x) => derivative(x, alpha)), SPECIAL_VALUES, `${activation}, first`);
      await expectSpecial(ddz, SPECIAL_VALUES.map((x) => second(x, alpha)), SPECIAL_VALUES, `${activation}, second`);
    }
  });

  it('gated', async () => {
    const offset = Array.from({length: pairs.length + 1}, (_, e) => e);
    for (const repeats of [1, 2]) {
      // An expert for each pair, which is the expert's bias.
      const values = pairs.flatMap(([gate, up]) => [gate, up].flatMap((value) => new Array<number>(repeats).fill(value)));
      const bias = tf.tensor2d(values, [pairs.length, 2 * repeats]);
      const [x, weights] = [tf.ones([pairs.length, 2 * repeats]), tf.zeros([pairs.length, 2 * repeats, 2 * repeats])];
      const all = pairs.flatMap((pair) => new Array<[number, number]>(repeats).fill(pair));
      for (const {activation, swigluLimit, ...attrs} of gatedAttrs) {
        const {value} = gatedForms(activation, alpha, swigluLimit);
        const limit = swigluLimit < Infinity ? swigluLimit : null;
        const y = tf.moeGroupedMatMul(x, weights, offset, {...attrs, activation, swigluLimit: limit, bias});
        await expectSpecial(y, all.map(([gate, up]) => value(gate, up)), all, activation);
      }
    }
  });

  it('derivatives with gates', async () => {
    const inputs = pairs.flatMap(([gate, up]) => [`${gate}, ${up} by gate`, `${gate}, ${up} by up`]);
    const [z, dy] = [tf.tensor2d(pairs), tf.ones([pairs.length, 1])];
    for (const attrs of gatedAttrs) {
      const {activation} = attrs;
      const {derivatives, second} = gatedForms(activation, alpha, attrs.swigluLimit);
      const first = (x: tf.Tensor) => backprop(dy, x, attrs);
      await expectSpecial(first(z), pairs.flatMap(([gate, up]) => derivatives(gate, up)), inputs, `${activation}, first`);
      for (const v of [[1, 0], [0, 1]] as Array<[number, number]>) {
        const wanted = pairs.flatMap(([gate, up]) => second(gate, up, v));
        const given = tf.grad(first)(z, tf.tile(tf.tensor2d([v]), [pairs.length, 1]));
        await expectSpecial(given, wanted, inputs, `${activation}, second along ${v}`);
      }
    }
  });
});

const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};
describeWithFlags('special values: the table is that of core ops on the host', cpu, () => {
  const alpha = swiglu.swigluAlpha;
  const limit = swiglu.swigluLimit;
  const timesSigmoid = (x: tf.Tensor, w: tf.Tensor) => tf.mul(x, tf.sigmoid(w));
  const geluInner = (x: tf.Tensor) => tf.mul(tf.add(x, tf.mul(0.044715, tf.pow(x, 3))), Math.sqrt(2 / Math.PI));
  const core: Record<MoeKernelActivation, (x: tf.Tensor) => tf.Tensor> = {
    linear: (x) => tf.mul(x, 1),
    relu: (x) => tf.relu(x),
    relu2: (x) => tf.square(tf.relu(x)),
    silu: (x) => timesSigmoid(x, x),
    gelu: (x) => tf.mul(tf.mul(x, 0.5), tf.add(1, tf.erf(tf.mul(x, Math.SQRT1_2)))),
    geluTanh: (x) => tf.mul(tf.mul(x, 0.5), tf.add(1, tf.tanh(geluInner(x)))),
    swigluOai: (x) => timesSigmoid(x, tf.mul(x, alpha)),
  };

  for (const activation of ACTIVATIONS) {
    it(activation, async () => {
      // The cube in geluTanh overflows in core ops.
      const values = SPECIAL_VALUES.filter((x) => activation !== 'geluTanh' || !Number.isFinite(x) || Math.abs(x) < 1e3);
      const x = tf.tensor1d(values);
      const {value, derivative} = activationForms[activation];
      await expectSpecial(core[activation](x), values.map((v) => value(v, alpha)), values, 'value');
      const gradient = tf.grad(core[activation])(x);
      await expectSpecial(gradient, values.map((v) => derivative(v, alpha)), values, 'derivative');
    });
  }

  it('swigluOai, gated', async () => {
    const [gate, up] = tf.unstack(tf.tensor2d(pairs), 1);
    const y = tf.mul(core.swigluOai(tf.minimum(gate, limit)), tf.add(tf.clipByValue(up, -limit, limit), 1));
    const {value} = gatedForms('swigluOai', alpha, limit);
    await expectSpecial(y, pairs.map((pair) => value(...pair)), pairs, 'value');
  });
});
