/** MoeUnpermuteBackpropWeights on WebGPU, 1 launch: a workgroup takes a slot, its threads the columns. */
import {MoeUnpermuteBackpropWeights} from '../../contract/kernel_names';
import {CHAIN_TERMS, LONG_SUM_UNIFORMS, longSumWgsl} from '../shared/long_sums';
import {assertBindable, chunkOf, type ChunkType, entryPoint, newTensor, runWgsl, webgpuKernel} from '../shared/webgpu';
import {READABLE_ROWS, slotBuffers} from './webgpu_slots';

/** The WGSL has these as `const` by the same names. */
const CONSTANTS = {NUM_THREADS: 64, CHAIN_TERMS};

const TOTAL_OF_SCALAR = /* wgsl */ `
  fn totalOf(chunk : Chunk) -> f32 { return chunk; }
`;
const TOTAL_OF_QUAD = /* wgsl */ `
  fn totalOf(chunk : Chunk) -> f32 { return dot(chunk, Chunk(1)); }
`;

const weightsGradientWgsl = (type: ChunkType): string => /* wgsl */ `
  alias Chunk = ${type};
  ${longSumWgsl(type)}
  ${READABLE_ROWS}
  ${type === 'f32' ? TOTAL_OF_SCALAR : TOTAL_OF_QUAD}
  var<workgroup> sums : array<f32, NUM_THREADS>;

  ${entryPoint(
    /* wgsl */ `
    if (group >= uniforms.numSlots) { return; }
    let row = invPermutedIdx[group];
    var products = LongSum();
    if (row < numReadableRows()) {
      let dyRow = group / uniforms.topk;
      var c = thread;
      while (c < uniforms.rowChunks) {
        var chain = Chunk();
        let end = min(uniforms.rowChunks, c + CHAIN_TERMS * NUM_THREADS);
        for (; c < end; c += NUM_THREADS) {
          chain += rows[row * uniforms.rowChunks + c] * dy[dyRow * uniforms.rowChunks + c];
        }
        products = addChain(products, chain);
      }
    }
    sums[thread] = totalOf(products.value);
    for (var width = NUM_THREADS / 2; width > 0; width /= 2) {
      workgroupBarrier();
      if (thread < width) { sums[thread] += sums[thread + width]; }
    }
    if (thread == 0) { dWeights[group] = sums[0]; }`,
    CONSTANTS.NUM_THREADS,
  )}`;

export const moeUnpermuteBackpropWeightsWebGPU = webgpuKernel(
  MoeUnpermuteBackpropWeights,
  (backend, {dy, permutedHiddenStates, invPermutedIdx, expertFirstTokenOffset}) => {
    const [numTokens, topk] = invPermutedIdx.shape;
    const [numRows, hiddenSize] = permutedHiddenStates.shape;
    assertBindable(backend, MoeUnpermuteBackpropWeights, {
      dy: dy.shape,
      permutedHiddenStates: permutedHiddenStates.shape,
      'the result': [numTokens, topk],
    });
    const dWeights = newTensor(backend, [numTokens, topk], 'float32');
    if (numTokens === 0) {
      return {dWeights};
    }
    const {type, rowChunks} = chunkOf(hiddenSize);
    runWgsl(backend, {
      name: 'MoeUnpermuteBackpropWeights',
      buffers: [
        {name: 'dWeights', type: 'f32', access: 'read_write', tensor: dWeights},
        {name: 'dy', type, access: 'read', tensor: dy},
        {name: 'rows', type, access: 'read', tensor: permutedHiddenStates},
        ...slotBuffers(invPermutedIdx, expertFirstTokenOffset),
      ],
      uniforms: {
        numSlots: numTokens * topk,
        topk,
        numRows,
        rowChunks,
        lastOffset: expertFirstTokenOffset.shape[0] - 1,
        ...LONG_SUM_UNIFORMS,
      },
      numWorkgroups: numTokens * topk,
      constants: CONSTANTS,
      code: () => weightsGradientWgsl(type),
    });
    return {dWeights};
  },
);
