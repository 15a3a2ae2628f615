/**
 * Experts in float64 with errors: the grouped matmul, activations and gates, and their gradients. Each row has an
 * expert; -1 is no expert.
 */
import type {MoeActivation, MoeGateUp, MoeWeightFormat} from '../../src/tf';
import {erf} from '../naive/grouped_mat_mul';
import {type Bounded, exact, MAX_FLOAT32, Sum, type Tolerance, zeros} from './bounded';

export type MatMul = {
  numIn: number;
  numColumns: number;
  weightFormat: MoeWeightFormat;
  /** [L, columns, in], or [L, in, columns]. */
  weights: ArrayLike<number>;
  /** [L, columns] */
  bias?: ArrayLike<number>;
};

export const FORWARD: Tolerance = {relative: 1e-5, absolute: 1e-6};
export const BACKWARD: Tolerance = {relative: 64 * 2 ** -24, absolute: 0};

const weightAt = ({numIn, numColumns, weightFormat}: MatMul, expert: number, column: number, c: number) =>
  weightFormat === 'inOut' ? (expert * numIn + c) * numColumns + column : (expert * numColumns + column) * numIn + c;

/** [R, in] to [R, columns]; 0 in rows of no expert. */
export function matMul(x: Bounded, expertOfRow: number[], product: MatMul): Bounded {
  const {numIn, numColumns, weights, bias} = product;
  const z = zeros(expertOfRow.length * numColumns);
  expertOfRow.forEach((expert, row) => {
    for (let column = 0; expert >= 0 && column < numColumns; column++) {
      const sum = new Sum();
      if (bias != null) {
        sum.add(bias[expert * numColumns + column]);
      }
      for (let c = 0; c < numIn; c++) {
        const at = row * numIn + c;
        sum.add(weights[weightAt(product, expert, column, c)], x.values[at], 0, x.errors[at]);
      }
      sum.to(z, row * numColumns + column, FORWARD);
    }
  });
  return z;
}

/** The gradients of `dz` to x, the weights and the bias. */
export function matMulGradients(
  x: Bounded,
  dz: Bounded,
  expertOfRow: number[],
  product: MatMul,
): {dx: Bounded; dWeights: Bounded; dBias: Bounded} {
  const {numIn, numColumns, weights} = product;
  const numExperts = weights.length / (numIn * numColumns);
  const sums = (length: number) => Array.from({length}, () => new Sum());
  const ofWeights = sums(weights.length);
  const ofBias = sums(numExperts * numColumns);
  const dx = zeros(x.values.length);
  expertOfRow.forEach((expert, row) => {
    if (expert < 0) {
      return;
    }
    for (let c = 0; c < numIn; c++) {
      const ofRow = new Sum();
      const at = row * numIn + c;
      for (let column = 0; column < numColumns; column++) {
        const from = row * numColumns + column;
        const weight = weightAt(product, expert, column, c);
        ofRow.add(weights[weight], dz.values[from], 0, dz.errors[from]);
        ofWeights[weight].add(x.values[at], dz.values[from], x.errors[at], dz.errors[from]);
      }
      ofRow.to(dx, at, BACKWARD);
    }
    for (let column = 0; column < numColumns; column++) {
      const from = row * numColumns + column;
      ofBias[expert * numColumns + column].add(dz.values[from], 1, dz.errors[from]);
    }
  });
  return {dx, dWeights: totals(ofWeights), dBias: totals(ofBias)};
}

function totals(sums: Sum[]): Bounded {
  const bounded = zeros(sums.length);
  sums.forEach((sum, i) => sum.to(bounded, i, BACKWARD));
  return bounded;
}

export type ActivationDraw = {
  activation: MoeActivation | undefined;
  gated: boolean;
  gateUp: MoeGateUp | undefined;
  swigluAlpha: number | undefined;
  swigluLimit: number | undefined;
};

type Activation = {
  value: (x: number) => number;
  slope: (x: number) => number;
  /** The largest second derivative. */
  curvature: number;
};

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
const step = (x: number) => (x > 0 ? 1 : x <= 0 ? 0 : NaN);
const timesSigmoid = (alpha: number): Activation => ({
  value: (x) => x * sigmoid(alpha * x),
  slope: (x) => sigmoid(alpha * x) * (1 + alpha * x * sigmoid(-alpha * x)),
  curvature: 0.5 * alpha,
});
const density = (x: number) => Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);
const gelu: Activation = {
  value: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  slope: (x) => 0.5 * (1 + erf(x / Math.SQRT2)) + x * density(x),
  curvature: 0.8,
};
const geluTanh: Activation = {
  value: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  slope: (x) => {
    if (!Number.isFinite(x)) {
      return NaN;
    }
    // Past 20 in magnitude the result is 0 or 1 to the last bit of float64, and the cube may overflow.
    const near = Math.min(Math.max(x, -20), 20);
    const tanh = Math.tanh(Math.sqrt(2 / Math.PI) * (near + 0.044715 * near ** 3));
    return 0.5 * (1 + tanh) + 0.5 * near * (1 - tanh ** 2) * Math.sqrt(2 / Math.PI) * (1 + 3 * 0.044715 * near ** 2);
  },
  curvature: 1,
};

function activationOf({activation, swigluAlpha}: ActivationDraw, otherwise: MoeActivation): Activation {
  const name = activation ?? otherwise;
  switch (name) {
    case 'linear':
      return {value: (x) => x, slope: () => 1, curvature: 0};
    case 'relu':
      return {value: (x) => Math.max(x, 0), slope: (x) => step(x), curvature: 0};
    case 'relu2':
      return {value: (x) => Math.max(x, 0) ** 2, slope: (x) => 2 * Math.max(x, 0), curvature: 2};
    case 'silu':
    case 'swish':
      return timesSigmoid(1);
    case 'gelu':
      return gelu;
    case 'geluTanh':
    case 'geluNew':
      return geluTanh;
    case 'swigluOai':
      return timesSigmoid(swigluAlpha ?? 1.702);
  }
}

/** A number with its error. */
type Applied = {value: number; error: number};

/** A function of a number with an error, by the function's slopes nearby. */
function valueAt({value, slope, curvature}: Activation, x: number, error: number): Applied {
  const result = value(x);
  if (!Number.isFinite(x)) {
    return {value: result, error};
  }
  const steepest = Math.max(...[x - error, x, x + error].map((near) => Math.abs(slope(near))));
  // A function that is 0 far below has an error by x, not by its own size.
  const rounding = 1e-5 * Math.abs(result) + (Math.abs(x) > 10 ? 0 : 1e-7 * Math.abs(x)) + 1e-37;
  const all = steepest * error + curvature * error ** 2 + rounding;
  return {value: result, error: Math.abs(result) + all > MAX_FLOAT32 ? Infinity : all};
}

function slopeAt({slope, curvature}: Activation, x: number, error: number): Applied {
  if (!Number.isFinite(x)) {
    return {value: slope(x), error};
  }
  const jump = Math.abs(slope(x + error) - slope(x - error));
  const all = jump + curvature * error + 1e-5 * Math.abs(slope(x)) + 1e-6;
  return {value: slope(x), error: Math.abs(slope(x)) + all > MAX_FLOAT32 ? Infinity : all};
}

const clamped = (x: number, low: number, high: number) => Math.min(Math.max(x, low), high);
/** 1 if x is inside, NaN if x is NaN; any value if the error of x reaches both sides. */
function isInside(x: number, error: number, low: number, high: number): Applied {
  const inside = (near: number) => (near >= low && near <= high ? 1 : 0);
  if (Number.isNaN(x)) {
    return {value: NaN, error};
  }
  const isDecided = !Number.isFinite(x) || inside(x - error) === inside(x + error);
  return {value: inside(x), error: isDecided && !Number.isNaN(error) ? 0 : Infinity};
}

const plus = ({value, error}: Applied, by: number): Applied => ({value: value + by, error: error + 1e-7 * Math.abs(value + by)});

/** The columns of gate and up of output o. */
const columnsOf = (o: number, numOutputs: number, interleaved: boolean) =>
  interleaved ? {gate: 2 * o, up: 2 * o + 1} : {gate: o, up: numOutputs + o};

type Gates = {
  /** activation(gate) and its derivative, then the other factor and its derivative. */
  act: Applied;
  dAct: Applied;
  factor: Applied;
  dFactor: Applied;
};

function gatesOf(draw: ActivationDraw, otherwise: MoeActivation, gate: Applied, up: Applied): Gates {
  const activation = activationOf(draw, otherwise);
  const name = draw.activation ?? otherwise;
  const isOai = name === 'swigluOai';
  if (!isOai && !((name === 'silu' || name === 'swish') && draw.swigluLimit != null)) {
    return {
      act: valueAt(activation, gate.value, gate.error),
      dAct: slopeAt(activation, gate.value, gate.error),
      factor: up,
      dFactor: {value: 1, error: 0},
    };
  }
  const limit = draw.swigluLimit ?? 7;
  const clampedGate = Math.min(gate.value, limit);
  const slope = slopeAt(activation, clampedGate, gate.error);
  const insideGate = isInside(gate.value, gate.error, -Infinity, limit);
  return {
    act: valueAt(activation, clampedGate, gate.error),
    dAct: times(slope, insideGate),
    factor: plus({value: clamped(up.value, -limit, limit), error: up.error}, isOai ? 1 : 0),
    dFactor: isInside(up.value, up.error, -limit, limit),
  };
}

function times(...factors: Applied[]): Applied {
  return factors.reduce((product, factor) => {
    const sum = zeros(1);
    new Sum().add(product.value, factor.value, product.error, factor.error).to(sum, 0, {relative: 1e-6, absolute: 0});
    return {value: sum.values[0], error: sum.errors[0]};
  });
}

const at = ({values, errors}: Bounded, i: number): Applied => ({value: values[i], error: errors[i]});
function put(to: Bounded, i: number, {value, error}: Applied): void {
  to.values[i] = value;
  to.errors[i] = error;
}

const isInterleaved = ({gateUp, activation}: ActivationDraw) =>
  gateUp === 'interleaved' || (gateUp == null && activation === 'swigluOai');

/** [R, columns] to [R, columns], or to half as many columns if gated; 0 in rows of no expert. */
export function activate(z: Bounded, expertOfRow: number[], draw: ActivationDraw, otherwise: MoeActivation): Bounded {
  const numColumns = z.values.length / Math.max(1, expertOfRow.length);
  const numOutputs = draw.gated ? numColumns / 2 : numColumns;
  const h = zeros(expertOfRow.length * numOutputs);
  expertOfRow.forEach((expert, row) => {
    for (let o = 0; expert >= 0 && o < numOutputs; o++) {
      if (draw.gated) {
        const columns = columnsOf(o, numOutputs, isInterleaved(draw));
        const [gate, up] = [at(z, row * numColumns + columns.gate), at(z, row * numColumns + columns.up)];
        const {act, factor} = gatesOf(draw, otherwise, gate, up);
        put(h, row * numOutputs + o, times(act, factor));
      } else {
        const {value, error} = at(z, row * numColumns + o);
        put(h, row * numOutputs + o, valueAt(activationOf(draw, otherwise), value, error));
      }
    }
  });
  return h;
}

/** The gradient of `dh` to z. */
export function activateGradient(
  z: Bounded,
  dh: Bounded,
  expertOfRow: number[],
  draw: ActivationDraw,
  otherwise: MoeActivation,
): Bounded {
  const numColumns = z.values.length / Math.max(1, expertOfRow.length);
  const numOutputs = draw.gated ? numColumns / 2 : numColumns;
  const dz = zeros(z.values.length);
  expertOfRow.forEach((expert, row) => {
    for (let o = 0; expert >= 0 && o < numOutputs; o++) {
      const dy = at(dh, row * numOutputs + o);
      if (draw.gated) {
        const columns = columnsOf(o, numOutputs, isInterleaved(draw));
        const [gate, up] = [row * numColumns + columns.gate, row * numColumns + columns.up];
        const {act, dAct, factor, dFactor} = gatesOf(draw, otherwise, at(z, gate), at(z, up));
        put(dz, gate, times(dAct, factor, dy));
        put(dz, up, times(act, dFactor, dy));
      } else {
        const {value, error} = at(z, row * numColumns + o);
        put(dz, row * numColumns + o, times(slopeAt(activationOf(draw, otherwise), value, error), dy));
      }
    }
  });
  return dz;
}


export const EXACT: Tolerance = {relative: 2 ** -24, absolute: 0};

/** Each row times its own factor. */
export function scaleRows(rows: Bounded, rowSize: number, factors: Bounded, tolerance: Tolerance): Bounded {
  const scaled = zeros(rows.values.length);
  rows.values.forEach((value, at) => {
    const row = Math.floor(at / rowSize);
    new Sum().add(value, factors.values[row], rows.errors[at], factors.errors[row]).to(scaled, at, tolerance);
  });
  return scaled;
}

/** The dot products of rows with rows. */
export function dotRows(a: Bounded, b: Bounded, rowSize: number): Bounded {
  const dots = zeros(a.values.length / rowSize);
  dots.values.forEach((_, row) => {
    const sum = new Sum();
    for (let at = row * rowSize; at < (row + 1) * rowSize; at++) {
      sum.add(a.values[at], b.values[at], a.errors[at], b.errors[at]);
    }
    sum.to(dots, row, BACKWARD);
  });
  return dots;
}

/** A pair of matmuls with an activation between them: values and gradients. */
export type FeedForward = {first: MatMul; second: MatMul; activation: ActivationDraw};

export type FeedForwardGradients = Record<'dx' | 'dW1' | 'dW1Bias' | 'dW2' | 'dW2Bias' | 'dFactors', Bounded>;

/** hidden . g + bias . dOutputs of each row; 0 of no expert. */
function gradientOfFactors(
  hidden: Bounded,
  g: Bounded,
  dOutputs: Bounded,
  expertOfRow: number[],
  {numIn, numColumns, bias}: MatMul,
): Bounded {
  const dFactors = zeros(expertOfRow.length);
  expertOfRow.forEach((expert, row) => {
    const sum = new Sum();
    for (let i = row * numIn; expert >= 0 && i < (row + 1) * numIn; i++) {
      sum.add(hidden.values[i], g.values[i], hidden.errors[i], g.errors[i]);
    }
    for (let column = 0; bias != null && expert >= 0 && column < numColumns; column++) {
      const i = row * numColumns + column;
      sum.add(bias[expert * numColumns + column], dOutputs.values[i], 0, dOutputs.errors[i]);
    }
    sum.to(dFactors, row, BACKWARD);
  });
  return dFactors;
}

export function feedForward(
  x: Bounded,
  expertOfRow: number[],
  {first, second, activation}: FeedForward,
): {outputs: Bounded; backward: (dOutputs: Bounded, factors?: Bounded) => FeedForwardGradients} {
  const z = matMul(x, expertOfRow, first);
  const hidden = activate(z, expertOfRow, activation, 'silu');
  const outputs = matMul(hidden, expertOfRow, second);
  return {
    outputs,
    // dOutputs are of the outputs times a factor for each row; 1 without factors.
    backward: (dOutputs, factors = exact(expertOfRow.map(() => 1))) => {
      const {dx: g} = matMulGradients(hidden, dOutputs, expertOfRow, second);
      const scaled = scaleRows(dOutputs, second.numColumns, factors, EXACT);
      const ofSecond = matMulGradients(hidden, scaled, expertOfRow, second);
      const dz = activateGradient(z, scaleRows(g, second.numIn, factors, EXACT), expertOfRow, activation, 'silu');
      const {dx, dWeights: dW1, dBias: dW1Bias} = matMulGradients(x, dz, expertOfRow, first);
      const dFactors = gradientOfFactors(hidden, g, dOutputs, expertOfRow, second);
      return {dx, dW1, dW1Bias, dW2: ofSecond.dWeights, dW2Bias: ofSecond.dBias, dFactors};
    },
  };
}

/** The sigmoid of each number, and its derivative. */
export function sigmoids({values, errors}: Bounded): {values: Bounded; slopes: Bounded} {
  const [result, slopes] = [zeros(values.length), zeros(values.length)];
  values.forEach((x, i) => {
    const [value, slope] = [sigmoid(x), sigmoid(x) * sigmoid(-x)];
    put(result, i, {value, error: 0.25 * errors[i] + 1e-5 * value + 1e-37});
    put(slopes, i, {value: slope, error: 0.1 * errors[i] + 1e-5 * slope + 1e-37});
  });
  return {values: result, slopes};
}
