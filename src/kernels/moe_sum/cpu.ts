/**
 * MoeSum on the host: out[t] = ((x[t,0] + x[t,1]) + x[t,2]) + … from +0 in float32. More than 64 are summed in double,
 * lest the error grow with their number.
 */
import {MoeSum} from '../../contract/kernel_names';
import {hostKernel} from '../shared/host_kernel';
import {ONE_CHAIN_TERMS} from '../shared/long_sums';

export const moeSumCpu = hostKernel(MoeSum, ({x}) => {
  const [numTokens, topk, hiddenSize] = x.shape;
  const out = new Float32Array(numTokens * hiddenSize);
  const doubles = topk > ONE_CHAIN_TERMS ? new Float64Array(hiddenSize) : undefined;
  for (let token = 0; token < numTokens; token++) {
    const ofToken = out.subarray(token * hiddenSize, (token + 1) * hiddenSize);
    const sums = doubles?.fill(0) ?? ofToken;
    for (let k = 0; k < topk; k++) {
      const from = (token * topk + k) * hiddenSize;
      for (let h = 0; h < hiddenSize; h++) {
        sums[h] += x.values[from + h];
      }
    }
    if (doubles != null) {
      ofToken.set(doubles);
    }
  }
  return {out: {values: out, shape: [numTokens, hiddenSize]}};
});
