/** What shaders get as uniforms, which are integers. */
import type {MoeTopkScoring} from '../../kernel_names';

export const SCORING_CODES: Record<MoeTopkScoring, number> = {
  softmax: 0,
  softmaxAfterTopk: 1,
  sigmoid: 2,
  sqrtSoftplus: 3,
};

/** The bits of a float32, as an int32. */
export function bitsOf(value: number): number {
  return new Int32Array(Float32Array.of(value).buffer)[0];
}
