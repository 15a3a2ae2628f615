/** MoeDequantizeWeights on WebGPU: 1 launch, a thread decodes four weights of a row. */
import {MoeDequantizeWeights} from '../../contract/kernel_names';
import {encodingKey, numInOf, quantizedShapes} from '../../contract/quantized_weights';
import {assertBindable, chunkOf, entryPoint, newTensor, runWgsl, webgpuKernel, WORKGROUP_SIZE} from '../shared/webgpu';
import {codeBuffers, rawQuadsWgsl} from '../weight_formats/webgpu';

const WRITE_QUAD = /* wgsl */ `
  fn writeQuad(row : u32, k : u32, quad : vec4<f32>) { weights[(row * uniforms.numIn + k) / 4] = quad; }`;
/** Rows of C = 2 modulo 4, which 16-bit codes may have. */
const WRITE_PAIRS = /* wgsl */ `
  fn writeQuad(row : u32, k : u32, quad : vec4<f32>) {
    for (var i = 0u; i < 4 && k + i < uniforms.numIn; i++) { weights[row * uniforms.numIn + k + i] = quad[i]; }
  }`;

export const moeDequantizeWeightsWebGPU = webgpuKernel(
  MoeDequantizeWeights,
  (backend, tensors, {encoding, firstExpert, numExperts}) => {
    const {codes} = tensors;
    const numOut = codes.shape[1];
    const numIn = numInOf(codes, encoding);
    const shape = [numExperts, numOut, numIn];
    assertBindable(backend, MoeDequantizeWeights, {result: shape});
    const weights = newTensor(backend, shape, 'float32');
    const {type} = chunkOf(numIn);
    const quadsPerRow = Math.ceil(numIn / 4);
    const numQuads = numExperts * numOut * quadsPerRow;
    runWgsl(backend, {
      name: `MoeDequantizeWeights_${encodingKey(encoding)}`,
      buffers: [{name: 'weights', type, access: 'read_write', tensor: weights}, ...codeBuffers(tensors)],
      uniforms: {
        numQuads,
        quadsPerRow,
        firstRow: firstExpert * numOut,
        numIn,
        wordsPerRow: codes.shape[2],
        numGroups: quantizedShapes(shape, encoding).numGroups,
      },
      numWorkgroups: Math.ceil(numQuads / WORKGROUP_SIZE),
      code: () => `
        ${rawQuadsWgsl(encoding)}
        ${type === 'f32' ? WRITE_PAIRS : WRITE_QUAD}
        ${entryPoint(`
          let i = group * ${WORKGROUP_SIZE} + thread;
          if (i >= uniforms.numQuads) { return; }
          let row = i / uniforms.quadsPerRow;
          let k = i % uniforms.quadsPerRow * 4;
          writeQuad(row, k, weightsOf(rawQuadAt(uniforms.firstRow + row, k)));`)}`,
    });
    return {weights};
  },
);
