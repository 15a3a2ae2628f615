/** MoeSum on the host: out[t] = ((x[t,0] + x[t,1]) + x[t,2]) + … in float32, from +0. */
import {MoeSum} from '../../kernel_names';
import {hostKernel} from '../shared/host_kernel';

export const moeSumCpu = hostKernel(MoeSum, ({x}) => {
  const [numTokens, topk, hiddenSize] = x.shape;
  const out = new Float32Array(numTokens * hiddenSize);
  for (let slot = 0; slot < numTokens * topk; slot++) {
    const from = slot * hiddenSize;
    const to = Math.floor(slot / topk) * hiddenSize;
    for (let h = 0; h < hiddenSize; h++) {
      out[to + h] += x.values[from + h];
    }
  }
  return [{values: out, shape: [numTokens, hiddenSize]}];
});
