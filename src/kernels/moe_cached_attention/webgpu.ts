/** Attention with a cache of keys and values on WebGPU: 1 launch that fills the cache, and 1 that reads it. */
import {MoeCachedAttention, MoeRotateIntoCache} from '../../contract/kernel_names';
import {assertBindable, chunkOf, entryPoint, newTensor, runWgsl, webgpuKernel, WORKGROUP_SIZE} from '../shared/webgpu';
import {REDUCE_WGSL, sumOfChunk} from '../shared/webgpu_reduce';
import {bitsOf} from '../weight_formats/small_floats';

/** A thread has a pair of elements of one head, half a head apart. */
const ROTATE_WGSL = entryPoint(/* wgsl */ `
  let numHeads = uniforms.numHeads;
  let numKeyHeads = uniforms.numKeyHeads;
  let half = uniforms.headDim / 2u;
  let item = group * ${WORKGROUP_SIZE}u + thread;
  let pair = item % half;
  let headOfRow = (item / half) % (numHeads + 2u * numKeyHeads);
  let row = (item / half) / (numHeads + 2u * numKeyHeads);
  if (row >= uniforms.numRows) { return; }
  let place = u32(position[0]) + row % uniforms.numNew;
  let angle = place * uniforms.headDim + pair;
  let cosine = angles[angle];
  let sine = angles[angle + half];
  if (headOfRow < numHeads) {
    let at = (row * numHeads + headOfRow) * uniforms.headDim + pair;
    let a = queries[at];
    let b = queries[at + half];
    let scale = bitcast<f32>(uniforms.scaleBits);
    rotated[at] = (a * cosine - b * sine) * scale;
    rotated[at + half] = (b * cosine + a * sine) * scale;
    return;
  }
  let isKey = headOfRow < numHeads + numKeyHeads;
  let head = (headOfRow - numHeads) % numKeyHeads;
  let given = (row * numKeyHeads + head) * uniforms.headDim + pair;
  let sequence = row / uniforms.numNew;
  let stored = ((sequence * numKeyHeads + head) * uniforms.capacity + place) * uniforms.headDim + pair;
  if (place >= uniforms.capacity) { return; }
  if (isKey) {
    let a = keys[given];
    let b = keys[given + half];
    cachedKeys[stored] = a * cosine - b * sine;
    cachedKeys[stored + half] = b * cosine + a * sine;
  } else {
    cachedValues[stored] = values[given];
    cachedValues[stored + half] = values[given + half];
  }`);

export const moeRotateIntoCacheWebGPU = webgpuKernel(MoeRotateIntoCache, (backend, inputs, {scale}) => {
  const {queries, keys, values, angles, position, cachedKeys, cachedValues} = inputs;
  const [batchSize, numNew, querySize] = queries.shape;
  const [, numKeyHeads, capacity, headDim] = cachedKeys.shape;
  const numHeads = querySize / headDim;
  const rotated = newTensor(backend, queries.shape, 'float32');
  const numRows = batchSize * numNew;
  const numItems = numRows * (numHeads + 2 * numKeyHeads) * (headDim / 2);
  runWgsl(backend, {
    name: 'MoeRotateIntoCache',
    buffers: [
      {name: 'rotated', type: 'f32', access: 'read_write', tensor: rotated},
      {name: 'cachedKeys', type: 'f32', access: 'read_write', tensor: cachedKeys},
      {name: 'cachedValues', type: 'f32', access: 'read_write', tensor: cachedValues},
      {name: 'queries', type: 'f32', access: 'read', tensor: queries},
      {name: 'keys', type: 'f32', access: 'read', tensor: keys},
      {name: 'values', type: 'f32', access: 'read', tensor: values},
      {name: 'angles', type: 'f32', access: 'read', tensor: angles},
      {name: 'position', type: 'i32', access: 'read', tensor: position},
    ],
    uniforms: {numRows, numNew, numHeads, numKeyHeads, headDim, capacity, scaleBits: bitsOf(scale)},
    numWorkgroups: Math.ceil(numItems / WORKGROUP_SIZE),
    code: () => ROTATE_WGSL,
  });
  return {rotated};
});

/** A score of no key. It is finite, as differences of scores must be numbers. */
const NO_SCORE = '-1e30';

/**
 * A workgroup has one head of one query. It goes over the keys in tiles: a thread has the score of one key, and then
 * one element of the sum of values over a part of the tile. The largest score so far is taken out of all sums.
 */
const attentionWgsl = (type: 'f32' | 'vec4<f32>', hasSinks: boolean, hasMask: boolean): string => /* wgsl */ `
  var<workgroup> query : array<${type}, HEAD_CHUNKS>;
  var<workgroup> weights : array<f32, ${WORKGROUP_SIZE}>;
  ${REDUCE_WGSL}
  ${sumOfChunk(type)}
  const NO_SCORE = ${NO_SCORE};

  fn isSeen(key : u32, sequence : u32) -> bool {
    return ${hasMask ? 'keyMask[sequence * uniforms.capacity + key] != 0' : 'true'};
  }

  fn scoreOf(key : u32, firstRow : u32) -> f32 {
    var products = ${type}();
    for (var i = 0u; i < HEAD_CHUNKS; i++) { products += query[i] * cachedKeys[(firstRow + key) * HEAD_CHUNKS + i]; }
    return sumOfChunk(products);
  }

  ${entryPoint(/* wgsl */ `
    if (group >= uniforms.numQueries) { return; }
    let head = group % uniforms.numHeads;
    let row = group / uniforms.numHeads;
    let sequence = row / uniforms.numNew;
    let keyHead = head / (uniforms.numHeads / uniforms.numKeyHeads);
    let firstRow = (sequence * uniforms.numKeyHeads + keyHead) * uniforms.capacity;
    let end = min(u32(position[0]) + row % uniforms.numNew + 1u, uniforms.capacity);
    let first = end - min(end, uniforms.window);
    for (var i = thread; i < HEAD_CHUNKS; i += ${WORKGROUP_SIZE}u) { query[i] = queries[group * HEAD_CHUNKS + i]; }
    workgroupBarrier();

    let element = thread % HEAD_DIM;
    let part = thread / HEAD_DIM;
    var largest = ${hasSinks ? 'sinks[head]' : 'NO_SCORE'};
    var total = ${hasSinks ? '1.0' : '0.0'};
    var sum = 0.0;
    for (var start = first; start < end; start += ${WORKGROUP_SIZE}u) {
      let key = start + thread;
      let isHere = key < end && isSeen(min(key, end - 1u), sequence);
      var score = NO_SCORE;
      if (isHere) { score = scoreOf(key, firstRow); }
      let next = max(largest, largestOfGroup(thread, score));
      let kept = exp(largest - next);
      weights[thread] = select(0.0, exp(score - next), isHere);
      total = total * kept + sumOfGroup(thread, weights[thread]);
      sum *= kept;
      let numKeys = min(end - start, ${WORKGROUP_SIZE}u);
      if (part < PARTS) {
        for (var k = part; k < numKeys; k += PARTS) {
          sum += weights[k] * cachedValues[(firstRow + start + k) * HEAD_DIM + element];
        }
      }
      largest = next;
      workgroupBarrier();
    }
    shared_[thread] = sum;
    workgroupBarrier();
    if (thread < HEAD_DIM) {
      var all = 0.0;
      for (var p = 0u; p < PARTS; p++) { all += shared_[p * HEAD_DIM + thread]; }
      out[group * HEAD_DIM + thread] = select(0.0, all / total, total > 0.0);
    }`)}`;

export const moeCachedAttentionWebGPU = webgpuKernel(MoeCachedAttention, (backend, inputs, {slidingWindow}) => {
  const {queries, cachedKeys, cachedValues, position, sinks, keyMask} = inputs;
  const [batchSize, numNew, querySize] = queries.shape;
  const [, numKeyHeads, capacity, headDim] = cachedKeys.shape;
  const numHeads = querySize / headDim;
  const {type, rowChunks} = chunkOf(headDim);
  assertBindable(backend, MoeCachedAttention, {queries: queries.shape});
  const out = newTensor(backend, queries.shape, 'float32');
  const numQueries = batchSize * numNew * numHeads;
  const optional = [
    ...(sinks == null ? [] : [{name: 'sinks', type: 'f32', access: 'read', tensor: sinks} as const]),
    ...(keyMask == null ? [] : [{name: 'keyMask', type: 'f32', access: 'read', tensor: keyMask} as const]),
  ];
  runWgsl(backend, {
    name: `MoeCachedAttention${sinks == null ? '' : 'Sinks'}${keyMask == null ? '' : 'Mask'}`,
    buffers: [
      {name: 'out', type: 'f32', access: 'read_write', tensor: out},
      {name: 'queries', type, access: 'read', tensor: queries},
      {name: 'cachedKeys', type, access: 'read', tensor: cachedKeys},
      {name: 'cachedValues', type: 'f32', access: 'read', tensor: cachedValues},
      {name: 'position', type: 'i32', access: 'read', tensor: position},
      ...optional,
    ],
    uniforms: {numQueries, numNew, numHeads, numKeyHeads, capacity, window: slidingWindow ?? capacity},
    constants: {HEAD_DIM: headDim, HEAD_CHUNKS: rowChunks, PARTS: Math.floor(WORKGROUP_SIZE / headDim)},
    numWorkgroups: numQueries,
    code: () => attentionWgsl(type, sinks != null, keyMask != null),
  });
  return {out};
});
