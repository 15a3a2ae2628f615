/** fusedExperts as plain loops in float64: every slot of every token by itself. */
import type {FusedExpertsOptions} from '../../src/tf';
import {naiveGroupedMatMul} from './grouped_mat_mul';

export type FusedCase = {
  x: number[][];
  ids: number[][];
  topkWeights: number[][];
  w1: number[][][];
  w2: number[][][];
  w1Bias?: number[][];
  w2Bias?: number[][];
  expertMap?: number[];
};
export type NaiveFusedOptions = Omit<FusedExpertsOptions, 'w1Bias' | 'w2Bias' | 'expertMap'>;

/** With `magnitudes`, the sums of the absolute terms of each element, by which rounding errors are bounded. */
export function naiveFusedExperts(
  {x, ids, topkWeights, w1, w2, w1Bias, w2Bias, expertMap}: FusedCase,
  options: NaiveFusedOptions = {},
): {values: number[]; magnitudes: number[]} {
  const {activation = 'silu', gated = true, applyRouterWeightOnInput = false, weightFormat, numZeroExperts, ...rest} = options;
  const numExperts = expertMap?.length ?? w1.length;
  const hiddenSize = x[0]?.length ?? 0;
  const values = new Array<number>(x.length * hiddenSize).fill(0);
  const magnitudes = values.slice();
  ids.forEach((tokenIds, t) =>
    tokenIds.forEach((id, k) => {
      if (id >= numExperts && id < numExperts + (numZeroExperts ?? 0)) {
        x[t].forEach((value, h) => {
          values[t * hiddenSize + h] += topkWeights[t][k] * value;
          magnitudes[t * hiddenSize + h] += Math.abs(topkWeights[t][k] * value);
        });
        return;
      }
      const expert = expertMap == null ? id : (expertMap[id] ?? -1);
      if (expert < 0 || expert >= w1.length) {
        return;
      }
      const weight = topkWeights[t][k];
      const row = x[t].map((value) => (applyRouterWeightOnInput ? value * weight : value));
      const product = (rows: number[], weights: number[][], bias: number[] | undefined, naive: object) => {
        const isOutIn = weightFormat !== 'inOut';
        const numColumns = isOutIn ? weights.length : weights[0].length;
        return naiveGroupedMatMul(
          {numRows: 1, numIn: rows.length, numColumns, offset: [0, 1]},
          {x: rows, weights: weights.flat(), bias},
          {weightFormat, ...naive},
        ).values;
      };
      const hidden = product(row, w1[expert], w1Bias?.[expert], {activation, gated, ...rest});
      const out = product(hidden, w2[expert], w2Bias?.[expert], {});
      const terms = product(
        hidden.map(Math.abs),
        w2[expert].map((column) => column.map(Math.abs)),
        w2Bias?.[expert].map(Math.abs),
        {},
      );
      const factor = applyRouterWeightOnInput ? 1 : weight;
      out.forEach((value, h) => {
        values[t * hiddenSize + h] += factor * value;
        magnitudes[t * hiddenSize + h] += Math.abs(factor) * terms[h];
      });
    }),
  );
  return {values, magnitudes};
}
