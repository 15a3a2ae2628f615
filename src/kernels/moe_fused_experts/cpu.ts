/**
 * MoeFusedExperts on the host, a slot at a time: the products of its expert with the token, then with the result. Sums
 * are double.
 */
import {columnsOf, type FusedProduct, fusedProducts} from '../../contract/expert_weights';
import {MoeFusedExperts, type MoeFusedExpertsAttrs} from '../../contract/kernel_names';
import {gateColumns, hostActivation} from '../moe_grouped_mat_mul/activations';
import {hostKernel, type HostTensor} from '../shared/host_kernel';
import {weightRows} from '../weight_formats/host';

export const moeFusedExpertsCpu = hostKernel(MoeFusedExperts, (inputs, attrs) => {
  const {x, topkWeights, topkIds, expertMap, w1} = inputs;
  const [numTokens, hiddenSize] = x.shape;
  const [, topk] = topkIds.shape;
  const {first, second} = fusedProducts<HostTensor>(inputs, attrs);
  const {numColumns, numOutputs} = columnsOf(w1, first.attrs);
  const multiplyFirst = multiplier(first, hiddenSize, numColumns);
  const multiplySecond = multiplier(second, numOutputs, hiddenSize);
  const z = new Float64Array(numColumns);
  const hidden = new Float32Array(numOutputs);
  const y = new Float64Array(hiddenSize);
  const sums = new Float64Array(numTokens * hiddenSize);
  for (let slot = 0; slot < numTokens * topk; slot++) {
    const expert = localExpert(topkIds.values[slot], w1.shape[0], expertMap);
    if (expert < 0) {
      continue;
    }
    const token = Math.floor(slot / topk);
    multiplyFirst(z, expert, x.values.subarray(token * hiddenSize, (token + 1) * hiddenSize));
    activate(hidden, z, attrs);
    multiplySecond(y, expert, hidden);
    for (let h = 0; h < hiddenSize; h++) {
      sums[token * hiddenSize + h] += topkWeights.values[slot] * y[h];
    }
  }
  return {out: {values: Float32Array.from(sums), shape: [numTokens, hiddenSize]}};
});

/** -1 for an id whose expert is not here. */
function localExpert(id: number, numLocalExperts: number, expertMap: HostTensor | undefined): number {
  const numExperts = expertMap?.shape[0] ?? numLocalExperts;
  const expert = id >= 0 && id < numExperts ? (expertMap?.values[id] ?? id) : -1;
  return expert < numLocalExperts ? expert : -1;
}

/** z = weights[expert] . x + bias[expert] */
function multiplier(
  {bias, attrs: {weightFormat, encoding}, ...tensors}: FusedProduct<HostTensor>,
  numIn: number,
  numColumns: number,
): (z: Float64Array, expert: number, x: ArrayLike<number>) => void {
  const isOutIn = weightFormat === 'outIn';
  const rows = weightRows(tensors, encoding, isOutIn ? numIn : numColumns, 1);
  const {values} = rows;
  return (z, expert, x) => {
    z.fill(0);
    for (let d = 0; isOutIn && d < numColumns; d++) {
      const from = rows.load(expert * numColumns + d, 0);
      let sum = 0;
      for (let c = 0; c < numIn; c++) {
        sum += values[from + c] * x[c];
      }
      z[d] = sum;
    }
    for (let c = 0; !isOutIn && c < numIn; c++) {
      const from = rows.load(expert * numIn + c, 0);
      for (let d = 0; d < numColumns; d++) {
        z[d] += values[from + d] * x[c];
      }
    }
    for (let d = 0; bias != null && d < numColumns; d++) {
      z[d] += bias.values[expert * numColumns + d];
    }
  };
}

function activate(out: Float32Array, z: Float64Array, attrs: MoeFusedExpertsAttrs): void {
  const {value, gatedValue} = hostActivation(attrs);
  const {gateStep, upStep} = gateColumns(attrs, out.length);
  for (let o = 0; o < out.length; o++) {
    out[o] = attrs.gated ? gatedValue(z[o * gateStep], z[o * gateStep + upStep]) : value(z[o]);
  }
}
