import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as fc from 'fast-check';
import * as tf from '../../src/tf';
import {expectFloats, expectWithin} from '../support/expect';
import {
  type GroupedCase,
  type GroupedValues,
  naiveGroupedMatMul,
  type NaiveOptions,
} from '../naive/grouped_mat_mul';
import {lcg} from '../support/routings';

const activations: tf.MoeActivation[] = ['linear', 'relu', 'relu2', 'silu', 'swish', 'gelu', 'geluTanh', 'geluNew'];
const formats: tf.MoeWeightFormat[] = ['outIn', 'inOut'];

type NastyCase = GroupedCase & {name: string};
const nasty = (name: string, [numRows, numIn, numColumns]: [number, number, number], offset: number[]): NastyCase => ({
  name,
  numRows,
  numIn,
  numColumns,
  offset,
});
/** The offsets of experts with these numbers of rows. */
const offsetOf = (counts: number[]) => counts.reduce((offset, count) => [...offset, offset[offset.length - 1] + count], [0]);
const randomCounts = (numExperts: number, numRows: number) => {
  const next = lcg(numExperts);
  const counts = new Array<number>(numExperts).fill(0);
  for (let row = 0; row < numRows; row++) {
    counts[Math.floor(next() * numExperts)]++;
  }
  return counts;
};

const nastyCases: NastyCase[] = [
  nasty('R = 0', [0, 4, 4], [0, 0, 0]),
  nasty('R = 1, L = 1, C = 1, D = 1', [1, 1, 1], [0, 1]),
  nasty('L = 1, odd C and D', [5, 7, 9], [0, 5]),
  nasty('no expert has rows', [3, 4, 4], [0, 0, 0]),
  nasty('experts without rows at both ends and between', [11, 8, 12], offsetOf([0, 4, 0, 0, 6, 1, 0])),
  nasty('all rows to one expert', [30, 4, 8], offsetOf([0, 0, 30, 0])),
  nasty('C = 1', [6, 1, 5], offsetOf([2, 3, 1])),
  nasty('D = 1', [6, 5, 1], offsetOf([1, 0, 5])),
  nasty('L = 60', [50, 6, 6], offsetOf(randomCounts(60, 50))),
  nasty('L = 257', [65, 4, 4], offsetOf(randomCounts(257, 65))),
  nasty('rows before the first offset and past the last', [12, 4, 6], [3, 3, 7, 8]),
  nasty('more columns than a workgroup takes, C past one turn', [9, 132, 36], offsetOf([2, 7])),
  nasty('few rows an expert', [7, 8, 40], offsetOf([1, 5, 0, 1])),
  nasty('tiles', [140, 36, 136], [2, 137]),
  // If every step of terms is full, no read checks whether it is past the end.
  nasty('tiles, steps of terms all full', [100, 32, 20], [2, 35, 99]),
  nasty('few rows an expert, steps of terms all full', [7, 128, 12], offsetOf([1, 5, 0, 1])),
  nasty('tiles, odd C and D', [75, 17, 5], offsetOf([70, 3])),
  nasty('tiles of two experts, rows past the last offset', [150, 20, 12], [0, 9, 140]),
];

function valuesOf({numRows, numIn, numColumns, offset}: GroupedCase, scale = 1): Required<GroupedValues> {
  const next = lcg(numRows + 31 * numIn + 977 * numColumns);
  const random = (size: number) => Float32Array.from({length: size}, () => scale * (2 * next() - 1));
  const numExperts = offset.length - 1;
  return {
    x: random(numRows * numIn).map((value, i) => {
      const row = Math.floor(i / numIn);
      return row >= offset[0] && row < offset[numExperts] ? value : NaN;
    }),
    weights: random(numExperts * numColumns * numIn),
    bias: random(numExperts * numColumns),
  };
}

function tensorsOf({numRows, numIn, numColumns, offset}: GroupedCase, values: GroupedValues, weightFormat?: string | null) {
  const numExperts = offset.length - 1;
  const shape: [number, number, number] =
    weightFormat === 'inOut' ? [numExperts, numIn, numColumns] : [numExperts, numColumns, numIn];
  return {
    x: tf.tensor2d(values.x as Float32Array, [numRows, numIn]),
    weights: tf.tensor3d(values.weights as Float32Array, shape),
    offset: tf.tensor1d(offset, 'int32'),
    bias: values.bias == null ? undefined : tf.tensor2d(values.bias as Float32Array, [numExperts, numColumns]),
  };
}

/** Runs a case with `values`, which may include a bias, and compares. */
async function expectRight(sizes: GroupedCase, values: GroupedValues, options: NaiveOptions, what: string): Promise<void> {
  const {x, weights, offset, bias} = tensorsOf(sizes, values, options.weightFormat);
  const y = tf.moeGroupedMatMul(x, weights, offset, {...options, bias});
  expect(y.shape).toEqual([sizes.numRows, options.gated ? sizes.numColumns / 2 : sizes.numColumns]);
  const {values: wanted, bounds} = naiveGroupedMatMul(sizes, values, options);
  await expectWithin(y, wanted, (i) => bounds[i], what);
  tf.dispose([x, weights, offset, y]);
}

describeWithFlags('moeGroupedMatMul', ALL_ENVS, () => {
  for (const sizes of nastyCases) {
    it(sizes.name, async () => {
      const values = valuesOf(sizes);
      for (const weightFormat of formats) {
        await expectRight(sizes, values, {weightFormat}, weightFormat);
        await expectRight(sizes, {...values, bias: undefined}, {weightFormat, activation: 'silu'}, `${weightFormat}, silu`);
      }
    });
  }

  for (const sizes of [
    nasty('few rows', [7, 6, 12], [0, 2, 6, 6]),
    nasty('few rows, odd number of outputs', [7, 5, 6], [1, 2, 6, 6]),
    nasty('tiles', [70, 8, 264], [1, 69]),
    nasty('tiles, odd number of outputs', [70, 5, 6], [1, 69]),
  ]) {
    it(`has every activation, gated or not: ${sizes.name}`, async () => {
      // Large enough that activations saturate.
      const values = valuesOf(sizes, 3);
      const isSmall = sizes.numRows < 10;
      for (const activation of isSmall ? activations : ['silu' as const]) {
        await expectRight(sizes, values, {activation}, activation);
      }
      for (const activation of isSmall ? [...activations, 'swigluOai' as const] : ['gelu' as const]) {
        for (const gateUp of ['concatenated', 'interleaved'] as const) {
          for (const weightFormat of formats) {
            const options = {activation, gated: true, gateUp, weightFormat};
            await expectRight(sizes, values, options, Object.values(options).join());
          }
        }
      }
    });
  }

  it('takes alpha and limit of swigluOai', async () => {
    const sizes = nasty('', [6, 4, 8], [0, 2, 6]);
    const options = {activation: 'swigluOai', gated: true, swigluAlpha: 0.5, swigluLimit: 0.75} as const;
    await expectRight(sizes, valuesOf(sizes, 2), options, 'limit 0.75');
    await expectRight(sizes, valuesOf(sizes, 9), {...options, swigluLimit: 10}, 'limit 10');
  });

  it('reads interleaved gates and ups for swigluOai by default, and concatenated ones for other activations', async () => {
    const x = [[1]];
    const weights = [[[1], [2], [3], [4]]];
    const silu = (z: number) => z / (1 + Math.exp(-z));
    const oai = (gate: number, up: number) => (gate / (1 + Math.exp(-1.702 * gate))) * (up + 1);
    const given = (options: tf.MoeGroupedMatMulOptions) => tf.moeGroupedMatMul(x, weights, [0, 1], {gated: true, ...options});
    const near = (_: number, value: number) => 1e-5 * Math.abs(value);
    await expectWithin(given({activation: 'swigluOai'}), [oai(1, 2), oai(3, 4)], near, 'swigluOai');
    await expectWithin(given({activation: 'swigluOai', gateUp: 'concatenated'}), [oai(1, 3), oai(2, 4)], near, 'concatenated');
    await expectWithin(given({activation: 'silu'}), [silu(1) * 3, silu(2) * 4], near, 'silu');
  });

  it('reads a list of weights as their concatenation', async () => {
    for (const sizes of [
      nasty('few rows', [20, 4, 6], [1, 3, 3, 8, 9, 12, 18, 19]),
      nasty('odd', [20, 3, 10], [1, 3, 3, 8, 9, 12, 18, 19]),
      nasty('tiles', [240, 4, 6], [1, 3, 3, 80, 83, 160, 161, 239]),
    ]) {
      const values = valuesOf(sizes);
      for (const weightFormat of formats) {
        const {x, weights, offset, bias} = tensorsOf(sizes, values, weightFormat);
        const parts = tf.split(weights, [1, 2, 3, 1]);
        const options = {weightFormat, gated: true, activation: 'relu'} as const;
        const y = tf.moeGroupedMatMul(x, parts, offset, {...options, bias});
        const {values: wanted, bounds} = naiveGroupedMatMul(sizes, values, options);
        await expectWithin(y, wanted, (i) => bounds[i], `${sizes.name} ${weightFormat}`);
      }
    }
  });

  it('takes arrays, takes null for options that are not given, and is a method', async () => {
    const y = tf.tensor2d([[1, 2], [3, 4]]).moeGroupedMatMul([[[1, 1]], [[2, 0]]], [0, 1, 2], {
      bias: [[1], [2]],
      activation: null,
      gated: null,
      gateUp: null,
      weightFormat: null,
      swigluAlpha: null,
      swigluLimit: null,
    });
    await expectFloats(y, [4, 8], 'y');
  });

  it('touches no other memory if offsets do not ascend', async () => {
    const x = tf.ones<tf.Rank.R2>([6, 2]);
    for (const offset of [[9, -3, 4, 2], [-(2 ** 31), 2 ** 31 - 1, 0, 6], [6, 6, 0, 0]]) {
      const y = tf.moeGroupedMatMul(x, tf.ones([3, 4, 2]), offset);
      expect((await y.data()).length).toBe(24);
    }
  });

  it('follows moePermute, aligned and with experts that are not local', async () => {
    const hidden = tf.tensor2d([[1, 2], [3, 4], [5, 6]]);
    const weights = tf.tensor3d([[[1, 0], [0, 1]], [[2, 0], [0, 2]], [[3, 0], [0, 3]]]);
    for (const alignBlockSize of [undefined, 4]) {
      const permuted = tf.moePermute(hidden, [[0, 2], [1, -1], [2, 0]], 3, {alignBlockSize});
      const y = permuted.permutedHiddenStates.moeGroupedMatMul(weights, permuted.expertFirstTokenOffset);
      const out = tf.moeUnpermute(y, tf.ones([3, 2]), permuted.invPermutedIdx, permuted.expertFirstTokenOffset);
      await expectFloats(out, [4, 8, 6, 8, 20, 24], `alignBlockSize ${alignBlockSize}`);
    }
  });

  it('is right for any sizes, offsets and options', async () => {
    const anyCase = fc
      .record({
        counts: fc.array(fc.nat({max: 9}), {minLength: 1, maxLength: 6}),
        before: fc.nat({max: 3}),
        after: fc.nat({max: 3}),
        numIn: fc.integer({min: 1, max: 9}),
        halfColumns: fc.integer({min: 1, max: 9}),
        options: fc.record({
          weightFormat: fc.constantFrom(...formats),
          activation: fc.constantFrom(...activations),
          gated: fc.boolean(),
          gateUp: fc.constantFrom('concatenated' as const, 'interleaved' as const),
        }),
        hasBias: fc.boolean(),
      });
    await fc.assert(
      fc.asyncProperty(anyCase, async ({counts, before, after, numIn, halfColumns, options, hasBias}) => {
        const offset = offsetOf(counts).map((row) => row + before);
        const numRows = offset[counts.length] + after;
        const sizes = {numRows, numIn, numColumns: options.gated ? 2 * halfColumns : halfColumns, offset};
        const {bias, ...values} = valuesOf(sizes);
        await expectRight(sizes, hasBias ? {...values, bias} : values, options, JSON.stringify({offset, ...options}));
      }),
      {numRuns: 40},
    );
  });
});
