/** MoeSum on WebGPU: 1 launch, a thread sums the K values of one element of the result, in slot order. */
import {MoeSum} from '../../kernel_names';
import {assertBindable, chunkOf, entryPoint, newTensor, runWgsl, webgpuKernel, WORKGROUP_SIZE} from '../shared/webgpu';

export const moeSumWebGPU = webgpuKernel(MoeSum, (backend, {x}) => {
  const [numTokens, topk, hiddenSize] = x.shape;
  assertBindable(backend, MoeSum, {x: x.shape});
  const out = newTensor(backend, [numTokens, hiddenSize], 'float32');
  if (numTokens === 0) {
    return [out];
  }
  const {type, rowChunks} = chunkOf(hiddenSize);
  runWgsl(backend, {
    name: 'MoeSum',
    buffers: [
      {name: 'out', type, access: 'read_write', tensor: out},
      {name: 'x', type, access: 'read', tensor: x},
    ],
    uniforms: {size: numTokens * rowChunks, topk, rowChunks},
    numWorkgroups: Math.ceil((numTokens * rowChunks) / WORKGROUP_SIZE),
    code: () =>
      entryPoint(`
        let i = group * ${WORKGROUP_SIZE} + thread;
        if (i >= uniforms.size) { return; }
        let token = i / uniforms.rowChunks;
        let column = i % uniforms.rowChunks;
        var sum = ${type}();
        for (var k = 0u; k < uniforms.topk; k++) {
          sum += x[(token * uniforms.topk + k) * uniforms.rowChunks + column];
        }
        out[i] = sum;`),
  });
  return [out];
});
