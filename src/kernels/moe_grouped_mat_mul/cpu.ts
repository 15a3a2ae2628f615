/**
 * MoeGroupedMatMul and its gradients on the host. Rows go several at a time, so that an expert's weights are read once
 * for them; sums are double.
 *
 *   MoeGroupedMatMul                    z[r] = weights[e] . x[r] + bias[e], and its activation
 *   MoeActivate                         the activation of z
 *   MoeGroupedMatMulBackpropActivation  dz[r,d], from dy and z
 *   MoeGroupedMatMulBackpropWeights     out[e] = the sum of a[r] b[r]^T over the rows of e
 */
import {
  MoeActivate,
  type MoeActivationAttrs,
  MoeGroupedMatMul,
  MoeGroupedMatMulBackpropActivation,
  MoeGroupedMatMulBackpropWeights,
} from '../../contract/kernel_names';
import {gateColumns, hostActivation} from './activations';
import {type HostArray, hostKernel, type HostTensor} from '../shared/host_kernel';
import {columnsOf, partsOf} from '../../contract/expert_weights';
import {isQuantizedEncoding} from '../../contract/quantized_weights';
import {type WeightRows, weightRows} from '../weight_formats/host';

/** Rows for which weights are read once. To decode codes takes longer than to read floats. */
const ROWS_AT_ONCE = {floats: 4, codes: 64};
/** Rows of weights that are decoded at a time. */
const NUM_SLOTS = 4;

/** Rows of one expert, cut to those that there are: an offset may be anything. */
function rowsOf(offset: HostArray, expert: number, numRows: number): {first: number; end: number} {
  const first = Math.min(Math.max(offset[expert], 0), numRows);
  return {first, end: Math.min(Math.max(offset[expert + 1], first), numRows)};
}

export const moeGroupedMatMulCpu = hostKernel(MoeGroupedMatMul, (inputs, attrs) => {
  const {x, expertFirstTokenOffset, bias} = inputs;
  const [numRows, numIn] = x.shape;
  const parts = partsOf<HostTensor>(inputs, attrs);
  const {numColumns, numOutputs} = columnsOf(parts[0].weights, attrs);
  const isOutIn = attrs.weightFormat === 'outIn';
  const rowsAtOnce = isQuantizedEncoding(attrs.encoding) ? ROWS_AT_ONCE.codes : ROWS_AT_ONCE.floats;
  const out = new Float32Array(numRows * numOutputs);
  const z = new Float64Array(Math.min(rowsAtOnce, numRows) * numColumns);
  const finish = finisher(attrs, numOutputs);
  for (const part of parts) {
    const rows = weightRows(part, attrs.encoding, isOutIn ? numIn : numColumns, NUM_SLOTS);
    for (let e = 0; e < part.numExperts; e++) {
      const expert = part.firstExpert + e;
      const {first, end} = rowsOf(expertFirstTokenOffset.values, expert, numRows);
      for (let row = first; row < end; row += rowsAtOnce) {
        const count = Math.min(rowsAtOnce, end - row);
        for (let i = 0; i < count; i++) {
          for (let d = 0; d < numColumns; d++) {
            z[i * numColumns + d] = bias == null ? 0 : bias.values[expert * numColumns + d];
          }
        }
        (isOutIn ? addDotProducts : addScaledRows)(z, x, row, count, rows, e, numColumns);
        for (let i = 0; i < count; i++) {
          finish(out, (row + i) * numOutputs, z, i * numColumns);
        }
      }
    }
  }
  return {out: {values: out, shape: [numRows, numOutputs]}};
});

/** Writes the activation of a row of z. */
function finisher(
  attrs: MoeActivationAttrs,
  numOutputs: number,
): (out: Float32Array, to: number, z: ArrayLike<number>, from: number) => void {
  const {value, gatedValue} = hostActivation(attrs);
  const {gateStep, upStep} = gateColumns(attrs, numOutputs);
  return (out, to, z, from) => {
    for (let o = 0; o < numOutputs; o++) {
      const gate = from + o * gateStep;
      out[to + o] = attrs.gated ? gatedValue(z[gate], z[gate + upStep]) : value(z[from + o]);
    }
  };
}

/** 'outIn', for one row: four columns of z at a time, so that sums do not wait for each other. */
function addDotProductsOfRow(
  z: Float64Array,
  x: HostTensor,
  row: number,
  rows: WeightRows,
  expert: number,
  numColumns: number,
): void {
  const numIn = x.shape[1];
  const ofRow = x.values.subarray(row * numIn, (row + 1) * numIn);
  const {values} = rows;
  for (let d = 0; d < numColumns; d += 4) {
    // Columns that do not exist are the last one again. Their sums are not kept.
    const [from0, from1, from2, from3] = [0, 1, 2, 3].map((i) =>
      rows.load(expert * numColumns + Math.min(d + i, numColumns - 1), i),
    );
    let sum0 = 0;
    let sum1 = 0;
    let sum2 = 0;
    let sum3 = 0;
    for (let c = 0; c < numIn; c++) {
      const value = ofRow[c];
      sum0 += values[from0 + c] * value;
      sum1 += values[from1 + c] * value;
      sum2 += values[from2 + c] * value;
      sum3 += values[from3 + c] * value;
    }
    [sum0, sum1, sum2, sum3].forEach((sum, i) => {
      if (d + i < numColumns) {
        z[d + i] += sum;
      }
    });
  }
}

/** 'outIn': a row of weights for each column of z, four rows of x at a time. */
function addDotProducts(
  z: Float64Array,
  x: HostTensor,
  firstRow: number,
  count: number,
  rows: WeightRows,
  expert: number,
  numColumns: number,
): void {
  if (count === 1) {
    addDotProductsOfRow(z, x, firstRow, rows, expert, numColumns);
    return;
  }
  const numIn = x.shape[1];
  const {values} = rows;
  for (let d = 0; d < numColumns; d++) {
    const from = rows.load(expert * numColumns + d, 0);
    for (let i = 0; i < count; i += 4) {
      // Rows that are not there are the last one again, their sums not kept.
      const from0 = (firstRow + i) * numIn;
      const from1 = (firstRow + Math.min(i + 1, count - 1)) * numIn;
      const from2 = (firstRow + Math.min(i + 2, count - 1)) * numIn;
      const from3 = (firstRow + Math.min(i + 3, count - 1)) * numIn;
      let sum0 = 0;
      let sum1 = 0;
      let sum2 = 0;
      let sum3 = 0;
      for (let c = 0; c < numIn; c++) {
        const weight = values[from + c];
        sum0 += weight * x.values[from0 + c];
        sum1 += weight * x.values[from1 + c];
        sum2 += weight * x.values[from2 + c];
        sum3 += weight * x.values[from3 + c];
      }
      const to = i * numColumns + d;
      z[to] += sum0;
      if (count > i + 1) {
        z[to + numColumns] += sum1;
      }
      if (count > i + 2) {
        z[to + 2 * numColumns] += sum2;
      }
      if (count > i + 3) {
        z[to + 3 * numColumns] += sum3;
      }
    }
  }
}

/** 'inOut': a row of weights for each column of x. */
function addScaledRows(
  z: Float64Array,
  x: HostTensor,
  firstRow: number,
  count: number,
  rows: WeightRows,
  expert: number,
  numColumns: number,
): void {
  const numIn = x.shape[1];
  const {values} = rows;
  for (let c = 0; c < numIn; c++) {
    const from = rows.load(expert * numIn + c, 0);
    for (let i = 0; i < count; i++) {
      const scale = x.values[(firstRow + i) * numIn + c];
      const to = i * numColumns;
      for (let d = 0; d < numColumns; d++) {
        z[to + d] += scale * values[from + d];
      }
    }
  }
}

export const moeActivateCpu = hostKernel(MoeActivate, ({z}, attrs) => {
  const [numRows, numColumns] = z.shape;
  const numOutputs = attrs.gated ? numColumns / 2 : numColumns;
  const out = new Float32Array(numRows * numOutputs);
  const finish = finisher(attrs, numOutputs);
  for (let row = 0; row < numRows; row++) {
    finish(out, row * numOutputs, z.values, row * numColumns);
  }
  return {out: {values: out, shape: [numRows, numOutputs]}};
});

export const moeGroupedMatMulBackpropActivationCpu = hostKernel(
  MoeGroupedMatMulBackpropActivation,
  ({dy, z}, attrs) => {
    const [numRows, numColumns] = z.shape;
    const numOutputs = dy.shape[1];
    const {derivative, gatedDerivatives} = hostActivation(attrs);
    const {gateStep, upStep} = gateColumns(attrs, numOutputs);
    const dz = new Float32Array(numRows * numColumns);
    for (let row = 0; row < numRows; row++) {
      for (let o = 0; o < numOutputs; o++) {
        const dOut = dy.values[row * numOutputs + o];
        if (!attrs.gated) {
          const at = row * numColumns + o;
          dz[at] = dOut * derivative(z.values[at]);
          continue;
        }
        const gate = row * numColumns + o * gateStep;
        const [byGate, byUp] = gatedDerivatives(z.values[gate], z.values[gate + upStep]);
        dz[gate] = dOut * byGate;
        dz[gate + upStep] = dOut * byUp;
      }
    }
    return {dz: {values: dz, shape: [numRows, numColumns]}};
  },
);

export const moeGroupedMatMulBackpropWeightsCpu = hostKernel(
  MoeGroupedMatMulBackpropWeights,
  ({a, b, expertFirstTokenOffset}, {firstExpert, numExperts}) => {
    const [numRows, numA] = a.shape;
    const numB = b.shape[1];
    const out = new Float32Array(numExperts * numA * numB);
    const sums = new Float64Array(numB);
    for (let e = 0; e < numExperts; e++) {
      const {first, end} = rowsOf(expertFirstTokenOffset.values, firstExpert + e, numRows);
      for (let m = 0; m < numA && first < end; m++) {
        sums.fill(0);
        for (let row = first; row < end; row++) {
          const scale = a.values[row * numA + m];
          const from = row * numB;
          for (let n = 0; n < numB; n++) {
            sums[n] += scale * b.values[from + n];
          }
        }
        out.set(sums, (e * numA + m) * numB);
      }
    }
    return {dWeights: {values: out, shape: [numExperts, numA, numB]}};
  },
);
