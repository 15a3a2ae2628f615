/**
 * The results for NaN, infinities and the largest and smallest numbers: each activation and its first two derivatives
 * by formulas in float64, whose special values are those of tfjs's core ops on the host.
 */
import type {MoeKernelActivation} from '../../src/contract/kernel_names';
import type {Tensor} from '../../src/tf';
import {erf} from '../naive/grouped_mat_mul';

export const SPECIAL_VALUES = [
  NaN, Infinity, -Infinity, 1e20, -1e20, 1e38, -1e38, 3.4028234663852886e38, -3.4028234663852886e38, 88, -88, 100, -100,
  0, -0, -1e-40, 1, -1,
].map(Math.fround);

const [none, inf] = [-Infinity, Infinity];
/** Logits of tokens for 4 experts. */
export const SPECIAL_LOGITS = [
  [NaN, 1, 2, 0.5], [NaN, 1, none, none], [NaN, none, none, none], [NaN, NaN, NaN, NaN],
  [inf, 1, 2, 0], [inf, inf, 1, none], [inf, NaN, 1, 0], [none, 1, 2, none], [none, none, 0, none], [none, none, none, none],
  [-100, -101, -150, -90], [1e38, -1e38, 0, 3e38], [1e20, 1e20, -1e20, 0], [-88, -89, -1e20, -1e38],
  [-1e38, -1e38, -1e38, -1e38], [1e-40, -1e-40, 0, -0],
].map((row) => row.map(Math.fround));

type Scalar = (x: number, alpha: number) => number;
const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
const density = (x: number) => Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);
const distribution = (x: number) => 0.5 * (1 + erf(x / Math.SQRT2));
/** tf.step, which is NaN for NaN. */
const step = (x: number) => (Number.isNaN(x) ? NaN : Number(x > 0));

/** u = sqrt(2 / pi) * (x + 0.044715 x^3), its derivatives, and tanh(u) with its first. */
function tanhForm(x: number) {
  const scale = Math.sqrt(2 / Math.PI);
  const t = Math.tanh(scale * (x + 0.044715 * x ** 3));
  return {t, dt: Math.cosh(scale * (x + 0.044715 * x ** 3)) ** -2, du: scale * (1 + 3 * 0.044715 * x * x), d2u: scale * 6 * 0.044715 * x};
}

export const activationForms: Record<MoeKernelActivation, {value: Scalar; derivative: Scalar; second: Scalar}> = {
  linear: {value: (x) => x, derivative: () => 1, second: () => 0},
  // tf.step has the gradient 0, also for NaN.
  relu: {value: (x) => Math.max(x, 0), derivative: step, second: () => 0},
  relu2: {
    // In float32, like each op of tfjs: an overflow is Infinity before it meets another factor.
    value: (x) => Math.fround(Math.max(x, 0) ** 2),
    derivative: (x) => Math.fround(2 * Math.max(x, 0)),
    second: (x) => 2 * step(x),
  },
  silu: {
    value: (x) => x * sigmoid(x),
    derivative: (x) => sigmoid(x) + x * sigmoid(x) * (1 - sigmoid(x)),
    second: (x) => sigmoid(x) * (1 - sigmoid(x)) * (2 + x * (1 - 2 * sigmoid(x))),
  },
  gelu: {
    value: (x) => x * distribution(x),
    derivative: (x) => distribution(x) + x * density(x),
    second: (x) => density(x) * (2 - x * x),
  },
  geluTanh: {
    value: (x) => 0.5 * x * (1 + tanhForm(x).t),
    derivative: (x) => {
      const {t, dt, du} = tanhForm(x);
      return 0.5 * (1 + t) + 0.5 * x * dt * du;
    },
    second: (x) => {
      const {t, dt, du, d2u} = tanhForm(x);
      return dt * du + 0.5 * x * dt * (d2u - 2 * t * du * du);
    },
  },
  swigluOai: {
    value: (x, alpha) => x * sigmoid(alpha * x),
    derivative: (x, alpha) => sigmoid(alpha * x) + alpha * x * sigmoid(alpha * x) * (1 - sigmoid(alpha * x)),
    second: (x, alpha) => {
      const s = sigmoid(alpha * x);
      return alpha * s * (1 - s) * (2 + alpha * x * (1 - 2 * s));
    },
  },
};

/** y = a(gate) * up, its derivatives to gate and up, and the derivatives of v . (dGate, dUp) to gate and up. */
export function gatedForms(activation: MoeKernelActivation, alpha: number, limit: number) {
  const isClamped = activation === 'swigluOai' || (activation === 'silu' && limit < Infinity);
  const shift = activation === 'swigluOai' ? 1 : 0;
  const {value, derivative, second} = activationForms[activation];
  /** 1 inside the clamp, 0 outside, NaN for NaN. */
  const inside = (x: number) => (isClamped ? 1 - step(x - limit) : 1);
  const parts = (gate: number, up: number) => {
    const clamped = isClamped ? Math.min(gate, limit) : gate;
    return {
      a: value(clamped, alpha),
      da: inside(gate) * derivative(clamped, alpha),
      // A linear function has no second derivative that an infinite factor could meet.
      d2a: activation === 'linear' || activation === 'relu' ? undefined : inside(gate) * second(clamped, alpha),
      factor: isClamped ? Math.min(Math.max(up, -limit), limit) + shift : up,
      dFactor: inside(Math.abs(up)),
    };
  };
  return {
    value: (gate: number, up: number) => parts(gate, up).a * parts(gate, up).factor,
    derivatives: (gate: number, up: number): [number, number] => {
      const {a, da, factor, dFactor} = parts(gate, up);
      return [da * factor, dFactor * a];
    },
    second: (gate: number, up: number, [vGate, vUp]: [number, number]): [number, number] => {
      const {da, d2a, factor, dFactor} = parts(gate, up);
      const byGate = d2a == null ? 0 : vGate * d2a * factor;
      return [byGate + vUp * dFactor * da, vGate * da * dFactor];
    },
  };
}

/** NaN and infinities exactly, finite values as closely as the contract says; `inputs` names each element. */
export async function expectSpecial(
  actual: Tensor,
  wanted: number[],
  inputs: unknown[],
  what: string,
  tolerance = 1e-6,
): Promise<void> {
  const given = Array.from(await actual.data());
  expect(given.length).withContext(what).toBe(wanted.length);
  const wrong = wanted.flatMap((value, i) => {
    const float = Math.fround(value);
    const isRight =
      Object.is(given[i], float) || Math.abs(given[i] - float) <= 2e-5 * Math.abs(float) + tolerance;
    return isRight && Number.isFinite(given[i]) === Number.isFinite(float)
      ? []
      : [`of ${String(inputs[i])}: ${given[i]}, wanted ${float}`];
  });
  expect(wrong).withContext(what).toEqual([]);
}
