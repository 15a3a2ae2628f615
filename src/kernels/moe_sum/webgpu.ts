/** MoeSum on WebGPU: 1 launch, a thread sums the K values of one element of the result, in slot order. */
import {MoeSum} from '../../contract/kernel_names';
import {chainTermsOf, LONG_SUM_UNIFORMS, longSumWgsl} from '../shared/long_sums';
import {assertBindable, chunkOf, entryPoint, newTensor, runWgsl, webgpuKernel, WORKGROUP_SIZE} from '../shared/webgpu';

export const moeSumWebGPU = webgpuKernel(MoeSum, (backend, {x}) => {
  const [numTokens, topk, hiddenSize] = x.shape;
  assertBindable(backend, MoeSum, {x: x.shape});
  const out = newTensor(backend, [numTokens, hiddenSize], 'float32');
  if (numTokens === 0) {
    return {out};
  }
  const {type, rowChunks} = chunkOf(hiddenSize);
  runWgsl(backend, {
    name: 'MoeSum',
    buffers: [
      {name: 'out', type, access: 'read_write', tensor: out},
      {name: 'x', type, access: 'read', tensor: x},
    ],
    uniforms: {size: numTokens * rowChunks, topk, rowChunks, chainTerms: chainTermsOf(topk), ...LONG_SUM_UNIFORMS},
    numWorkgroups: Math.ceil((numTokens * rowChunks) / WORKGROUP_SIZE),
    code: () => `
      ${longSumWgsl(type)}
      ${entryPoint(`
        let i = group * ${WORKGROUP_SIZE} + thread;
        if (i >= uniforms.size) { return; }
        let token = i / uniforms.rowChunks;
        let column = i % uniforms.rowChunks;
        var sum = LongSum();
        for (var first = 0u; first < uniforms.topk; first += uniforms.chainTerms) {
          var chain = ${type}();
          for (var k = first; k < min(first + uniforms.chainTerms, uniforms.topk); k++) {
            chain += x[(token * uniforms.topk + k) * uniforms.rowChunks + column];
          }
          sum = addChain(sum, chain);
        }
        out[i] = sum.value;`)}`,
  });
  return {out};
});
