/** moeGroupedMatMul as plain loops in float64, with the error that each element may have. */
import type {MoeActivation, MoeGroupedMatMulOptions} from '../../src/tf';

export type GroupedCase = {
  numRows: number;
  numIn: number;
  numColumns: number;
  /** L + 1 values. */
  offset: number[];
};
export type GroupedValues = {x: ArrayLike<number>; weights: ArrayLike<number>; bias?: ArrayLike<number>};
export type NaiveOptions = Omit<MoeGroupedMatMulOptions, 'bias'>;

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

/** A series of positive terms: 2/sqrt(pi) * exp(-x*x) * sum of 2^n x^(2n+1) / (1*3*…*(2n+1)). */
export function erf(x: number): number {
  let term = x;
  let sum = x;
  for (let n = 1; n < 400 && Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return Math.abs(x) > 6 ? Math.sign(x) : (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

const geluTanh = (x: number) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
const naiveActivations: Record<MoeActivation, (x: number, alpha: number) => number> = {
  linear: (x) => x,
  relu: (x) => Math.max(x, 0),
  relu2: (x) => Math.max(x, 0) ** 2,
  silu: (x) => x * sigmoid(x),
  swish: (x) => x * sigmoid(x),
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  geluTanh,
  geluNew: geluTanh,
  swigluOai: (x, alpha) => x * sigmoid(alpha * x),
};

export function naiveGroupedMatMul(
  {numRows, numIn, numColumns, offset}: GroupedCase,
  {x, weights, bias}: GroupedValues,
  options: NaiveOptions = {},
): {values: number[]; bounds: number[]} {
  const {activation = 'linear', gated = false, weightFormat, swigluAlpha, swigluLimit} = options;
  const gateUp = options.gateUp ?? (activation === 'swigluOai' ? 'interleaved' : 'concatenated');
  const limit = swigluLimit ?? 7;
  const act = (z: number) => naiveActivations[activation ?? 'linear'](z, swigluAlpha ?? 1.702);
  /** The largest factor by which the activation can multiply an error. */
  const slope = (z: number) => (activation === 'relu2' ? Math.max(1.2, 2 * z) : 1.2);
  const numOutputs = gated ? numColumns / 2 : numColumns;
  const values = new Array<number>(numRows * numOutputs).fill(0);
  const bounds = values.slice();
  for (let e = 0; e + 1 < offset.length; e++) {
    const product = (row: number, d: number) => {
      let z = bias == null ? 0 : bias[e * numColumns + d];
      let magnitude = Math.abs(z);
      for (let c = 0; c < numIn; c++) {
        const at = weightFormat === 'inOut' ? (e * numIn + c) * numColumns + d : (e * numColumns + d) * numIn + c;
        const term = weights[at] * x[row * numIn + c];
        z += term;
        magnitude += Math.abs(term);
      }
      return {z, bound: 1e-5 * magnitude + 1e-6};
    };
    for (let row = offset[e]; row < offset[e + 1]; row++) {
      for (let o = 0; o < numOutputs; o++) {
        const at = row * numOutputs + o;
        if (!gated) {
          const {z, bound} = product(row, o);
          values[at] = act(z);
          bounds[at] = slope(z) * bound;
          continue;
        }
        const gate = product(row, gateUp === 'interleaved' ? 2 * o : o);
        const up = product(row, gateUp === 'interleaved' ? 2 * o + 1 : numOutputs + o);
        const isOai = activation === 'swigluOai';
        const isClamped = isOai || ((activation === 'silu' || activation === 'swish') && swigluLimit != null);
        const a = act(isClamped ? Math.min(gate.z, limit) : gate.z);
        const u = (isClamped ? Math.min(Math.max(up.z, -limit), limit) : up.z) + (isOai ? 1 : 0);
        values[at] = a * u;
        bounds[at] = slope(gate.z) * gate.bound * Math.abs(u) + Math.abs(a) * up.bound + 1e-5 * Math.abs(a * u) + 1e-6;
      }
    }
  }
  return {values, bounds};
}
