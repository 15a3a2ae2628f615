import {op, type Tensor1D, tensor1d} from '@tensorflow/tfjs-core';
import {assert, assertNumExperts, assertPositiveInteger, checkOneOf, describeValue} from '../arguments/checks';

export type MoeExpertMapStrategy = 'linear' | 'roundRobin';

export type MoeExpertMapResult = {
  /** L, the number of experts of the shard: the option `numLocalExperts` of moePermute. */
  numLocalExperts: number;
  /** int32 [E]: the local index of each expert, -1 for an expert of another shard. The option `expertMap` of ops. */
  expertMap: Tensor1D;
};

function moeExpertMap_(
  numExperts: number,
  numShards: number,
  shard: number,
  strategy?: MoeExpertMapStrategy | null,
): MoeExpertMapResult {
  const opName = 'moeExpertMap';
  assertNumExperts(numExperts, 'numExperts', opName);
  assertPositiveInteger(numShards, 'numShards', opName);
  assert(
    numShards <= numExperts,
    opName,
    () =>
      `numShards must be at most numExperts (${numExperts}), so that each shard has an expert, but is ${numShards}.`,
  );
  assert(
    Number.isInteger(shard) && shard >= 0 && shard < numShards,
    opName,
    () => `shard must be an integer from 0 to numShards - 1 (${numShards - 1}), but is ${describeValue(shard)}.`,
  );
  const isLinear = checkOneOf(strategy ?? 'linear', ['linear', 'roundRobin'], 'strategy', opName) === 'linear';

  const share = Math.floor(numExperts / numShards);
  const remainder = numExperts % numShards;
  const numLocalExperts = share + (shard < remainder ? 1 : 0);
  const first = isLinear ? shard * share + Math.min(shard, remainder) : shard;
  const step = isLinear ? 1 : numShards;
  const map = new Int32Array(numExperts).fill(-1);
  for (let local = 0; local < numLocalExperts; local++) {
    map[first + local * step] = local;
  }
  return {numLocalExperts, expertMap: tensor1d(map, 'int32')};
}

/**
 * The expert map of one shard, for models whose experts are spread over several devices or workers.
 *
 * ```js
 * const {numLocalExperts, expertMap} = tf.moeExpertMap(5, 2, 0);
 * numLocalExperts; // => 3
 * await expertMap.array(); // => [0, 1, 2, -1, -1]
 * await tf.moeExpertMap(5, 2, 1, 'roundRobin').expertMap.array(); // => [-1, 0, -1, 1, -1]
 * ```
 *
 * @param numExperts  E, the number of experts of all shards, at most 2^20.
 * @param numShards  The number of shards, at most E.
 * @param shard  This shard, 0..numShards-1.
 * @param strategy  `'linear'` (default): consecutive experts. `'roundRobin'`: every numShards-th expert. The first E %
 *     numShards shards get one expert more.
 * @returns {@link MoeExpertMapResult}.
 *
 * @throws if a number does not fit or the strategy is unknown.
 *
 * Source: vLLM `determine_expert_map`.
 */
export const moeExpertMap = /* @__PURE__ */ op({moeExpertMap_});
