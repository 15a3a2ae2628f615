/** MoeExpertsDownBackprop on the host, a slot at a time. The dot product with the activation is double. */
import {MoeExpertsDownBackprop} from '../../contract/kernel_names';
import {gateColumns, hostActivation} from '../moe_grouped_mat_mul/activations';
import {hostKernel} from '../shared/host_kernel';

export const moeExpertsDownBackpropCpu = hostKernel(
  MoeExpertsDownBackprop,
  ({g, z, topkWeights, invPermutedIdx, expertFirstTokenOffset}, attrs) => {
    const [numRows, numColumns] = z.shape;
    const numOutputs = g.shape[1];
    const {value, derivative, gatedValue, gatedDerivatives} = hostActivation(attrs);
    const {gateStep, upStep} = gateColumns(attrs, numOutputs);
    const limit = Math.min(numRows, expertFirstTokenOffset.values[expertFirstTokenOffset.values.length - 1]);
    const dz = new Float32Array(numRows * numColumns);
    const dTopkWeights = new Float32Array(topkWeights.values.length);
    for (let slot = 0; slot < dTopkWeights.length; slot++) {
      const row = invPermutedIdx.values[slot];
      if (row < 0 || row >= limit) {
        continue;
      }
      const weight = topkWeights.values[slot];
      let dot = 0;
      for (let o = 0; o < numOutputs; o++) {
        const dOut = g.values[row * numOutputs + o];
        const gate = row * numColumns + (attrs.gated ? o * gateStep : o);
        const up = gate + upStep;
        if (attrs.gated) {
          const [byGate, byUp] = gatedDerivatives(z.values[gate], z.values[up]);
          dz[gate] = weight * dOut * byGate;
          dz[up] = weight * dOut * byUp;
          dot += dOut * gatedValue(z.values[gate], z.values[up]);
        } else {
          dz[gate] = weight * dOut * derivative(z.values[gate]);
          dot += dOut * value(z.values[gate]);
        }
      }
      dTopkWeights[slot] = dot;
    }
    return {
      dz: {values: dz, shape: [numRows, numColumns]},
      dTopkWeights: {values: dTopkWeights, shape: topkWeights.shape},
    };
  },
);
