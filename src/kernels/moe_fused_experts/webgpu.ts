/**
 * MoeFusedExperts on WebGPU: the experts of a few tokens in 2 launches, without a sort.
 *
 *   MoeFusedExpertsFirst   h[s] = act(W1[e] x[t] + b1[e]) of each slot s of token t and expert e
 *   MoeFusedExpertsSecond  out[t] = the sum over t's slots s, in their order, of w[s] * (W2[e] h[s] + b2[e])
 *
 * Each reads the weights of a slot's expert once, as fast as memory gives them. A slot whose expert is not here is
 * neither read nor written. If w2 has offsets and there is a map of experts, a launch before these looks up the map,
 * because the second would bind 9 buffers, and every device binds 8.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {columnsOf, type FusedProduct, fusedProducts} from '../../contract/expert_weights';
import {MoeFusedExperts, type MoeGroupedMatMulAttrs, type MoeWeightFormat} from '../../contract/kernel_names';
import {ACTIVATIONS_WGSL, activationUniforms} from '../moe_grouped_mat_mul/activations';
import {
  type LaneReader,
  products,
  type Quads,
  type WeightReader,
  weightReader,
} from '../moe_grouped_mat_mul/weights/index';
import {COLUMNS, encodingName, xQuad} from '../moe_grouped_mat_mul/webgpu_program';
import {repeat} from '../shared/repeat';
import {
  assertBindable,
  disposeAll,
  entryPoint,
  newTensor,
  runWgsl,
  type StorageBinding,
  webgpuKernel,
  WORKGROUP_SIZE,
} from '../shared/webgpu';

/**
 * The most threads that share the terms of a product. With 32 a layer of Granite in float32 takes 31.7 us on an H100 at
 * T = 1, with 64 it takes 30.6.
 */
const MAX_LANES = 64;
const MIN_LANES = 16;

/** What both launches have in common. */
type Product = FusedProduct<TensorInfo> & {
  name: string;
  x: TensorInfo;
  slots: {topkIds: TensorInfo; expertMap: TensorInfo | undefined};
};

export const moeFusedExpertsWebGPU = webgpuKernel(MoeFusedExperts, (backend, inputs, attrs) => {
  const {x, topkWeights, topkIds, expertMap, w1, w2} = inputs;
  const [numTokens, topk] = topkIds.shape;
  const numSlots = numTokens * topk;
  const {first, second} = fusedProducts<TensorInfo>(inputs, attrs);
  const {numOutputs: intermediateSize} = columnsOf(w1, first.attrs);
  assertBindable(backend, MoeFusedExperts, {w1: w1.shape, w2: w2.shape});
  const out = newTensor(backend, x.shape, 'float32');
  if (numTokens === 0) {
    return {out};
  }
  const hidden = newTensor(backend, [numSlots, intermediateSize], 'float32');
  const localIds =
    expertMap != null && second.offsets != null ? runLocalIds(backend, topkIds, expertMap, w1.shape[0]) : undefined;
  const slots = localIds == null ? {topkIds, expertMap} : {topkIds: localIds, expertMap: undefined};
  runFirst(backend, {...first, name: 'MoeFusedExpertsFirst', x, slots}, hidden);
  runSecond(backend, {...second, name: 'MoeFusedExpertsSecond', x: hidden, slots}, topkWeights, out);
  disposeAll(backend, localIds == null ? [hidden] : [hidden, localIds]);
  return {out};
});

/** WGSL: the local expert if there is one of that number, else NO_EXPERT. */
const IF_LOCAL = /* wgsl */ `
  const NO_EXPERT = 0xffffffffu;
  fn ifLocal(expert : i32) -> u32 {
    return select(NO_EXPERT, u32(expert), expert >= 0 && expert < i32(uniforms.numLocalExperts));
  }`;

/** WGSL: expertOf(slot), the local expert of a slot, NO_EXPERT where it has none. */
const EXPERT_OF_SLOT = /* wgsl */ `
  fn expertOf(slot : u32) -> u32 { return ifLocal(topkIds[slot]); }`;

/** The same, by a map from global to local experts. */
const MAPPED_EXPERT_OF_SLOT = /* wgsl */ `
  fn expertOf(slot : u32) -> u32 {
    let id = topkIds[slot];
    if (id < 0 || id >= i32(uniforms.numExperts)) { return NO_EXPERT; }
    return ifLocal(expertMap[id]);
  }`;

/** The local expert of each slot, -1 where it has none. */
function runLocalIds(
  backend: WebGPUBackend,
  topkIds: TensorInfo,
  expertMap: TensorInfo,
  numLocalExperts: number,
): TensorInfo {
  const localIds = newTensor(backend, topkIds.shape, 'int32');
  const numSlots = topkIds.shape[0] * topkIds.shape[1];
  runWgsl(backend, {
    name: 'MoeFusedExpertsLocalIds',
    buffers: [
      {name: 'out', type: 'i32', access: 'read_write', tensor: localIds},
      {name: 'topkIds', type: 'i32', access: 'read', tensor: topkIds},
      {name: 'expertMap', type: 'i32', access: 'read', tensor: expertMap},
    ],
    uniforms: {numSlots, numExperts: expertMap.shape[0], numLocalExperts},
    constants: {NUM_THREADS: WORKGROUP_SIZE},
    numWorkgroups: Math.ceil(numSlots / WORKGROUP_SIZE),
    code: () => /* wgsl */ `
      ${IF_LOCAL}
      ${MAPPED_EXPERT_OF_SLOT}
      ${entryPoint(/* wgsl */ `
      let slot = group * NUM_THREADS + thread;
      if (slot < uniforms.numSlots) { out[slot] = i32(expertOf(slot)); }`)}`,
  });
  return localIds;
}

/**
 * WGSL: sumOfTerms, what a lane has of the products of a quad of columns. Where weights have scales, sums are
 * multiplied by them: one multiplication in place of one a weight.
 */
const sumOfTerms = ({numTerms, load, quad, scales}: LaneReader, weightFormat: MoeWeightFormat): string => /* wgsl */ `
  fn sumOfTerms(row : u32, expert : u32, d : u32, lane : u32) -> vec4<f32> {
    var sum = vec4<f32>();
    for (var k = ${numTerms} * lane; k < uniforms.numIn; k += ${numTerms} * NUM_LANES) {
      ${load}
      var part = vec4<f32>();
      ${repeat(
        numTerms / 4,
        (q) => /* wgsl */ `
      {
        let x = xQuad(row, k + ${4 * q});
        ${quad(q, scales != null)}
        part += ${products[weightFormat]('x')};
      }`,
      )}
      sum += ${scales == null ? 'part' : `${scales} * part`};
    }
    return sum;
  }`;

/**
 * WGSL: addUp, which makes totals of what the lanes of each quad have, and total(j), that of column j of all quads. All
 * threads must call addUp.
 */
const ADD_UP = /* wgsl */ `
  const NUM_PARTIAL_SUMS = NUM_LANES / 4;
  var<workgroup> exchange : array<vec4<f32>, NUM_THREADS>;
  fn addUp(thread : u32, quad : u32, lane : u32, sum : vec4<f32>) {
    exchange[quad * NUM_LANES + lane] = sum;
    workgroupBarrier();
    var partial = vec4<f32>();
    if (thread < NUM_THREADS / 4) {
      partial = exchange[4 * thread] + exchange[4 * thread + 1] + exchange[4 * thread + 2] + exchange[4 * thread + 3];
    }
    workgroupBarrier();
    if (thread < NUM_THREADS / 4) { exchange[thread] = partial; }
    workgroupBarrier();
  }
  fn total(j : u32) -> f32 {
    var sum = 0.0;
    for (var p = 0u; p < NUM_PARTIAL_SUMS; p++) { sum += exchange[j / 4 * NUM_PARTIAL_SUMS + p][j % 4]; }
    return sum;
  }`;

/** Lanes of a quad are neighbours where a column's terms are, quads are neighbours where a term's columns are. */
const LANES = {
  outIn: /* wgsl */ `
    fn laneOf(thread : u32) -> u32 { return thread % NUM_LANES; }
    fn quadOf(thread : u32) -> u32 { return thread / NUM_LANES; }`,
  inOut: /* wgsl */ `
    fn laneOf(thread : u32) -> u32 { return thread / NUM_QUADS; }
    fn quadOf(thread : u32) -> u32 { return thread % NUM_QUADS; }`,
};

const parts = ({attrs, slots}: Product, {lane}: WeightReader, quads: Quads) => /* wgsl */ `
  ${IF_LOCAL}
  ${slots.expertMap == null ? EXPERT_OF_SLOT : MAPPED_EXPERT_OF_SLOT}
  ${xQuad(quads)}
  ${lane.functions}
  ${sumOfTerms(lane, attrs.weightFormat)}
  ${LANES[attrs.weightFormat]}
  ${ADD_UP}
  ${COLUMNS}`;

/** What a launch has for its product: buffers after the first, uniforms, and constants. */
function programOf({x, bias, attrs, slots: {topkIds, expertMap}, ...tensors}: Product) {
  const {weights} = tensors;
  const numIn = x.shape[1];
  const {numColumns, numOutputs} = columnsOf(weights, attrs);
  const isConcatenated = attrs.gated && attrs.gateUp === 'concatenated';
  const inQuads = numIn % 4 === 0 && numColumns % 4 === 0 && (!isConcatenated || numOutputs % 4 === 0);
  const quads: Quads = inQuads ? 'vec4<f32>' : 'f32';
  const reader = weightReader(attrs, tensors, quads);
  const NUM_LANES = lanesFor(numIn / reader.lane.numTerms);
  const buffers: StorageBinding[] = [
    {name: 'x', type: quads, access: 'read', tensor: x},
    ...reader.lane.buffers(tensors),
    {name: 'bias', type: 'f32', access: 'read', tensor: bias ?? weights},
    {name: 'topkIds', type: 'i32', access: 'read', tensor: topkIds},
    ...(expertMap == null ? [] : [{name: 'expertMap', type: 'i32', access: 'read', tensor: expertMap} as const]),
  ];
  return {
    quads,
    reader,
    numColumns,
    numOutputs,
    isConcatenated,
    numQuads: WORKGROUP_SIZE / NUM_LANES,
    buffers,
    uniforms: {
      numSlots: topkIds.shape[0] * topkIds.shape[1],
      topk: topkIds.shape[1],
      numIn,
      numColumns,
      numOutputs,
      numExperts: expertMap?.shape[0] ?? weights.shape[0],
      numLocalExperts: weights.shape[0],
      hasBias: bias == null ? 0 : 1,
      isGated: attrs.gated ? 1 : 0,
      isConcatenated: isConcatenated ? 1 : 0,
      ...reader.uniforms,
    },
    constants: {
      NUM_THREADS: WORKGROUP_SIZE,
      NUM_LANES,
      // Over all slots that a workgroup takes at once.
      NUM_QUADS: WORKGROUP_SIZE / NUM_LANES,
      HAS_K_TAIL: numIn % (reader.lane.numTerms * NUM_LANES) === 0 ? 0 : 1,
    },
  };
}

/** As many lanes as have terms, in powers of two. */
function lanesFor(numUsed: number): number {
  let numLanes = MIN_LANES;
  while (numLanes < numUsed && numLanes < MAX_LANES) {
    numLanes *= 2;
  }
  return numLanes;
}

const firstWgsl = (product: Product, reader: WeightReader, quads: Quads): string => /* wgsl */ `
  ${parts(product, reader, quads)}
  ${ACTIVATIONS_WGSL}
  fn z(expert : u32, tile : u32, j : u32) -> f32 { return total(j) + biasAt(expert, columnOf(tile, j)); }
  ${entryPoint(/* wgsl */ `
    let slot = group / uniforms.numTiles;
    let tile = group % uniforms.numTiles;
    if (slot >= uniforms.numSlots) { return; }
    let expert = expertOf(slot);
    if (expert == NO_EXPERT) { return; }
    let quad = quadOf(thread);
    let lane = laneOf(thread);
    addUp(thread, quad, lane, sumOfTerms(slot / uniforms.topk, expert, columnOf(tile, 4 * quad), lane));

    let tileOutputs = select(TILE_COLUMNS, TILE_COLUMNS / 2, uniforms.isGated == 1);
    let column = tile * tileOutputs + thread;
    if (thread >= tileOutputs || column >= uniforms.numOutputs) { return; }
    // A gate and its up are columns o and o + TILE_COLUMNS / 2 of the tile, or 2o and 2o + 1.
    let isApart = uniforms.isConcatenated == 1 || uniforms.isGated == 0;
    let j = select(2 * thread, thread, isApart);
    var y = activate(clampedGate(z(expert, tile, j)));
    if (uniforms.isGated == 1) { y *= clampedUp(z(expert, tile, select(j + 1, j + TILE_COLUMNS / 2, isApart))); }
    out[slot * uniforms.numOutputs + column] = y;`)}`;

/** A workgroup has TILE_COLUMNS columns of a slot. */
function runFirst(backend: WebGPUBackend, product: Product, hidden: TensorInfo): void {
  const {quads, reader, numColumns, numOutputs, isConcatenated, numQuads, buffers, uniforms, constants} =
    programOf(product);
  const TILE_COLUMNS = 4 * numQuads;
  const numTiles = isConcatenated ? Math.ceil(numOutputs / (TILE_COLUMNS / 2)) : Math.ceil(numColumns / TILE_COLUMNS);
  runWgsl(backend, {
    name: `${product.name}_${product.attrs.weightFormat}${encodingName(product.attrs.encoding)}`,
    buffers: [{name: 'out', type: 'f32', access: 'read_write', tensor: hidden}, ...buffers],
    uniforms: {...uniforms, numTiles, ...activationUniforms(product.attrs)},
    constants: {...constants, TILE_COLUMNS},
    numWorkgroups: uniforms.numSlots * numTiles,
    code: () => firstWgsl(product, reader, quads),
  });
}

const secondWgsl = (product: Product, reader: WeightReader, quads: Quads): string => /* wgsl */ `
  const QUADS_OF_SLOT = TILE_COLUMNS / 4;
  ${parts(product, reader, quads)}
  ${entryPoint(/* wgsl */ `
    let token = group / uniforms.numTiles;
    let tile = group % uniforms.numTiles;
    if (token * uniforms.topk >= uniforms.numSlots) { return; }
    let quad = quadOf(thread);
    let lane = laneOf(thread);
    let column = tile * TILE_COLUMNS + thread;
    var merged = 0.0;
    for (var firstK = 0u; firstK < uniforms.topk; firstK += SLOTS_AT_ONCE) {
      let k = firstK + quad / QUADS_OF_SLOT;
      var sum = vec4<f32>();
      if (k < uniforms.topk) {
        let slot = token * uniforms.topk + k;
        let expert = expertOf(slot);
        let d = tile * TILE_COLUMNS + 4 * (quad % QUADS_OF_SLOT);
        if (expert != NO_EXPERT) { sum = sumOfTerms(slot, expert, d, lane); }
      }
      addUp(thread, quad, lane, sum);
      if (thread < TILE_COLUMNS) {
        for (var s = 0u; s < min(SLOTS_AT_ONCE, uniforms.topk - firstK); s++) {
          let slot = token * uniforms.topk + firstK + s;
          let expert = expertOf(slot);
          let y = total(s * TILE_COLUMNS + thread) + biasAt(expert, column);
          if (expert != NO_EXPERT) { merged = fma(topkWeights[slot], y, merged); }
        }
      }
      workgroupBarrier();
    }
    if (thread < TILE_COLUMNS && column < uniforms.numOutputs) { out[token * uniforms.numOutputs + column] = merged; }`)}`;

/** Slots of a token that a workgroup takes at once: the more, the fewer columns it has, and the more workgroups run. */
function slotsAtOnce(topk: number, numQuads: number, {weightFormat}: MoeGroupedMatMulAttrs): number {
  // Neighbouring threads are to read neighbouring columns.
  return weightFormat === 'inOut' ? 1 : ([1, 2, 4, 8].find((count) => count >= Math.min(topk, numQuads)) ?? numQuads);
}

/** A workgroup has TILE_COLUMNS columns of a token. */
function runSecond(backend: WebGPUBackend, product: Product, topkWeights: TensorInfo, out: TensorInfo): void {
  const {quads, reader, numOutputs, numQuads, buffers, uniforms, constants} = programOf(product);
  const SLOTS_AT_ONCE = slotsAtOnce(uniforms.topk, numQuads, product.attrs);
  const TILE_COLUMNS = (4 * numQuads) / SLOTS_AT_ONCE;
  const numTiles = Math.ceil(numOutputs / TILE_COLUMNS);
  runWgsl(backend, {
    name: `${product.name}_${product.attrs.weightFormat}${encodingName(product.attrs.encoding)}`,
    buffers: [
      {name: 'out', type: 'f32', access: 'read_write', tensor: out},
      {name: 'topkWeights', type: 'f32', access: 'read', tensor: topkWeights},
      ...buffers,
    ],
    uniforms: {...uniforms, numTiles},
    constants: {...constants, TILE_COLUMNS, SLOTS_AT_ONCE},
    numWorkgroups: (uniforms.numSlots / uniforms.topk) * numTiles,
    code: () => secondWgsl(product, reader, quads),
  });
}
