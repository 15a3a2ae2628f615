/** Weights of float32. */
import type {WeightTensors} from '../../../contract/expert_weights';
import type {MoeWeightFormat} from '../../../contract/kernel_names';
import {repeat} from '../../shared/repeat';
import type {StorageBinding} from '../../shared/webgpu';
import {nMajorLane} from './n_major_lane';
import type {LaneReader, Quads, WeightReader} from './weight_reader';

/** [E, D, C], where C and D are multiples of 4. */
const K_MAJOR_QUADS = /* wgsl */ `
  fn weightQuad(expert : u32, column : u32, k : u32) -> vec4<f32> {
    if (HAS_K_TAIL == 1 && k >= uniforms.numIn) { return vec4<f32>(); }
    let d = min(column, uniforms.numColumns - 1);
    return weights[(expert * uniforms.numColumns + d) * (uniforms.numIn / 4) + k / 4];
  }`;

/** [E, C, D], where C and D are multiples of 4. */
const N_MAJOR_QUADS = /* wgsl */ `
  fn weightQuad(expert : u32, column : u32, k : u32) -> vec4<f32> {
    if (HAS_K_TAIL == 1 && k >= uniforms.numIn) { return vec4<f32>(); }
    let d = min(column, uniforms.numColumns - 4);
    return weights[(expert * uniforms.numIn + k) * (uniforms.numColumns / 4) + d / 4];
  }`;

/** A weight by its place: 0 for terms past C. */
const WEIGHT_AT = /* wgsl */ `
  fn weightAt(expert : u32, column : u32, k : u32) -> f32 {
    let value = weights[placeOf(expert, min(column, uniforms.numColumns - 1), min(k, uniforms.numIn - 1))];
    return select(0.0, value, k < uniforms.numIn);
  }`;

/** [E, D, C] of any size. */
const K_MAJOR_SCALARS = /* wgsl */ `
  fn placeOf(expert : u32, d : u32, c : u32) -> u32 { return (expert * uniforms.numColumns + d) * uniforms.numIn + c; }
  fn weightQuad(expert : u32, column : u32, k : u32) -> vec4<f32> {
    return vec4(
      weightAt(expert, column, k + 0),
      weightAt(expert, column, k + 1),
      weightAt(expert, column, k + 2),
      weightAt(expert, column, k + 3));
  }
  ${WEIGHT_AT}`;

/** [E, C, D] of any size. */
const N_MAJOR_SCALARS = /* wgsl */ `
  fn placeOf(expert : u32, d : u32, c : u32) -> u32 { return (expert * uniforms.numIn + c) * uniforms.numColumns + d; }
  fn weightQuad(expert : u32, column : u32, k : u32) -> vec4<f32> {
    return vec4(
      weightAt(expert, column + 0, k),
      weightAt(expert, column + 1, k),
      weightAt(expert, column + 2, k),
      weightAt(expert, column + 3, k));
  }
  ${WEIGHT_AT}`;

const RAW_QUAD = /* wgsl */ `
  fn rawQuad(expert : u32, column : u32, k : u32) -> vec4<u32> {
    return bitcast<vec4<u32>>(weightQuad(expert, column, k));
  }
  fn weightsOf(raw : vec4<u32>) -> vec4<f32> { return bitcast<vec4<f32>>(raw); }`;

export function float32Weights(quads: Quads, weightFormat: MoeWeightFormat): WeightReader {
  const kMajor = quads === 'f32' ? K_MAJOR_SCALARS : K_MAJOR_QUADS;
  const nMajor = quads === 'f32' ? N_MAJOR_SCALARS : N_MAJOR_QUADS;
  const page = {
    buffers: ({weights}: WeightTensors): StorageBinding[] => [
      {name: 'weights', type: quads, access: 'read', tensor: weights},
    ],
    functions: /* wgsl */ `
  ${weightFormat === 'outIn' ? kMajor : nMajor}
  ${RAW_QUAD}`,
  };
  return {uniforms: {}, tile: page, lane: weightFormat === 'outIn' ? kMajorLane(page) : nMajorLane(page)};
}

/** Four terms of each column. */
const kMajorLane = (page: Pick<LaneReader, 'buffers' | 'functions'>): LaneReader => ({
  ...page,
  numTerms: 4,
  load: '',
  quad: () => repeat(4, (j) => `let weight${j} = weightQuad(expert, d + ${j}, k);`),
});
