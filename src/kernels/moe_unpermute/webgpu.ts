/**
 * MoeUnpermute on WebGPU, 1 launch: a thread takes a few columns of a token, reads them in each slot's row, and adds
 * them in slot order, so that results do not vary from run to run. (T*K + T)*H*4 bytes.
 */
import {MoeUnpermute} from '../../contract/kernel_names';
import {CHAIN_TERMS, LONG_SUM_UNIFORMS, longSumWgsl, ONE_CHAIN_TERMS} from '../shared/long_sums';
import {repeat} from '../shared/repeat';
import {
  assertBindable,
  chunkOf,
  type ChunkType,
  entryPoint,
  newTensor,
  runWgsl,
  webgpuKernel,
  WORKGROUP_SIZE,
} from '../shared/webgpu';
import {READABLE_ROWS, slotBuffers} from './webgpu_slots';

/** The WGSL has these as `const` by the same names. SLOTS_AT_ONCE rows are read before the first is added. */
const CONSTANTS = {NUM_THREADS: WORKGROUP_SIZE, SLOTS_AT_ONCE: 8};

/**
 * A function that adds `count` slots to a sum. Their reads go out together, of row 0 where a slot is skipped; nothing
 * of that is used. The text is repeated: with loops over arrays the kernel takes 3 to 6 % longer at T <= 1,024 on an
 * H100.
 */
const addSlots = (name: string, count: number): string => /* wgsl */ `
  fn ${name}(before : Chunk, slot : u32, c : u32, limit : u32) -> Chunk {
    var sum = before;
    ${repeat(
      count,
      (u) => /* wgsl */ `
    let row${u} = invPermutedIdx[slot + ${u}];
    let weight${u} = topkWeights[slot + ${u}];`,
    )}
    ${repeat(
      count,
      (u) => /* wgsl */ `
    let chunk${u} = rows[select(0, row${u}, row${u} < limit) * uniforms.rowChunks + c];`,
    )}
    ${repeat(
      count,
      (u) => /* wgsl */ `
    if (row${u} < limit) { sum = fma(Chunk(weight${u}), chunk${u}, sum); }`,
    )}
    return sum;
  }
`;

/** addFrom: adds the slots of a token from k on. */
const addFrom = (topk: number): string => /* wgsl */ `
  ${addSlots('addSlots', CONSTANTS.SLOTS_AT_ONCE)}
  ${addSlots('addLastSlots', topk % CONSTANTS.SLOTS_AT_ONCE)}
  fn addFrom(firstK : u32, firstSlot : u32, c : u32, limit : u32) -> Chunk {
    var sum = Chunk();
    var k = firstK;
    for (; k + SLOTS_AT_ONCE <= TOPK; k += SLOTS_AT_ONCE) { sum = addSlots(sum, firstSlot + k, c, limit); }
    return addLastSlots(sum, firstSlot + k, c, limit);
  }
`;

/** The slots of a token are one chain of additions. */
const ONE_CHAIN = /* wgsl */ `
  fn sumOfSlots(firstSlot : u32, c : u32, limit : u32) -> Chunk { return addFrom(0, firstSlot, c, limit); }
`;

const manyChains = (type: ChunkType): string => /* wgsl */ `
  const CHAIN_TERMS = ${CHAIN_TERMS}u;
  ${longSumWgsl(type)}
  fn sumOfSlots(firstSlot : u32, c : u32, limit : u32) -> Chunk {
    var total = LongSum();
    var k = 0u;
    while (k + CHAIN_TERMS <= TOPK) {
      var chain = Chunk();
      let end = k + CHAIN_TERMS;
      for (; k < end; k += SLOTS_AT_ONCE) { chain = addSlots(chain, firstSlot + k, c, limit); }
      total = addChain(total, chain);
    }
    return addChain(total, addFrom(k, firstSlot, c, limit)).value;
  }
`;

const unpermuteWgsl = (type: ChunkType, topk: number): string => /* wgsl */ `
  alias Chunk = ${type};
  ${READABLE_ROWS}
  ${addFrom(topk)}
  ${topk <= ONE_CHAIN_TERMS ? ONE_CHAIN : manyChains(type)}

  ${entryPoint(/* wgsl */ `
    let i = group * NUM_THREADS + thread;
    if (i >= uniforms.numTokens * uniforms.rowChunks) { return; }
    let token = i / uniforms.rowChunks;
    let c = i % uniforms.rowChunks;
    out[i] = sumOfSlots(token * TOPK, c, numReadableRows());`)}`;

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
      constants: {...CONSTANTS, TOPK: topk},
      numWorkgroups: Math.ceil((numTokens * rowChunks) / WORKGROUP_SIZE),
      code: () => unpermuteWgsl(type, topk),
    });
    return {out};
  },
);
