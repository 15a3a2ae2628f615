/** MoeScaledSum on WebGPU, 1 launch: a thread an element. */
import {MoeScaledSum} from '../../contract/kernel_names';
import {assertBindable, entryPoint, newTensor, runWgsl, webgpuKernel, WORKGROUP_SIZE} from '../shared/webgpu';
import {bitsOf} from '../weight_formats/small_floats';

export const moeScaledSumWebGPU = webgpuKernel(MoeScaledSum, (backend, {a, b}, {factorA, factorB}) => {
  const [size] = a.shape;
  assertBindable(backend, MoeScaledSum, {a: a.shape});
  const out = newTensor(backend, [size], 'float32');
  if (size === 0) {
    return {out};
  }
  runWgsl(backend, {
    name: 'MoeScaledSum',
    buffers: [
      {name: 'out', type: 'f32', access: 'read_write', tensor: out},
      {name: 'a', type: 'f32', access: 'read', tensor: a},
      {name: 'b', type: 'f32', access: 'read', tensor: b},
    ],
    uniforms: {size, bitsOfA: bitsOf(factorA), bitsOfB: bitsOf(factorB)},
    numWorkgroups: Math.ceil(size / WORKGROUP_SIZE),
    code: () =>
      entryPoint(/* wgsl */ `
        let i = group * ${WORKGROUP_SIZE}u + thread;
        if (i >= uniforms.size) { return; }
        out[i] = bitcast<f32>(uniforms.bitsOfA) * a[i] + bitcast<f32>(uniforms.bitsOfB) * b[i];`),
  });
  return {out};
});
