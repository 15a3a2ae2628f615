/**
 * The stable counting sort of N assignments by key that moePermute and moeAlignBlockSize share, in WGSL.
 *
 * Many assignments are cut into tiles of consecutive ids.
 *
 *   launch 1, webgpu_count_tiles.ts  a workgroup a tile: keys[i]; ranks[i], how many of the same key come before i in
 *                                    its tile; counts[tile][key]
 *   launch 2, webgpu_scan_tiles.ts   one workgroup: each count becomes the number of all assignments of lower keys, and
 *                                    of the same key in earlier tiles, so that counts[tile][key] + ranks[i] is the
 *                                    sorted position of i; experts[e] is the record of local expert e
 *   launch 3                         is the op's own: it moves rows, or ids, to where they belong
 *
 * webgpu_compare_few.ts takes the place of launches 1 and 2 for few assignments: time and memory are by their number,
 * not by that of keys, but for the offsets of all experts, which take a launch more. Where keys are few too, the op's
 * launch does all of the sort by webgpu_one_launch.ts.
 */
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {type MapUse, numKeysOf} from './plan';
import {compareFew, FEW_ASSIGNMENTS} from './webgpu_compare_few';
import {countTiles, tilesOf} from './webgpu_count_tiles';
import type {Sorted, SortInputs} from './webgpu_launch';
import {scanTiles} from './webgpu_scan_tiles';

/** The launches before the last. The caller disposes of the tensors that it returns. */
export function sortAssignments(backend: WebGPUBackend, inputs: SortInputs): Sorted {
  const {sizes, mapUse} = inputs;
  if (sizes.numAssignments <= FEW_ASSIGNMENTS) {
    return compareFew(backend, inputs);
  }
  const {keys, counts, numTiles, tileSize} = countTiles(backend, inputs);
  const experts = scanTiles(backend, inputs, counts, numTiles);
  const numKeys = numKeysOf(sizes.numExperts, mapUse);
  return {keys, positions: counts, experts, numKeys, numLocalKeys: sizes.numLocalExperts, tileSize};
}

/** Shapes of the intermediates that grow with the number of experts, for assertBindable. */
export function sortScratch(numAssignments: number, numExperts: number, mapUse: MapUse): Record<string, number[]> {
  if (numAssignments <= FEW_ASSIGNMENTS) {
    return {};
  }
  const numKeys = numKeysOf(numExperts, mapUse);
  const {numTiles} = tilesOf(numAssignments, numKeys);
  return {'the counts of experts in tiles': [numTiles, numKeys], 'the records of experts': [numExperts + 1, 4]};
}
