/**
 * MoeUnpermute on WebGPU, 1 launch: a thread takes a few columns of a token, reads them in each slot's row, and adds
 * them in slot order, so that results do not vary from run to run. (T*K + T)*H*4 bytes.
 */
import {MoeUnpermute} from '../../contract/kernel_names';
import {CHAIN_TERMS, LONG_SUM_UNIFORMS, longSumWgsl, ONE_CHAIN_TERMS} from '../shared/long_sums';
import {assertBindable, chunkOf, entryPoint, newTensor, runWgsl, webgpuKernel, WORKGROUP_SIZE} from '../shared/webgpu';
import {readableRows, slotBuffers} from './webgpu_slots';

/** Slots of a token whose rows are read before the first is added. */
const SLOTS_AT_ONCE = 8;

/**
 * WGSL: adds slots k .. k + count - 1. Their reads go out together, of row 0 where a slot is skipped; nothing of that
 * is used.
 */
function addSlots(count: number): string {
  const forEach = (statement: (u: number) => string) => Array.from({length: count}, (_, u) => statement(u)).join('');
  return `
      ${forEach(
        (u) => `
        let row${u} = invPermutedIdx[firstSlot + k + ${u}];
        let weight${u} = topkWeights[firstSlot + k + ${u}];`,
      )}
      ${forEach(
        (u) => `
        let chunk${u} = rows[select(0, row${u}, row${u} < limit) * uniforms.rowChunks + c];`,
      )}
      ${forEach(
        (u) => `
        if (row${u} < limit) { sum = fma(Chunk(weight${u}), chunk${u}, sum); }`,
      )}`;
}

/** WGSL: adds all slots of a token to `sum`. */
function addAllSlots(topk: number): string {
  const addFromK = `
    for (; k + ${SLOTS_AT_ONCE} <= TOPK; k += ${SLOTS_AT_ONCE}) {
      ${addSlots(SLOTS_AT_ONCE)}
    }
    ${addSlots(topk % SLOTS_AT_ONCE)}`;
  if (topk <= ONE_CHAIN_TERMS) {
    return `var k = 0u; ${addFromK}`;
  }
  return `
    var total = LongSum();
    var k = 0u;
    while (k + ${CHAIN_TERMS} <= TOPK) {
      sum = Chunk();
      let end = k + ${CHAIN_TERMS};
      for (; k < end; k += ${SLOTS_AT_ONCE}) {
        ${addSlots(SLOTS_AT_ONCE)}
      }
      total = addChain(total, sum);
    }
    sum = Chunk();
    ${addFromK}
    sum = addChain(total, sum).value;`;
}

export const moeUnpermuteWebGPU = webgpuKernel(
  MoeUnpermute,
  (backend, {permutedHiddenStates, topkWeights, invPermutedIdx, expertFirstTokenOffset}) => {
    const [numTokens, topk] = topkWeights.shape;
    const [numRows, hiddenSize] = permutedHiddenStates.shape;
    assertBindable(backend, MoeUnpermute, {
      permutedHiddenStates: permutedHiddenStates.shape,
      topkWeights: topkWeights.shape,
      'the result': [numTokens, hiddenSize],
    });
    const out = newTensor(backend, [numTokens, hiddenSize], 'float32');
    if (numTokens === 0) {
      return {out};
    }
    const {type, rowChunks} = chunkOf(hiddenSize);
    runWgsl(backend, {
      name: 'MoeUnpermute',
      buffers: [
        {name: 'out', type, access: 'read_write', tensor: out},
        {name: 'rows', type, access: 'read', tensor: permutedHiddenStates},
        {name: 'topkWeights', type: 'f32', access: 'read', tensor: topkWeights},
        ...slotBuffers(invPermutedIdx, expertFirstTokenOffset),
      ],
      uniforms: {
        numTokens,
        numRows,
        rowChunks,
        lastOffset: expertFirstTokenOffset.shape[0] - 1,
        ...LONG_SUM_UNIFORMS,
      },
      constants: {TOPK: topk},
      numWorkgroups: Math.ceil((numTokens * rowChunks) / WORKGROUP_SIZE),
      code: () => `
        alias Chunk = ${type};
        ${longSumWgsl(type)}
        ${readableRows}
        ${entryPoint(`
          let i = group * ${WORKGROUP_SIZE} + thread;
          if (i >= uniforms.numTokens * uniforms.rowChunks) { return; }
          let token = i / uniforms.rowChunks;
          let c = i % uniforms.rowChunks;
          let limit = numReadableRows();
          let firstSlot = token * TOPK;
          var sum = Chunk();
          ${addAllSlots(topk)}
          out[i] = sum;`)}`,
    });
    return {out};
  },
);
