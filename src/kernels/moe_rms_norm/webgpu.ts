/** MoeRmsNorm on WebGPU, 1 launch: the threads of a workgroup share a row. */
import {MoeRmsNorm} from '../../contract/kernel_names';
import {assertBindable, chunkOf, entryPoint, newTensor, runWgsl, webgpuKernel, WORKGROUP_SIZE} from '../shared/webgpu';
import {REDUCE_WGSL, sumOfChunk} from '../shared/webgpu_reduce';
import {bitsOf} from '../weight_formats/small_floats';

export const moeRmsNormWebGPU = webgpuKernel(MoeRmsNorm, (backend, {x, gamma}, {epsilon}) => {
  const [numRows, hiddenSize] = x.shape;
  assertBindable(backend, MoeRmsNorm, {x: x.shape});
  const out = newTensor(backend, [numRows, hiddenSize], 'float32');
  if (numRows === 0) {
    return {out};
  }
  const {type, rowChunks} = chunkOf(hiddenSize);
  runWgsl(backend, {
    name: 'MoeRmsNorm',
    buffers: [
      {name: 'out', type, access: 'read_write', tensor: out},
      {name: 'x', type, access: 'read', tensor: x},
      {name: 'gamma', type, access: 'read', tensor: gamma},
    ],
    uniforms: {numRows, hiddenSize, rowChunks, epsilonBits: bitsOf(epsilon)},
    numWorkgroups: numRows,
    code: () => /* wgsl */ `
      ${REDUCE_WGSL}
      ${sumOfChunk(type)}
      ${entryPoint(/* wgsl */ `
        if (group >= uniforms.numRows) { return; }
        let first = group * uniforms.rowChunks;
        var squares = 0.0;
        for (var i = thread; i < uniforms.rowChunks; i += ${WORKGROUP_SIZE}u) {
          squares += sumOfChunk(x[first + i] * x[first + i]);
        }
        let mean = sumOfGroup(thread, squares) / f32(uniforms.hiddenSize);
        let scale = inverseSqrt(mean + bitcast<f32>(uniforms.epsilonBits));
        for (var i = thread; i < uniforms.rowChunks; i += ${WORKGROUP_SIZE}u) {
          out[first + i] = x[first + i] * scale * gamma[i];
        }`)}`,
  });
  return {out};
});
