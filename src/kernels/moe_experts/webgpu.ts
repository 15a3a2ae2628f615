/** MoeExpertsDownBackprop on WebGPU, 1 launch: a workgroup takes a slot, its threads the columns of the slot's row. */
import {MoeExpertsDownBackprop} from '../../contract/kernel_names';
import {
  ACTIVATION_DERIVATIVES_WGSL,
  ACTIVATIONS_WGSL,
  activationUniforms,
  gateColumns,
} from '../moe_grouped_mat_mul/activations';
import {CHAIN_TERMS, LONG_SUM_UNIFORMS, longSumWgsl} from '../shared/long_sums';
import {assertBindable, entryPoint, newTensor, runWgsl, webgpuKernel} from '../shared/webgpu';

/** The WGSL has these as `const` by the same names. */
const CONSTANTS = {NUM_THREADS: 64, CHAIN_TERMS};

const BACKPROP = /* wgsl */ `
  ${ACTIVATIONS_WGSL}
  ${ACTIVATION_DERIVATIVES_WGSL}
  ${longSumWgsl('f32')}
  var<workgroup> sums : array<f32, NUM_THREADS>;

  // Writes dz of output o, and returns its term of the weight's gradient.
  fn backprop(row : u32, o : u32, weight : f32) -> f32 {
    let dOut = g[row * uniforms.numOutputs + o];
    if (uniforms.isGated == 0) {
      let i = row * uniforms.numColumns + o;
      dz[i] = weight * dOut * activateDerivative(z[i]);
      return dOut * activate(z[i]);
    }
    let gate = row * uniforms.numColumns + o * uniforms.gateStep;
    let up = gate + uniforms.upStep;
    dz[gate] = weight * dOut * gatedDerivativeByGate(z[gate], z[up]);
    dz[up] = weight * dOut * gatedDerivativeByUp(z[gate], z[up]);
    return dOut * activate(clampedGate(z[gate])) * clampedUp(z[up]);
  }

  ${entryPoint(
    /* wgsl */ `
    if (group >= uniforms.numSlots) { return; }
    // A negative index is past every row.
    let row = invPermutedIdx[group];
    let numReadableRows = u32(max(0, min(i32(uniforms.numRows), expertFirstTokenOffset[uniforms.lastOffset])));
    var products = LongSum();
    if (row < numReadableRows) {
      let weight = topkWeights[group];
      var o = thread;
      while (o < uniforms.numOutputs) {
        var chain = 0.0;
        let end = min(uniforms.numOutputs, o + CHAIN_TERMS * NUM_THREADS);
        for (; o < end; o += NUM_THREADS) { chain += backprop(row, o, weight); }
        products = addChain(products, chain);
      }
    }
    sums[thread] = products.value;
    for (var width = NUM_THREADS / 2; width > 0; width /= 2) {
      workgroupBarrier();
      if (thread < width) { sums[thread] += sums[thread + width]; }
    }
    if (thread == 0) { dTopkWeights[group] = sums[0]; }`,
    CONSTANTS.NUM_THREADS,
  )}`;

export const moeExpertsDownBackpropWebGPU = webgpuKernel(
  MoeExpertsDownBackprop,
  (backend, {g, z, topkWeights, invPermutedIdx, expertFirstTokenOffset}, attrs) => {
    const [numRows, numColumns] = z.shape;
    const numOutputs = g.shape[1];
    const numSlots = topkWeights.shape[0] * topkWeights.shape[1];
    assertBindable(backend, MoeExpertsDownBackprop, {z: z.shape});
    const dz = newTensor(backend, [numRows, numColumns], 'float32');
    const dTopkWeights = newTensor(backend, topkWeights.shape, 'float32');
    if (numSlots === 0) {
      return {dz, dTopkWeights};
    }
    runWgsl(backend, {
      name: 'MoeExpertsDownBackprop',
      buffers: [
        {name: 'dz', type: 'f32', access: 'read_write', tensor: dz},
        {name: 'dTopkWeights', type: 'f32', access: 'read_write', tensor: dTopkWeights},
        {name: 'g', type: 'f32', access: 'read', tensor: g},
        {name: 'z', type: 'f32', access: 'read', tensor: z},
        {name: 'topkWeights', type: 'f32', access: 'read', tensor: topkWeights},
        {name: 'invPermutedIdx', type: 'u32', access: 'read', tensor: invPermutedIdx},
        {name: 'expertFirstTokenOffset', type: 'i32', access: 'read', tensor: expertFirstTokenOffset},
      ],
      uniforms: {
        numSlots,
        numRows,
        numColumns,
        numOutputs,
        lastOffset: expertFirstTokenOffset.shape[0] - 1,
        isGated: attrs.gated ? 1 : 0,
        ...gateColumns(attrs, numOutputs),
        ...activationUniforms(attrs),
        ...LONG_SUM_UNIFORMS,
      },
      numWorkgroups: numSlots,
      constants: CONSTANTS,
      code: () => BACKPROP,
    });
    return {dz, dTopkWeights};
  },
);
