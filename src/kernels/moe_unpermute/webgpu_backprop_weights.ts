/** MoeUnpermuteBackpropWeights on WebGPU, 1 launch: a workgroup takes a slot, its threads the columns. */
import {MoeUnpermuteBackpropWeights} from '../../contract/kernel_names';
import {CHAIN_TERMS, LONG_SUM_UNIFORMS, longSumWgsl} from '../shared/long_sums';
import {assertBindable, chunkOf, entryPoint, newTensor, runWgsl, webgpuKernel} from '../shared/webgpu';
import {readableRows, slotBuffers} from './webgpu_slots';

const DOT_THREADS = 64;

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
      code: () => `
        alias Chunk = ${type};
        var<workgroup> sums : array<f32, ${DOT_THREADS}>;
        ${longSumWgsl(type)}
        ${readableRows}
        ${entryPoint(
          `
          if (group >= uniforms.numSlots) { return; }
          let row = invPermutedIdx[group];
          var products = LongSum();
          if (row < numReadableRows()) {
            let dyRow = group / uniforms.topk;
            var c = thread;
            while (c < uniforms.rowChunks) {
              var chain = Chunk();
              let end = min(uniforms.rowChunks, c + ${CHAIN_TERMS * DOT_THREADS});
              for (; c < end; c += ${DOT_THREADS}) {
                chain += rows[row * uniforms.rowChunks + c] * dy[dyRow * uniforms.rowChunks + c];
              }
              products = addChain(products, chain);
            }
          }
          sums[thread] = ${type === 'f32' ? 'products.value' : 'dot(products.value, Chunk(1))'};
          for (var width = ${DOT_THREADS / 2}u; width > 0; width /= 2) {
            workgroupBarrier();
            if (thread < width) { sums[thread] += sums[thread + width]; }
          }
          if (thread == 0) { dWeights[group] = sums[0]; }`,
          DOT_THREADS,
        )}`,
    });
    return {dWeights};
  },
);
