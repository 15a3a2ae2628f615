/** Random tokens and experts for fusedExperts and fusedMoe, as numbers and as tensors. */
import * as tf from '../../src/tf';
import type {FusedCase, NaiveFusedOptions} from '../naive/fused_experts';
import {lcg} from './routings';

export type Sizes = {T: number; K: number; E: number; H: number; I: number};

/** Random tokens, experts and routing; some ids name no expert. */
export function caseOf({T, K, E, H, I}: Sizes, {gated = true, weightFormat}: NaiveFusedOptions = {}, seed = 1): Required<FusedCase> {
  const next = lcg(seed + 31 * T + 7 * E + H);
  const random = () => Math.fround(2 * next() - 1);
  const array = <V>(length: number, value: (i: number) => V) => Array.from({length}, (_, i) => value(i));
  const matrix = (rows: number, columns: number) => array(rows, () => array(columns, random));
  const numOut = gated ? 2 * I : I;
  const weights = (out: number, ins: number) => (weightFormat === 'inOut' ? matrix(ins, out) : matrix(out, ins));
  return {
    x: matrix(T, H),
    ids: array(T, () => array(K, () => Math.floor(next() * (E + 2)) - 1)),
    topkWeights: matrix(T, K),
    w1: array(E, () => weights(numOut, H)),
    w2: array(E, () => weights(H, I)),
    w1Bias: matrix(E, numOut),
    w2Bias: matrix(E, H),
    expertMap: array(E, (e) => e),
  };
}

export const tensors = ({x, ids, topkWeights, w1, w2}: FusedCase, {H, K}: Pick<Sizes, 'H' | 'K'>) => ({
  x: tf.tensor2d(x.flat(), [x.length, H]),
  ids: tf.tensor2d(ids.flat(), [ids.length, K], 'int32'),
  topkWeights: tf.tensor2d(topkWeights.flat(), [ids.length, K]),
  w1: tf.tensor3d(w1),
  w2: tf.tensor3d(w2),
});
