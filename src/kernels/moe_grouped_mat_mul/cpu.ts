/**
 * MoeGroupedMatMul and its gradients on the host. Rows go 4 at a time, so that an expert's weights are read once for
 * them; sums are double.
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
import {columnsOf, type Part, partsOf} from '../../contract/expert_weights';

const ROWS_AT_ONCE = 4;

/** Rows of one expert, cut to those that there are: an offset may be anything. */
function rowsOf(offset: HostArray, expert: number, numRows: number): {first: number; end: number} {
  const first = Math.min(Math.max(offset[expert], 0), numRows);
  return {first, end: Math.min(Math.max(offset[expert + 1], first), numRows)};
}

export const moeGroupedMatMulCpu = hostKernel(MoeGroupedMatMul, (inputs, attrs) => {
  const {x, expertFirstTokenOffset, bias} = inputs;
  const [numRows] = x.shape;
  const parts = partsOf<HostTensor>(inputs, attrs);
  const {numColumns, numOutputs} = columnsOf(parts[0].weights, attrs);
  const out = new Float32Array(numRows * numOutputs);
  const z = new Float64Array(ROWS_AT_ONCE * numColumns);
  const finish = finisher(attrs, numOutputs);
  for (const part of parts) {
    for (let e = 0; e < part.numExperts; e++) {
      const expert = part.firstExpert + e;
      const {first, end} = rowsOf(expertFirstTokenOffset.values, expert, numRows);
      for (let row = first; row < end; row += ROWS_AT_ONCE) {
        const count = Math.min(ROWS_AT_ONCE, end - row);
        for (let i = 0; i < count; i++) {
          for (let d = 0; d < numColumns; d++) {
            z[i * numColumns + d] = bias == null ? 0 : bias.values[expert * numColumns + d];
          }
        }
        (attrs.weightFormat === 'outIn' ? addDotProducts : addScaledRows)(z, x, row, count, part, e, numColumns);
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
  {values}: HostTensor,
  expert: number,
  numColumns: number,
): void {
  const numIn = x.shape[1];
  const ofRow = x.values.subarray(row * numIn, (row + 1) * numIn);
  for (let d = 0; d < numColumns; d += 4) {
    // Columns that do not exist are the last one again. Their sums are not kept.
    const [from0, from1, from2, from3] = [0, 1, 2, 3].map(
      (i) => (expert * numColumns + Math.min(d + i, numColumns - 1)) * numIn,
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

/** 'outIn': a row of weights for each column of z. */
function addDotProducts(
  z: Float64Array,
  x: HostTensor,
  row: number,
  count: number,
  {weights}: Part<HostTensor>,
  expert: number,
  numColumns: number,
): void {
  if (count === 1) {
    addDotProductsOfRow(z, x, row, weights, expert, numColumns);
    return;
  }
  const numIn = x.shape[1];
  // Rows that are not there are the last one again, their sums not kept.
  const [from0, from1, from2, from3] = [0, 1, 2, 3].map((i) => (row + Math.min(i, count - 1)) * numIn);
  for (let d = 0; d < numColumns; d++) {
    const from = (expert * numColumns + d) * numIn;
    let sum0 = 0;
    let sum1 = 0;
    let sum2 = 0;
    let sum3 = 0;
    for (let c = 0; c < numIn; c++) {
      const weight = weights.values[from + c];
      sum0 += weight * x.values[from0 + c];
      sum1 += weight * x.values[from1 + c];
      sum2 += weight * x.values[from2 + c];
      sum3 += weight * x.values[from3 + c];
    }
    z[d] += sum0;
    if (count > 1) {
      z[numColumns + d] += sum1;
    }
    if (count > 2) {
      z[2 * numColumns + d] += sum2;
    }
    if (count > 3) {
      z[3 * numColumns + d] += sum3;
    }
  }
}

/** 'inOut': a row of weights for each column of x. */
function addScaledRows(
  z: Float64Array,
  x: HostTensor,
  row: number,
  count: number,
  {weights}: Part<HostTensor>,
  expert: number,
  numColumns: number,
): void {
  const numIn = x.shape[1];
  for (let c = 0; c < numIn; c++) {
    const from = (expert * numIn + c) * numColumns;
    for (let i = 0; i < count; i++) {
      const scale = x.values[(row + i) * numIn + c];
      const to = i * numColumns;
      for (let d = 0; d < numColumns; d++) {
        z[to + d] += scale * weights.values[from + d];
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
